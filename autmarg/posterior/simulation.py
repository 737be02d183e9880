"""The user's program run forward from posterior draws: known elements given, all others drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers

from autmarg.compat.numpyro import (
    Message,
    base_of,
    is_reversed,
    is_scan,
    step_of,
    subsample_of,
    unwrapped,
)
from autmarg.errors import RequestError
from autmarg.posterior.continuing import CannotContinue, continued
from autmarg.posterior.levels import Known

Array = jax.Array


@dataclass(frozen=True, eq=False)
class Simulation:
    """One forward run of a program.

    Attributes:
        name: of the model, for messages.
        model: the source.
        args, kwargs: what it is called with.
        known: what the draws say of its latents.
        renewed: latents of the fit that are drawn anew as a whole.
    """

    name: str
    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    known: Mapping[str, Known]
    renewed: Collection[str] = ()

    def run(self, key: Array, values: Mapping[str, Array]) -> dict[str, Message]:
        """The messages of all sites at one draw.

        Args:
            key: for what is drawn.
            values: of the known sites and of params, by name.

        Raises:
            RequestError: a site cannot be given its draws, or its new elements have no
                distribution to draw them from.
        """
        giving = _Giving(self, values)
        with handlers.block(), handlers.trace() as trace, giving:
            handlers.seed(self.model, key)(*self.args, **self.kwargs)
        if lost := sorted(set(self.known) - giving.met):
            raise RequestError(
                f"predict cannot give '{self.name}' its draws of {lost}: their sites are hidden, "
                "or renamed by a handler inside a scan. Expected handlers.block and handlers.scope "
                "around no scan"
            )
        return dict(trace)


class _Giving(handlers.substitute):
    """Gives latents their values, also step by step inside a scan."""

    def __init__(self, simulation: Simulation, values: Mapping[str, Array]) -> None:
        super().__init__(substitute_fn=self._value)
        self.simulation, self.values = simulation, values
        self.met: set[str] = set()

    def process_message(self, msg: Message) -> None:
        known = self.simulation.known
        if msg["type"] == "control_flow" and known:
            if not is_scan(msg):
                raise RequestError("predict cannot give draws to sites inside control_flow.cond")
            if is_reversed(msg):
                raise RequestError(
                    "predict cannot give draws to sites inside a scan with reverse=True: flip the "
                    "data and scan forwards"
                )
        if msg["type"] == "plate" and (some := subsample_of(msg)) is not None:
            raise RequestError(
                f"predict found plate '{msg['name']}' subsampled ({some[0]} of {some[1]}): call "
                "the model without subsample_size"
            )
        super().process_message(msg)

    def _value(self, msg: Message) -> Array | None:
        name = msg["name"]
        if msg["type"] == "param":
            return self.values.get(name)
        if msg["type"] != "sample" or msg["is_observed"] or msg["value"] is not None:
            return None
        if name in self.simulation.renewed:
            _check_population(name, msg)
        known = self.simulation.known.get(name)
        if known is None:
            return None
        self.met.add(name)
        value, mask = self.values[name], jnp.asarray(known.mask)
        step = step_of(msg)
        if step is not None:
            value, mask = value[step], mask[step]
        if not known.grown:
            return value
        return _continued(name, msg, value, mask, known)


def _continued(name: str, msg: Message, value: Array, mask: Array, known: Known) -> Array:
    _check_population(name, msg)
    fn, kwargs = msg["fn"], msg["kwargs"]
    try:
        fresh = fn.sample(kwargs["rng_key"], kwargs.get("sample_shape", ()))
    except NotImplementedError as error:
        raise RequestError(
            f"'{name}' has new elements, and its prior ({type(fn).__name__}) has no draws"
        ) from error
    grown = frozenset(axis for axis in known.grown if axis >= -jnp.ndim(fresh))
    value, mask = jnp.broadcast_to(value, fresh.shape), jnp.broadcast_to(mask, fresh.shape)
    try:
        return continued(fn, fresh, value.astype(fresh.dtype), mask, grown)
    except CannotContinue:
        raise RequestError(
            f"'{name}' has shape {known.shape} in the fit and {known.mask.shape} with these "
            f"arguments, and predict cannot draw new elements of {_kind(fn)} given the others: fit "
            "with the new elements in the model (levels need no data)"
        ) from None


def _check_population(name: str, msg: Message) -> None:
    """Raise where a site's density is not that of its distribution."""
    changed = "a mask" if unwrapped(msg["fn"]).masks else None
    changed = "a scale" if msg.get("scale") is not None else changed
    if changed:
        raise RequestError(
            f"'{name}' has new elements and {changed} on its density, so that its distribution is "
            "not their population: fit with the new elements in the model"
        )


def _kind(fn: Any) -> str:
    kind = type(base_of(fn)).__name__
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
