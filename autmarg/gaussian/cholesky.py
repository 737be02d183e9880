"""Cholesky factors with their inverses, through matrix products, that survive the loss of digits.

A matrix is split in two, down to small leaves for LAPACK:

    G = [A Bᵀ; B D],   L₁L₁ᵀ = A,   L₂₁ = B L₁⁻ᵀ,   L₂L₂ᵀ = D - L₂₁L₂₁ᵀ,
    L⁻¹ = [L₁⁻¹ 0; -L₂⁻¹L₂₁L₁⁻¹ L₂⁻¹],

so that nearly all the work is in products, and the inverse, which the gradient of log|G| needs,
comes along. (Leaves are too small for LAPACK's threads: where cores are busy, one that waits for
another takes 8 ms for a factorisation of 0.1.)

With G = I + Lᵀ Aᵀ W A L every pivot of an elimination, in any order, is at least one. Where scales
differ by more than a float holds (G_ii ≥ 1/ε), a pivot is a difference of numbers whose rounding is
larger than itself and may come out negative. It is then known only to lie between one and

    floor_i = max(1, ε G_ii),    G before any elimination,

and the floor is taken, which moves log p by no more than its own rounding there and keeps values
and gradients finite. A pivot above its floor is not touched.

A column with a flat prior has no 1 on its diagonal: its pivots are what the data say. Its floor is
not positive, and a pivot that is not above its size is not resolved: the factor is NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_LEAF, _SOLVE = 96, 32  # columns; LAPACK takes threads from 128 to factorise, from some 40 to solve
_GROWTH, _LIMIT = 8.0, 1e8  # of what is added to the diagonal, in floors


@jax.custom_jvp
def factorise(matrix: Any, floor: Any) -> tuple[Any, Any]:
    """Lower factor L [R, R] of a symmetric matrix that is positive definite but for rounding; L⁻¹.

    Where LAPACK finds a pivot that is not positive, of ``matrix + k diag(floor)`` with the least
    k = 1, 8, 64, … that serves.
    """
    if matrix.shape[0] == 0:
        return matrix, matrix
    finite = jnp.isfinite(jnp.diagonal(matrix)).all()

    def failed(state: tuple[Any, Any, Any]) -> Any:
        lower, _, k = state
        first = k == 0
        return first | (jnp.isnan(jnp.diagonal(lower)).any() & finite & (k < _LIMIT))

    def attempt(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        _, _, k = state
        added = jnp.where(k >= 1, k, 0) * jnp.maximum(floor, 0)
        return *_split(matrix + jnp.diag(added)), jnp.where(k == 0, 1 / _GROWTH, k) * _GROWTH

    start = jnp.zeros((), matrix.dtype)
    lower, inverse, _ = jax.lax.while_loop(failed, attempt, (matrix, matrix, start))
    unresolved = (floor <= 0) & (jnp.diagonal(lower) ** 2 <= -floor)
    return jnp.where(unresolved.any(), jnp.nan, lower), inverse


def cholesky(matrix: Any, floor: Any) -> Any:
    """The lower factor alone."""
    return factorise(matrix, floor)[0]


def _split(matrix: Any) -> tuple[Any, Any]:
    """L and L⁻¹, by halves."""
    n = matrix.shape[0]
    if n <= _LEAF:
        lower = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
        return lower, _inverse(lower)
    half = n // 2
    first, first_inverse = _split(matrix[:half, :half])
    below = _dot(matrix[half:, :half], first_inverse.T)
    second, second_inverse = _split(matrix[half:, half:] - _dot(below, below.T))
    corner = -_dot(second_inverse, _dot(below, first_inverse))
    return _lower(first, below, second), _lower(first_inverse, corner, second_inverse)


def _inverse(lower: Any) -> Any:
    """L⁻¹: of equal blocks on the diagonal in one call, then of pairs of them, and so on."""
    n, count = lower.shape[0], 1
    while -(-n // count) >= _SOLVE:
        count *= 2
    size = -(-n // count)
    rest = jnp.eye(count * size - n, dtype=lower.dtype)
    lower = _lower(lower, jnp.zeros((len(rest), n), lower.dtype), rest)
    eye = jnp.broadcast_to(jnp.eye(size, dtype=lower.dtype), (count, size, size))
    blocks = _blocks(lower, size, 0, size)
    inverse = jax.lax.linalg.triangular_solve(blocks, eye, left_side=True, lower=True)
    while size < len(lower):
        first, second = inverse[0::2], inverse[1::2]
        below = _blocks(lower, size, size, 2 * size)
        inverse = _lower(first, -_dot(second, _dot(below, first)), second)
        size *= 2
    return inverse[0, :n, :n]


def _blocks(matrix: Any, size: int, down: int, step: int) -> Any:
    """Blocks [*, size, size] that lie ``down`` rows below every ``step``-th of the diagonal."""
    corners = range(0, len(matrix), step)
    return jnp.stack([matrix[c + down : c + down + size, c : c + size] for c in corners])


def _lower(first: Any, below: Any, second: Any) -> Any:
    """[first 0; below second], of matrices or stacks of them."""
    zero = jnp.zeros((*first.shape[:-1], second.shape[-1]), first.dtype)
    return jnp.block([[first, zero], [below, second]])


@factorise.defjvp
def _factorise_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """L̇ = L Φ(L⁻¹ Ġ L⁻ᵀ), Φ the lower triangle with half the diagonal (Murray 2016)."""
    (matrix, floor), (change, _) = primals, tangents
    lower, inverse = factorise(matrix, floor)
    inner = jnp.tril(_dot(_dot(inverse, change), inverse.T))
    inner = inner - jnp.diag(jnp.diagonal(inner) / 2)
    return (lower, inverse), (_dot(lower, inner), -_dot(inner, inverse))


@jax.custom_jvp
def log_det(matrix: Any, lower: Any, inverse: Any) -> Any:
    """log|G| of G = L Lᵀ; derivatives use the inverse instead of the factorisation,

        d log|G| = tr(G⁻¹ dG),

    a rule that is linear in the tangents, so that it serves forward mode, reverse mode and, being
    itself differentiable, Hessians.
    """
    return 2.0 * jnp.log(jnp.diagonal(lower)).sum()


@log_det.defjvp
def _log_det_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (matrix, lower, inverse), (change, _, _) = primals, tangents
    # Laid out anew: the products of XLA's CPU compiler take twice as long over the first axis of
    # their left factor, and a mere transposition is folded into them.
    upper = jax.lax.optimization_barrier(inverse.T)
    return log_det(matrix, lower, inverse), jnp.sum(_squared(upper) * change)


def _squared(upper: Any) -> Any:
    """UUᵀ of an upper triangular matrix, leaving out products with zeros."""
    n = upper.shape[0]
    if n <= _LEAF:
        return gram(upper)
    half = n // 2
    above, second = upper[:half, half:], upper[half:, half:]
    corner = _dot(second, above.T)
    first = _squared(upper[:half, :half]) + gram(above)
    return jnp.block([[first, corner.T], [corner, _squared(second)]])


@jax.custom_jvp
def gram(w: Any) -> Any:
    """WWᵀ [R, R] of W [R, K]."""
    return _dot(w, w.T)


@gram.defjvp
def _gram_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """ẆWᵀ and its transpose: in reverse mode one product with Ḡ + Ḡᵀ, instead of two."""
    (w,), (change,) = primals, tangents
    half = _dot(change, w.T)
    return gram(w), half + half.T


def _dot(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision="highest")
