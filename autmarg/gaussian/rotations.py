"""Orthogonal transformations of many small matrices, component-major, that have derivatives.

Matrices [D, E] with D ≤ E become [S, 0] U, with S lower triangular and U a product of Householder's
reflections (Golub & Van Loan 2013, Matrix Computations, 4th ed., section 5.1),

    U = diag(-1, 1) H_D … H_1,    H = I - τ v vᵀ,

each with the sign that leaves S a positive diagonal. So S and U are smooth functions of the matrix,
but where a vector to be reflected is zero or the negative of what it becomes; LAPACK's U has no
derivatives. Where a row is zero, so is that of S, and U leaves its place alone but for its sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small

if TYPE_CHECKING:
    from jaxtyping import Float

_WRITTEN_OUT = 250  # products D D E, up to which every scalar operation is written out


class Reflections(NamedTuple):
    """v [D, E, N] and τ [D, N] of each, in the order in which they were made."""

    vector: Float[Array, "D E N"]
    scale: Float[Array, "D N"]


def triangularise(matrix: Float[Array, "D E N"]) -> tuple[Float[Array, "D D N"], Reflections]:
    """S [D, D, N] and the reflections of matrices [D, E, N] = [S, 0] U."""
    d, e, _ = matrix.shape
    if d * d * e <= _WRITTEN_OUT:
        return _written_out(matrix)
    return _in_a_loop(matrix)


def rotated_back(reflections: Reflections, x: Float[Array, "E *r N"]) -> Float[Array, "E *r N"]:
    """Uᵀx [E, …, N] of vectors x [E, …, N]."""
    d, e, _ = reflections.vector.shape
    between = (1,) * (x.ndim - 2)
    signs = np.where(np.arange(e) < d, -1.0, 1.0).reshape(e, *between, 1)
    x = x * jnp.asarray(signs, x.dtype)
    vectors, scales = small.parts(reflections.vector), small.parts(reflections.scale)
    for vector, scale in zip(reversed(vectors), reversed(scales), strict=True):
        v = vector.reshape(e, *between, -1)
        x = x - scale * (v * x).sum(axis=0) * v
    return x


def _written_out(matrix: Float[Array, "D E N"]) -> tuple[Float[Array, "D D N"], Reflections]:
    """The same, every scalar operation written out."""
    rows = [small.parts(row) for row in small.parts(matrix)]
    d, zero = len(rows), jnp.zeros_like(matrix[0, 0])
    lower = [[zero] * d for _ in rows]
    vectors, scales = [], []
    for k in range(d):
        own, rest = rows[k][k], rows[k][k + 1 :]
        far = sum((x * x for x in rest), start=zero)
        first, scale, lower[k][k] = _reflector(own, far)
        vector = [first, *rest]
        for i in range(k + 1, d):
            ahead = rows[i][k:]
            along = scale * sum((x * v for x, v in zip(ahead, vector, strict=True)), start=zero)
            rows[i][k:] = [x - along * v for x, v in zip(ahead, vector, strict=True)]
            lower[i][k] = -rows[i][k]
        vectors.append(jnp.stack([*[zero] * k, *vector]))
        scales.append(scale)
    stacked = jnp.stack([jnp.stack(row) for row in lower])
    return stacked, Reflections(jnp.stack(vectors), jnp.stack(scales))


def _in_a_loop(matrix: Float[Array, "D E N"]) -> tuple[Float[Array, "D D N"], Reflections]:
    """The same, a row at a time in a loop."""
    d, e, _ = matrix.shape
    at = np.arange(e)[:, None]

    def reflect(rows: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
        x = jax.lax.dynamic_index_in_dim(rows, k, 0, keepdims=False)
        own, rest = jnp.where(at == k, x, 0).sum(axis=0), jnp.where(at > k, x, 0)
        first, scale, _ = _reflector(own, jnp.square(rest).sum(axis=0))
        vector = jnp.where(at == k, first, rest)
        return rows - scale * (rows * vector).sum(axis=1)[:, None] * vector, (vector, scale)

    rows, (vectors, scales) = jax.lax.scan(reflect, matrix, jnp.arange(d))
    below = jnp.asarray(np.tril(np.ones((d, d)))[..., None], rows.dtype)
    return -rows[:, :d] * below, Reflections(vectors, scales)


def _reflector(
    own: Float[Array, "N"], far: Float[Array, "N"]
) -> tuple[Float[Array, "N"], Float[Array, "N"], Float[Array, "N"]]:
    """v₁, τ = 2 / |v|² and |x| of v = x + |x| e, where x₁ is ``own`` and ``far`` is |x|² - x₁².

    Where x₁ is negative, v₁ is no difference of equal numbers.
    """
    square = own * own + far
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    below = own < 0
    first = jnp.where(below, far / jnp.where(below, length - own, 1.0), own + length)
    size = first * first + far
    return first, jnp.where(size > 0, 2.0 / jnp.where(size > 0, size, 1.0), 0.0), length
