"""Whether integrals by quadrature are to be trusted at the draws that were made with them.

How many nodes are enough is found where the posterior is taken to be, around one mode. Draws say
where it is. The mean over them of a change δ of the log-density bounds what δ does to the
probability of anything, to first order (:mod:`autmarg.quadrature.accuracy`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.programs import compiled
from autmarg.errors import RequestError, named
from autmarg.ir.density import Numerical
from autmarg.ir.nodes import Recover

_DRAWS, _LEAST, _WORK = 256, 32, 100_000_000  # draws that are tried; elements times nodes of all
_ALLOWED, _ROUNDINGS = 1e-3, 10  # mean change, of any probability; or so many roundings


def numerical(nodes: Sequence[Recover]) -> list[tuple[Recover, Numerical]]:
    """The nodes whose density is by quadrature, with it."""
    return [(n, n.density) for n in nodes if isinstance(n.density, Numerical)]


def check_integrals(
    found: Sequence[tuple[Recover, Numerical]], values: Mapping[str, Any], count: int
) -> None:
    """Raise where twice as many nodes would change what the draws say.

    Args:
        found: what is recovered, with its density.
        values: what the densities read, by name, one row for each draw.
        count: of the draws.

    Raises:
        RequestError: the mean change of log p(y | θ) is over 0.001 nats, and over ten roundings.
    """
    work = sum(density.work for _, density in found)
    tried = min(count, max(_LEAST, min(_DRAWS, int(_WORK / work))))
    at = np.linspace(0, count - 1, tried).astype(int)

    def sizes(own: Mapping[str, Any]) -> Any:
        both = ((density.change(own), density.log_density(own)) for _, density in found)
        return jnp.abs(jnp.array([*both])).sum(axis=0)

    each = compiled(lambda rows: jax.lax.map(sizes, rows))({n: x[at] for n, x in values.items()})
    changes, logs = np.asarray(each).T
    allowed = max(_ALLOWED, _ROUNDINGS * float(jnp.finfo(each.dtype).eps) * logs.mean())
    if not changes.mean() <= allowed:
        names = named([m.name for node, _ in found for m in node.members])
        now = ", ".join(str(density.nodes) for _, density in found)
        raise RequestError(
            f"{names} cannot be integrated out by quadrature: at {tried} of the posterior's draws "
            f"twice as many nodes ({now} now) change log p(y | θ) by {changes.max():.2g} nats at "
            f"most and {changes.mean():.2g} on average, where {allowed:.2g} are allowed. Around "
            "the mode that was found the nodes are enough; elsewhere the integrand has several "
            "peaks or a narrow one, as that of a mixture may have. Use nongaussian='whiten', which "
            "is exact, or 'off'"
        )


__all__ = ["check_integrals", "numerical"]
