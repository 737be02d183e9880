"""Cholesky factors and triangular solves of many small matrices, component-major.

A batch of d × d matrices is an array [d, d, B]: every scalar operation of the factorisation is one
elementwise operation over the batch, which XLA fuses, and no LAPACK call is made a block. Above
``UNROLL`` the loop over components would be too long a program and the batched LAPACK call is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.cholesky import cholesky as lapack_cholesky

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from autmarg.gaussian.rowwise import Omega

UNROLL = 6
_APART, _LONG = 12, 1000  # right-hand sides of few components, of long batches, go one by one
_EXCHANGE = 4  # rows up to which elimination with exchanges is written out


def cholesky(a: Float[Array, "d d B"]) -> Float[Array, "d d B"]:
    """Lower factors [d, d, B] of symmetric positive definite matrices [d, d, B].

    NaN where rounding has made a pivot negative.
    """
    d = a.shape[0]
    if d > UNROLL:
        return jax.vmap(lapack_cholesky, in_axes=-1, out_axes=-1)(a)
    entries = [parts(row) for row in parts(a)]
    zero = jnp.zeros_like(entries[0][0])
    rows: list[list[Array]] = []
    for i in range(d):
        row: list[Array] = []
        for j in range(i + 1):
            before = row if j == i else rows[j]
            s = entries[i][j] - sum((x * y for x, y in zip(row, before, strict=False)), start=zero)
            if j == i:
                row.append(jnp.sqrt(s))
            else:
                row.append(s / rows[j][j])
        rows.append(row)
    return jnp.stack([jnp.stack([*row, *[zero] * (d - len(row))]) for row in rows])


def parts(x: Float[Array, "n *rest"]) -> list[Float[Array, "*rest"]]:
    """x[0], x[1], …, whose transpose puts them side by side; slices would be padded and added."""
    return [one.reshape(x.shape[1:]) for one in jax.lax.split(x, (1,) * len(x))]


def solve_lower(factor: Float[Array, "d d E"], b: Float[Array, "d *r E"]) -> Float[Array, "d *r E"]:
    """L⁻¹ b for factors [d, d, E] and right-hand sides [d, ..., E]."""
    d = factor.shape[0]
    if d > UNROLL:
        return _lapack_solve(factor, b, transpose=False)
    rows = [parts(row) for row in parts(factor)]

    def solve(b: Array) -> Array:
        out: list[Array] = []
        for row, s in zip(rows, parts(b), strict=True):
            for k, x in enumerate(out):
                s = s - row[k] * x
            out.append(s / row[len(out)])
        return jnp.stack(out)

    return _apart(solve, b)


def solve_upper(factor: Float[Array, "d d E"], b: Float[Array, "d *r E"]) -> Float[Array, "d *r E"]:
    """L⁻ᵀ b for factors [d, d, E] and right-hand sides [d, ..., E]."""
    d = factor.shape[0]
    if d > UNROLL:
        return _lapack_solve(factor, b, transpose=True)
    rows = [parts(row) for row in parts(factor)]

    def solve(b: Array) -> Array:
        right, out = parts(b), dict[int, Array]()
        for i in reversed(range(d)):
            s = right[i]
            for k in range(i + 1, d):
                s = s - rows[k][i] * out[k]
            out[i] = s / rows[i][i]
        return jnp.stack([out[i] for i in range(d)])

    return _apart(solve, b)


def _apart(solve: Callable[[Array], Array], b: Float[Array, "d *r E"]) -> Float[Array, "d *r E"]:
    """Few right-hand sides [d, r, E] of long batches one by one, so that nothing is broadcast.

    The derivative of a broadcast is a sum over the leading axis, which XLA does slowly.
    """
    if b.ndim != 3 or b.shape[0] * b.shape[1] > _APART or b.shape[2] < _LONG:
        return solve(b)
    return jnp.stack([solve(one) for one in parts(jnp.swapaxes(b, 0, 1))], axis=1)


def multiply_transposed(
    factor: Float[Array, "d d #E"], b: Float[Array, "d *r E"]
) -> Float[Array, "d *r E"]:
    """Lᵀ b for matrices [d, d, E|1] and right-hand sides [d, ..., E]."""
    d = factor.shape[0]
    if d > UNROLL:
        return jnp.einsum("ka...e,kbe->abe", factor, b, precision="highest")
    shape = (d, d, *(1,) * (b.ndim - 2), factor.shape[-1])
    return (factor.reshape(shape) * b[:, None]).sum(axis=0)  # one fused loop


def product(a: Float[Array, "d e B"], b: Float[Array, "e r B"]) -> Float[Array, "d r B"]:
    """a b for matrices [d, e, B] and [e, r, B]."""
    if a.shape[1] > UNROLL:
        return jnp.einsum("ijn,jkn->ikn", a, b, precision="highest")
    return total(a[:, k, None] * b[None, k] for k in range(a.shape[1]))


def eye_plus(left: Float[Array, "d e B"], right: Float[Array, "e d B"]) -> Float[Array, "d d B"]:
    """I + left right, [d, d, B]."""
    return jnp.eye(len(left), dtype=left.dtype)[..., None] + product(left, right)


def congruence(
    a: Float[Array, "d e B"], middle: Float[Array, "e e B"] | None
) -> Float[Array, "d d B"]:
    """a middle aᵀ (the identity where ``middle`` is None), [d, d, B]."""
    return product(a if middle is None else product(a, middle), jnp.swapaxes(a, 0, 1))


def symmetric(a: Float[Array, "d d B"]) -> Float[Array, "d d B"]:
    """(a + aᵀ) / 2 of [d, d, B]."""
    return (a + jnp.swapaxes(a, 0, 1)) / 2


def solve(
    matrix: Float[Array, "d d B"], b: Float[Array, "d r B"]
) -> tuple[Float[Array, "d r B"], Float[Array, "B"]]:
    """matrix⁻¹ b [d, r, B] and log|det matrix| [B], by elimination with row exchanges."""
    d = len(matrix)
    if d > _EXCHANGE:
        batch = jnp.moveaxis(matrix, -1, 0)
        solved = jnp.linalg.solve(batch, jnp.moveaxis(b, -1, 0))
        return jnp.moveaxis(solved, 0, -1), jnp.linalg.slogdet(batch)[1]
    rows = [jnp.concatenate([matrix[i], b[i]]) for i in range(d)]
    for k in range(d):
        for i in range(k + 1, d):  # the larger of two goes first
            swap = jnp.abs(rows[i][k]) > jnp.abs(rows[k][k])
            rows[k], rows[i] = (
                jnp.where(swap, rows[i], rows[k]),
                jnp.where(swap, rows[k], rows[i]),
            )
        for i in range(k + 1, d):
            rows[i] = rows[i] - rows[i][k] / rows[k][k] * rows[k]
    out: dict[int, Array] = {}
    for i in reversed(range(d)):
        rest = rows[i][d:]
        for k in range(i + 1, d):
            rest = rest - rows[i][k] * out[k]
        out[i] = rest / rows[i][i]
    solved = jnp.stack([out[i] for i in range(d)])
    return solved, total(jnp.log(jnp.abs(rows[k][k])) for k in range(d))


def log_diagonal(factor: Float[Array, "d d B"]) -> Float[Array, ""]:
    """Σ log of all diagonals."""
    d = factor.shape[0]
    return total(jnp.log(factor[i, i]).sum() for i in range(d))


def total(summands: Iterable[Float[Array, "*shape"]]) -> Float[Array, "*shape"]:
    """The sum of one array or more."""
    return cast("Array", sum(summands))


def take(x: Float[Array, "size"] | Omega, index: Int[np.ndarray, "n"]) -> Float[Array, "#n"]:
    """x[index] for a known index [n], as a slice or a broadcast scalar where it is one."""
    if len(index) and (index == index[0]).all():
        return x[index[0]]
    if len(index) and (np.diff(index) == 1).all():
        return x[index[0] : index[-1] + 1]
    return x[index]


def _lapack_solve(
    factor: Float[Array, "d d E"], b: Float[Array, "d *r E"], transpose: bool
) -> Float[Array, "d *r E"]:
    matrices = jnp.moveaxis(factor, -1, 0)
    flat = jnp.moveaxis(b, -1, 0)
    columns = flat.reshape(*flat.shape[:2], math.prod(flat.shape[2:]))  # also of no blocks
    solved = jax.scipy.linalg.solve_triangular(matrices, columns, lower=True, trans=int(transpose))
    return jnp.moveaxis(solved.reshape(flat.shape), 0, -1)
