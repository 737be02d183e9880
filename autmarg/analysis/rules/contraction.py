"""Sums over axes and products with matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from autmarg.analysis.domain import Affine, Lookup, Opaque, Term, coefficients, count
from autmarg.analysis.rules.base import AffineRule, check_summands, every, first, no_product
from autmarg.compat.jaxprs import Op, Param
from autmarg.ir.tape import Equation


def fold(term: Term, groups: np.ndarray) -> Term:
    """Sum rows within groups: ``groups`` [m, r] holds the r rows that make each new row."""
    m, r = groups.shape
    width = term.width
    check_summands(groups.size * width)

    def gather(a: np.ndarray) -> np.ndarray:
        if a.shape[0] == 1:
            one = np.broadcast_to(a, (1, width))
            return np.tile(one, (1, r))
        return np.broadcast_to(a[groups], (m, r, width)).reshape(m, r * width)

    lookup = term.lookup and Lookup(term.lookup.base, gather(term.lookup.index))
    return Term(term.site, gather(term.column), gather(term.known), lookup)


def _reduce_sum(equation: Equation, values: list[Any]) -> Affine:
    (value,) = values
    axes = tuple(equation.params[Param.AXES])
    rest = tuple(i for i in range(len(value.shape)) if i not in axes)
    shape = tuple(value.shape[i] for i in rest)
    rows = np.arange(value.size).reshape(value.shape).transpose(*rest, *axes)
    groups = rows.reshape(count(shape), -1)
    return Affine(shape, value.dtype, tuple(fold(t, groups) for t in value.terms)).merged()


def _cumsum(equation: Equation, values: list[Any]) -> Affine:
    (value,) = values
    axis, reverse = equation.params[Param.AXIS], equation.params[Param.REVERSE]
    n = value.shape[axis]
    check_summands(value.size * n)
    keep = np.tri(n) if not reverse else np.tri(n).T
    rows = np.moveaxis(np.arange(value.size).reshape(value.shape), axis, -1)
    groups = np.broadcast_to(rows[..., None, :], (*rows.shape, n))
    groups = np.moveaxis(groups, -2, axis).reshape(value.size, n)
    mask = np.broadcast_to(keep, (*rows.shape[:-1], n, n))
    mask = np.moveaxis(mask, -2, axis).reshape(value.size, n)
    terms = []
    for term in value.terms:
        folded = fold(term, groups)
        terms.append(folded.times(np.repeat(mask, term.width, axis=1)))
    return Affine(value.shape, value.dtype, tuple(terms)).merged()


def _dot_general(equation: Equation, values: list[Any]) -> Affine:
    left, right = values
    return contract(left, right, equation.params[Param.DIMENSION_NUMBERS])


def contract(left: Any, right: Any, numbers: Any) -> Affine:
    """``lax.dot_general`` of two values, one of which is Affine."""
    (lc, rc), (lb, rb) = numbers
    no_product([left, right])
    lf = tuple(i for i in range(len(left.shape)) if i not in (*lc, *lb))
    rf = tuple(i for i in range(len(right.shape)) if i not in (*rc, *rb))
    batch = tuple(left.shape[i] for i in lb)
    shape = (*batch, *(left.shape[i] for i in lf), *(right.shape[i] for i in rf))
    b, c = count(batch), count(tuple(left.shape[i] for i in lc))
    lfree, rfree = (count(tuple(v.shape[i] for i in f)) for v, f in ((left, lf), (right, rf)))
    lrows = _numbers(left.shape, (*lb, *lf, *lc)).reshape(b, lfree, 1, c)
    rrows = _numbers(right.shape, (*rb, *rf, *rc)).reshape(b, 1, rfree, c)
    if isinstance(left, Affine):
        affine, arows, factor, frows = left, lrows, right, rrows
    else:
        affine, arows, factor, frows = right, rrows, left, lrows
    n = count(shape)
    terms = tuple(_contract(t, arows, factor, frows, n, c) for t in affine.terms)
    return Affine(shape, np.result_type(left.dtype, right.dtype), terms).merged()


def _numbers(shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    return np.arange(count(shape)).reshape(shape).transpose(order)


def _contract(
    term: Term, arows: np.ndarray, factor: Any, frows: np.ndarray, n: int, c: int
) -> Term:
    """One term of the product: rows ``arows`` [b,m,n',c] of the term times those of ``factor``."""
    check_summands(n * c)
    if isinstance(factor, np.ndarray):
        kept = _sparse_columns(factor, arows, frows, n, c)
        if kept is not None:
            arows, frows, c = *kept, kept[0].shape[-1]
    full = np.broadcast_shapes(arows.shape, frows.shape)

    def flat(rows: np.ndarray) -> np.ndarray:
        # one row for all where neither batch nor free axes of this operand are broadcast
        if count(rows.shape[:-1]) == 1:
            return rows.reshape(1, c)
        return np.broadcast_to(rows, full).reshape(n, c)

    folded = fold(term, flat(arows))
    f = np.repeat(flat(frows), term.width, axis=1)
    if isinstance(factor, Opaque):
        return folded.times(None, Lookup(factor.flat, factor.rows()[f]))
    return folded.times(coefficients(factor).reshape(-1)[f])


def _sparse_columns(
    factor: np.ndarray, arows: np.ndarray, frows: np.ndarray, n: int, c: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Non-zero columns of a known matrix, when each of its rows has few (a one-hot product)."""
    values = factor.reshape(-1)[frows]
    most = int((values != 0).sum(axis=-1).max(initial=0))
    if c <= 4 or 4 * most > c:
        return None
    order = np.argsort(values == 0, axis=-1, kind="stable")[..., : max(most, 1)]
    shape = np.broadcast_shapes(arows.shape[:-1], frows.shape[:-1])
    order = np.broadcast_to(order, (*shape, order.shape[-1]))
    a = np.take_along_axis(np.broadcast_to(arows, (*shape, c)), order, axis=-1)
    f = np.take_along_axis(np.broadcast_to(frows, (*shape, c)), order, axis=-1)
    return a, f


def linear_map(matrix: Any, value: Affine) -> Affine:
    """``matrix[..., i, j] @ value[..., j]``, matrices broadcast over the batch of ``value``."""
    *batch, d = value.shape
    m, b = matrix.shape[-2], count(tuple(batch))
    arows = np.arange(value.size).reshape(b, 1, 1, d)
    numbers = np.arange(count(matrix.shape)).reshape(matrix.shape)
    frows = np.broadcast_to(numbers, (*batch, m, d)).reshape(b, m, 1, d)
    terms = tuple(_contract(t, arows, matrix, frows, b * m, d) for t in value.terms)
    return Affine((*batch, m), value.dtype, terms).merged()


CONTRACTION = (
    AffineRule((Op.REDUCE_SUM,), first, _reduce_sum),
    AffineRule((Op.CUMSUM,), first, _cumsum),
    AffineRule((Op.DOT_GENERAL,), every, _dot_general, bilinear=(0, 1)),
)
