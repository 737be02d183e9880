"""Standard deviations below zero, as of ``Normal(m, c + d * x)`` with real c and d.

There the density of the site is NaN, for it has their logarithm, and a sampler turns back. A
marginal has only their squares and absolute values: it would go on, to another posterior. So it is
made NaN, by the precisions of rows or by a term of its own.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Opaque


def of_scales(scale: Any, used: np.ndarray | None = None) -> tuple[Any, ...]:
    """What standard deviations add to a log-density: a zero, or NaN where one is below zero.

    Nothing where they are known. ``used`` are the numbers of those that count, all by default.
    """
    if not isinstance(scale, Opaque):
        return ()
    rows = scale.rows() if used is None or len(scale.rows()) == 1 else scale.rows()[used]
    entries = np.unique(rows)
    return _nan_below_zero(scale.flat if len(entries) == scale.entries else scale.flat[entries])


def precision(scale: Any) -> Any:
    """σ⁻², NaN where σ is below zero; no derivative comes back from there, to rows without it."""
    return jnp.where(scale < 0, jnp.nan, scale**-2.0)


def of_factors(tril: Any, used: np.ndarray | None = None) -> tuple[Any, ...]:
    """The same of the diagonals of triangular factors [G|1, d, d]; ``used`` numbers groups."""
    if not isinstance(tril, Opaque):
        return ()
    lower = tril.value()
    lower = lower if used is None or len(lower) == 1 else lower[used]
    return _nan_below_zero(jnp.diagonal(lower, axis1=-2, axis2=-1))


def _nan_below_zero(deviations: Any) -> tuple[Any, ...]:
    return (jnp.where((deviations < 0).any(), jnp.nan, 0.0),)


__all__ = ["of_factors", "of_scales", "precision"]
