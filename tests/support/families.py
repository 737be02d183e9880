"""Data that tests of Gaussian families share, and the check that all of them make."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

import autmarg

_RNG = np.random.default_rng(5)
ADJACENCY = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0.0]])
FACTOR = np.array([[1.0, 0.5], [-1.0, 2.0], [0.3, 0.0], [0.0, 1.5]])
CORRELATED = np.eye(4) + 0.3
WHERE = np.array([0, 1, 2, 3, 3, 0, 2])
SEEN = _RNG.normal(size=7)
ROWS = _RNG.normal(size=(6, 4))
TABLE = np.array(
    [[0, 1, 2, 3], [0, 0, 1, 1], [4, 4, 4, 2], [1, 2, 3, 4], [0, 1, 0, 1], [3, 3, 3, 2]]
)
SOME = np.array([True, False, True, True, False, True])


def exact(model, integrated, **kwargs):
    """Transform, check what goes, verify, and hand the transformed model back."""
    marg = autmarg.transform(model)
    assert set(marg.plan(**kwargs).integrated) == integrated
    autmarg.verify(marg, points=2, quiet=True, kwargs=kwargs)
    return marg


def row_factor(t):
    return jnp.array([[1.0, 0.0], [0.4, t]])


def circle(t):
    return t * jnp.array([1.0, 0.3, 0.1, 0.3])
