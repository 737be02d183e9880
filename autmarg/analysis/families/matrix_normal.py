"""MatrixNormal: X = M + R E Cᵀ with row factor R and column factor C."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from autmarg.analysis.families.base import Gaussian


def matrix_normal(d: Any) -> Gaussian:
    """Row after row, X has the factor R ⊗ C, which is triangular as R and C are."""
    row, column = jnp.tril(d.scale_tril_row), jnp.tril(d.scale_tril_column)
    product = jnp.einsum("...ij,...kl->...ikjl", row, column)
    size = row.shape[-1] * column.shape[-1]
    factor = product.reshape(*product.shape[:-4], size, size)
    return Gaussian(d.loc, scale_tril=factor, event_dim=2)
