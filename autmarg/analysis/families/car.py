"""CAR, the conditional autoregressive field: precision τ (D - α W), D the row sums of W.

With D^-½ W D^-½ = V Λ Vᵀ the covariance is B diag(1 / (τ (1 - α λ))) Bᵀ, B = D^-½ V: a known basis,
in which only the scales depend on α and τ. (The eigenvalues are what the density needs anyway:
Jin, Carlin & Banerjee 2005, Generalized Hierarchical Multivariate CAR Models for Areal Data,
Biometrics 61, section 2.)
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from autmarg.analysis.families.base import Gaussian


def car(d: Any) -> Gaussian:
    """The eigenvectors of the scaled adjacency matrix as basis."""
    adjacency = d.adj_matrix.toarray() if d.is_sparse else d.adj_matrix
    adjacency = jnp.asarray(adjacency, float)
    root = adjacency.sum(axis=-1) ** -0.5
    values, vectors = jnp.linalg.eigh(adjacency * root[..., None, :] * root[..., :, None])
    correlation, precision = (
        jnp.expand_dims(p, -1) for p in (d.correlation, d.conditional_precision)
    )
    scale = (precision * (1 - correlation * values)) ** -0.5
    return Gaussian(d.loc, scale=scale, basis=root[..., :, None] * vectors, event_dim=1)
