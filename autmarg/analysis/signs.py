"""Standard deviations below zero, as of ``Normal(m, c + d * x)`` with real c and d.

The density of the site is NaN there, since it takes their logarithm, and a sampler turns back. A
marginal takes only their squares, so that it would be finite, and the posterior another one. The
precisions of rows are therefore NaN there; priors and factors add a term that is NaN.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def precision(scales: Any) -> Any:
    """σ⁻², NaN where σ is below zero; the derivative there is zero, for rows that do not count."""
    return jnp.where(scales < 0, jnp.nan, scales**-2.0)


def of_scales(scales: Any) -> Any:
    """What standard deviations add to a log-density: zero, or NaN where one is below zero."""
    return jnp.where((scales < 0).any(), jnp.nan, 0.0)


def of_factors(lower: Any) -> Any:
    """The same of triangular factors [..., d, d], by their diagonals."""
    return of_scales(jnp.diagonal(lower, axis1=-2, axis2=-1))


__all__ = ["of_factors", "of_scales", "precision"]
