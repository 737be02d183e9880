"""Cholesky factors that survive the loss of all digits.

With G = I + Lᵀ Aᵀ W A L every pivot of an elimination, in any order, is at least one. Where scales
differ by more than a float holds (G_ii ≥ 1/ε), a pivot is a difference of numbers whose rounding is
larger than itself and may come out negative. It is then known only to lie between one and

    floor_i = max(1, ε G_ii),    G before any elimination,

and the floor is taken, which moves log p by no more than its own rounding there and keeps values
and gradients finite. A pivot above its floor is not touched.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_GROWTH, _LIMIT = 8.0, 1e8  # of what is added to the diagonal, in floors


@jax.custom_jvp
def cholesky(matrix: Any, floor: Any) -> Any:
    """Lower factor [R, R] of a symmetric matrix that is positive definite but for rounding.

    Where LAPACK finds a pivot that is not positive, of ``matrix + k diag(floor)`` with the least
    k = 1, 8, 64, … that serves.
    """

    def failed(state: tuple[Any, Any]) -> Any:
        lower, k = state
        return jnp.isnan(lower).any() & jnp.isfinite(matrix).all() & (k < _LIMIT)

    def again(state: tuple[Any, Any]) -> tuple[Any, Any]:
        k = _GROWTH * state[1]
        return jnp.linalg.cholesky(matrix + jnp.diag(k * floor)), k

    start = jnp.asarray(1 / _GROWTH, matrix.dtype)
    return jax.lax.while_loop(failed, again, (jnp.linalg.cholesky(matrix), start))[0]


@cholesky.defjvp
def _cholesky_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """L̇ = L Φ(L⁻¹ Ġ L⁻ᵀ), Φ the lower triangle with half the diagonal (Murray 2016)."""
    (matrix, floor), (change, _) = primals, tangents
    lower = cholesky(matrix, floor)
    half = jax.scipy.linalg.solve_triangular(lower, change, lower=True)
    inner = jnp.tril(jax.scipy.linalg.solve_triangular(lower, half.T, lower=True))
    inner = inner - jnp.diag(jnp.diagonal(inner) / 2)
    return lower, jnp.dot(lower, inner, precision="highest")


@jax.custom_jvp
def log_det(matrix: Any, lower: Any) -> Any:
    """log|G| of G = L Lᵀ; derivatives use the inverse instead of the factorisation,

        d log|G| = tr(G⁻¹ dG),

    a rule that is linear in the tangents, so that it serves forward mode, reverse mode and, being
    itself differentiable, Hessians.
    """
    return 2.0 * jnp.log(jnp.diagonal(lower)).sum()


@log_det.defjvp
def _log_det_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (matrix, lower), (change, _) = primals, tangents
    eye = jnp.eye(lower.shape[0], dtype=lower.dtype)
    half = jax.scipy.linalg.solve_triangular(lower, eye, lower=True)
    inverse = jnp.dot(half.T, half, precision="highest")
    return log_det(matrix, lower), jnp.sum(inverse * change)
