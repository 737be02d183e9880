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
from autmarg.ir.nodes import Recover
from autmarg.quadrature.density import QuadratureMarginal

_DRAWS, _LEAST, _WORK = 256, 32, 100_000_000  # draws that are tried; elements times nodes of all
_ALLOWED = 1e-3  # mean change, of any probability


def check_integrals(nodes: Sequence[Recover], values: Mapping[str, Any], count: int) -> None:
    """Raise where twice as many nodes would change what the draws say.

    Args:
        nodes: what is recovered.
        values: what the densities read, by name, one row for each draw.
        count: of the draws.

    Raises:
        RequestError: the mean change of log p(y | θ) is over 0.001 nats.
    """
    found = [n.density for n in nodes if isinstance(n.density, QuadratureMarginal)]
    if not found:
        return
    work = sum(each.rule.count ** len(each.members) * each.elements for each in found)
    tried = min(count, max(_LEAST, min(_DRAWS, int(_WORK / work))))
    at = np.linspace(0, count - 1, tried).astype(int)

    def change(own: Mapping[str, Any]) -> Any:
        return sum(jnp.abs(each.change(own)) for each in found)

    each = compiled(lambda rows: jax.lax.map(change, rows))({n: x[at] for n, x in values.items()})
    changes = np.asarray(each)
    if not changes.mean() <= _ALLOWED:
        names = named([m.name for density in found for m in density.members])
        nodes_each = ", ".join(str(density.rule.count) for density in found)
        raise RequestError(
            f"{names} cannot be integrated out by quadrature: at {tried} of the posterior's draws "
            f"twice as many nodes ({nodes_each} now) change log p(y | θ) by {changes.max():.2g} "
            f"nats at most and {changes.mean():.2g} on average, where 0.001 are allowed. Around "
            "the mode that was found the nodes are enough; elsewhere the integrand has several "
            "peaks or a narrow one, as that of a mixture may have. Use nongaussian='whiten', which "
            "is exact, or 'off'"
        )


__all__ = ["check_integrals"]
