"""Cholesky factors with their inverses, through matrix products.

A matrix is split in two, down to small leaves for LAPACK:

    G = [A Bᵀ; B D],   L₁L₁ᵀ = A,   L₂₁ = B L₁⁻ᵀ,   L₂L₂ᵀ = D - L₂₁L₂₁ᵀ,
    L⁻¹ = [L₁⁻¹ 0; -L₂⁻¹L₂₁L₁⁻¹ L₂⁻¹],

so that nearly all the work is in products, and the inverse, which the gradient of log|G| needs,
comes along. (Leaves are too small for LAPACK's threads: where cores are busy, one that waits for
another takes 8 ms for a factorisation of 0.1.)

With G = I + Lᵀ Aᵀ W A L and no flat priors, no pivot of an elimination is below one, in any order.
Where scales differ by more than a float holds, a pivot is a difference of numbers whose rounding is
larger than itself. One that comes out negative makes the factor NaN. How far the others can be
trusted, :func:`autmarg.gaussian.quadratic.lost` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Float

_LEAF, _SOLVE = 96, 32  # columns; LAPACK takes threads from 128 to factorise, from some 40 to solve


@jax.custom_jvp
def factorise(matrix: Float[Array, "R R"]) -> tuple[Float[Array, "R R"], Float[Array, "R R"]]:
    """Lower factor L [R, R] of a symmetric positive definite matrix, and L⁻¹; else NaN."""
    if matrix.shape[0] == 0:
        return matrix, matrix
    return _split(matrix)


def cholesky(matrix: Float[Array, "R R"]) -> Float[Array, "R R"]:
    """The lower factor alone."""
    return factorise(matrix)[0]


def _split(matrix: Float[Array, "R R"]) -> tuple[Float[Array, "R R"], Float[Array, "R R"]]:
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


def _inverse(lower: Float[Array, "R R"]) -> Float[Array, "R R"]:
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


def _blocks(
    matrix: Float[Array, "R R"], size: int, down: int, step: int
) -> Float[Array, "blocks size size"]:
    """Blocks [*, size, size] that lie ``down`` rows below every ``step``-th of the diagonal."""
    corners = range(0, len(matrix), step)
    return jnp.stack([matrix[c + down : c + down + size, c : c + size] for c in corners])


def _lower(
    first: Float[Array, "*n a a"], below: Float[Array, "*n b a"], second: Float[Array, "*n b b"]
) -> Float[Array, "*n a+b a+b"]:
    """[first 0; below second], of matrices or stacks of them."""
    zero = jnp.zeros((*first.shape[:-1], second.shape[-1]), first.dtype)
    return jnp.block([[first, zero], [below, second]])


@factorise.defjvp
def _factorise_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """L̇ = L Φ(L⁻¹ Ġ L⁻ᵀ), Φ the lower triangle with half the diagonal (Murray 2016)."""
    (matrix,), (change,) = primals, tangents
    lower, inverse = factorise(matrix)
    inner = jnp.tril(_dot(_dot(inverse, change), inverse.T))
    inner = inner - jnp.diag(jnp.diagonal(inner) / 2)
    return (lower, inverse), (_dot(lower, inner), -_dot(inner, inverse))


@jax.custom_jvp
def solve(
    lower: Float[Array, "R R"], inverse: Float[Array, "R R"], h: Float[Array, "R"]
) -> Float[Array, "R"]:
    """G⁻¹h of G = L Lᵀ by substitution: a value alone needs no inverse, which takes four times as
    long. Derivatives, which need it anyway, multiply by L⁻¹.
    """
    for transposed in (False, True):
        h = jax.lax.linalg.triangular_solve(
            lower, h[:, None], left_side=True, lower=True, transpose_a=transposed
        )[:, 0]
    return h


@solve.defjvp
def _solve_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    def product(inverse: Array, h: Array) -> Array:
        return jnp.dot(jnp.dot(inverse, h, precision="highest"), inverse, precision="highest")

    return jax.jvp(product, primals[1:], tangents[1:])


@jax.custom_jvp
def log_det(
    matrix: Float[Array, "R R"], lower: Float[Array, "R R"], inverse: Float[Array, "R R"]
) -> Float[Array, ""]:
    """log|G| of G = L Lᵀ; derivatives use the inverse instead of the factorisation,

        d log|G| = tr(G⁻¹ dG),

    a rule that is linear in the tangents, so that it serves forward mode, reverse mode and, being
    itself differentiable, Hessians.
    """
    return 2.0 * jnp.log(jnp.diagonal(lower)).sum()


@log_det.defjvp
def _log_det_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (matrix, lower, inverse), (change, _, _) = primals, tangents
    # Laid out anew: the products of XLA's CPU compiler take twice as long over the first axis of
    # their left factor, and a mere transposition is folded into them.
    upper = jax.lax.optimization_barrier(inverse.T)
    return log_det(matrix, lower, inverse), jnp.sum(_squared(upper) * change)


def _squared(upper: Float[Array, "R R"]) -> Float[Array, "R R"]:
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
def gram(w: Float[Array, "R K"]) -> Float[Array, "R R"]:
    """WWᵀ [R, R] of W [R, K]."""
    return _dot(w, w.T)


@gram.defjvp
def _gram_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """ẆWᵀ and its transpose: in reverse mode one product with Ḡ + Ḡᵀ, instead of two."""
    (w,), (change,) = primals, tangents
    half = _dot(change, w.T)
    return gram(w), half + half.T


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")
