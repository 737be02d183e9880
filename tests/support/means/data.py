"""Known arrays that the means read, and the type of a mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

Mean = Callable[[Any], Any]

_RNG = np.random.default_rng(20261124)
N = 11
G5, G4, G3 = (_RNG.integers(0, k, N) for k in (5, 4, 3))
G12 = _RNG.integers(0, 12, N)
UP = np.array([0, 1, 1, 2, 0])  # levels of u's levels
X = _RNG.normal(size=N)
X5, X12 = _RNG.normal(size=(N, 5)), _RNG.normal(size=(N, 12))
X3 = _RNG.normal(size=(N, 3))
SQUARE = _RNG.normal(size=(5, 5)) + 4 * np.eye(5)
KERNEL = np.array([0.5, 1.0, -0.25])
SPARSE = sparse.BCOO.fromdense(np.eye(5)[G5])
TIMES = np.linspace(0.0, 1.0, 12)


def kernel(a, b, ell):
    """Squared-exponential covariances of the points ``a`` with the points ``b``."""
    return jnp.exp(-0.5 * ((a[:, None] - b) / ell) ** 2)
