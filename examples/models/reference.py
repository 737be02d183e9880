"""What is recorded about a reference model: its data, its spellings, what is integrated out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

Model = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Reference:
    """One model in several spellings that have one marginal density.

    Attributes:
        name: the model's name.
        arguments: loads the data and returns the positional arguments, observed values last.
        spellings: spelling -> NumPyro model; the first is the one that the others are held against.
        integrated: spelling -> the sites that must be integrated out when everything may be.
        log_jacobian: spelling -> function of the arguments; what to add to the spelling's
            log-density to have that of the first (a spelling on the scale of log y).
        keep_map: spelling -> function from values of the kept sites of the first spelling to
            those of this one, without a Jacobian.
    """

    name: str
    arguments: Callable[[], tuple[Any, ...]]
    spellings: Mapping[str, Model]
    integrated: Mapping[str, frozenset[str]]
    log_jacobian: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    keep_map: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.spellings) != set(self.integrated):
            raise ValueError(f"{self.name}: 'integrated' must name exactly the spellings")

    @property
    def first(self) -> Model:
        """The spelling that the others are held against."""
        return next(iter(self.spellings.values()))


def sites(names: str) -> frozenset[str]:
    """A set of site names from one string with blanks between them."""
    return frozenset(names.split())


def log_response_jacobian(*arguments: Any) -> Any:
    """log |d log y / dy| summed over rows: takes Normal(log y) to LogNormal(y)."""
    return -jnp.sum(jnp.log(arguments[-1]))
