"""Linear algebra of batches of small matrices [..., D, D], for recursions over time.

(:mod:`autmarg.gaussian.small` has the component-major layout, for one pass over many blocks.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_EXACT: Any = {"precision": "highest"}


def solve_lower(lower: Any, b: Any) -> Any:
    """L⁻¹ b for right-hand sides [..., D, R]."""
    return jax.scipy.linalg.solve_triangular(lower, b, lower=True)


def solve_upper(lower: Any, b: Any) -> Any:
    """L⁻ᵀ b for vectors [..., D]."""
    return jax.scipy.linalg.solve_triangular(lower, b[..., None], lower=True, trans=1)[..., 0]


def eye_plus(left: Any, right: Any) -> Any:
    """I + left right."""
    return jnp.eye(left.shape[-1], dtype=left.dtype) + jnp.matmul(left, right, **_EXACT)
