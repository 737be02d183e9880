"""Whether integrals by quadrature are to be trusted at the draws that were made with them.

How many nodes are enough is found where the posterior is taken to be, around one mode. Draws say
where it is. The mean over them of a change δ of the log-density bounds what δ does to the
probability of anything, to first order (:mod:`autmarg.quadrature.accuracy`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.errors import RequestError, named
from autmarg.ir.density import Numerical
from autmarg.ir.nodes import Recover

_DRAWS, _LEAST, _WORK = 256, 32, 100_000_000  # draws that are tried; elements times nodes of all
_ALLOWED, _ROUNDINGS = 1e-3, 10  # mean change, of any probability; or so many roundings


@dataclass(frozen=True)
class Integrals:
    """What a program has by quadrature: the nodes that recover it, and their densities."""

    found: tuple[tuple[Recover, Numerical], ...]

    @classmethod
    def of(cls, nodes: Iterable[Recover]) -> Integrals:
        """Those of some nodes."""
        return cls(tuple((n, n.density) for n in nodes if isinstance(n.density, Numerical)))

    def places(self, count: int) -> np.ndarray:
        """Which of so many draws are tried, [tried]."""
        work = sum(density.work for _, density in self.found)
        tried = min(count, max(_LEAST, min(_DRAWS, int(_WORK / work))))
        return np.linspace(0, count - 1, tried).astype(int)

    def sizes(self, values: Mapping[str, Any]) -> Array:
        """|change| of log p(y | θ) with more nodes over a wider range, and its size, at a draw."""
        both = ((density.change(values), density.log_density(values)) for _, density in self.found)
        return jnp.abs(jnp.array([*both])).sum(axis=0)

    def check(self, sizes: Array) -> str:
        """By how much more nodes over a wider range change log p(y | θ) at draws, in words.

        Args:
            sizes: at each of them, as :meth:`sizes` gives them, [tried, 2].

        Raises:
            RequestError: that would change what the draws say: the mean is over 0.001 nats, and
                over ten roundings.
        """
        changes, logs = np.asarray(sizes).T
        allowed = max(_ALLOWED, _ROUNDINGS * float(jnp.finfo(sizes.dtype).eps) * logs.mean())
        if changes.mean() <= allowed:
            return (
                f"at {len(changes)} draws, more nodes over a wider range change it by "
                f"{changes.mean():.0e} nats on average and {changes.max():.0e} at most"
            )
        names = named([m.name for node, _ in self.found for m in node.members])
        now = ", ".join(str(density.nodes) for _, density in self.found)
        raise RequestError(
            f"{names} cannot be integrated out by quadrature: at {len(changes)} of the posterior's "
            f"draws more nodes ({now} now) over a wider range change log p(y | θ) by "
            f"{changes.max():.2g} nats at most and {changes.mean():.2g} on average, where "
            f"{allowed:.2g} are allowed. "
            "Around the mode that was found the nodes are enough; elsewhere the integrand has "
            "several peaks or a narrow one, as that of a mixture may have. Use "
            "nongaussian='whiten', which is exact, or 'off'"
        )


__all__ = ["Integrals"]
