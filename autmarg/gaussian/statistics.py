"""Cross-products of rows, computed once.

Every entry of the quadratic form Σ_i ω[w_i] r_i² over columns (c, c') is a sum over rows of
known · known' · ω[p] ω[p'] ω[w]. Rows that share (c, c', p, p', w) are added up here, at plan time
and in float64, so that a step costs as many products as there are distinct keys: the number of
meetings of levels where the noise has few strata, at most N·K² where it varies row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autmarg.gaussian.affine import AffineForm, Rows, RowTerm

_CHUNK = 4_000_000  # row pairs expanded at a time


@dataclass(frozen=True, eq=False)
class Statistics:
    """Keys (first ≤ second column, their slots, the precision's slot) and their sums.

    ``count`` [n_precisions] rows at each precision slot ``strata``, for the normalising constant.
    """

    first: np.ndarray
    second: np.ndarray
    first_slot: np.ndarray
    second_slot: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    strata: np.ndarray
    count: np.ndarray
    n: int


_Keys = tuple[np.ndarray, ...]


def cross_products(form: AffineForm) -> Statistics:
    """Add up the rows of a form whose noise is independent; ``n`` counts all."""
    parts = [_of_rows(rows) for rows in form.independent]
    keys, totals = _merge([p[0] for p in parts], [p[1] for p in parts])
    counted = [rows for rows in form.rows if rows.counted]
    strata = [_strata(rows) for rows in counted if rows.block == 1]
    slots = np.concatenate([s for s, _ in strata]) if strata else np.zeros(0, np.int64)
    counts = np.concatenate([c for _, c in strata]) if strata else np.zeros(0)
    first, second, first_slot, second_slot, weight = keys
    return Statistics(
        first,
        second,
        first_slot,
        second_slot,
        weight,
        totals,
        slots,
        counts,
        sum(rows.n for rows in counted),
    )


def _strata(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    assert rows.precision is not None
    slots, counts = np.unique(np.broadcast_to(rows.precision, rows.n), return_counts=True)
    return slots, counts.astype(np.float64)


def _of_rows(rows: Rows) -> tuple[_Keys, np.ndarray]:
    assert rows.precision is not None
    collected: list[tuple[_Keys, np.ndarray]] = []
    for i, left in enumerate(rows.terms if rows.n else ()):
        for j, right in enumerate(rows.terms[: i + 1]):
            if _is_dense(left) and _is_dense(right):
                collected.append(_dense_pair(left, right, rows, same=i == j))
                continue
            step = max(1, _CHUNK // (left.width * right.width))
            for start in range(0, rows.n, step):
                chunk = np.arange(start, min(start + step, rows.n))
                collected.append(_pair(left, right, rows, chunk, same=i == j))
    return _merge([c[0] for c in collected], [c[1] for c in collected])


def _is_dense(term: RowTerm) -> bool:
    """Whether all rows read the same columns with the same opaque factors."""
    return term.column.shape[0] == 1 and term.slot.shape[0] == 1 and term.width > 1


def _at(a: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return a if a.shape[0] == 1 else a[rows]


def _pair(
    left: RowTerm, right: RowTerm, rows: Rows, chunk: np.ndarray, same: bool
) -> tuple[_Keys, np.ndarray]:
    """Keys and sums of the products of two terms over some rows."""
    assert rows.precision is not None
    shape = (len(chunk), left.width, right.width)
    a = [
        np.broadcast_to(_at(x, chunk), shape[:2])[:, :, None]
        for x in (left.column, left.slot, left.known)
    ]
    b = [
        np.broadcast_to(_at(x, chunk), (shape[0], shape[2]))[:, None, :]
        for x in (right.column, right.slot, right.known)
    ]
    weight = np.broadcast_to(_at(rows.precision, chunk), shape[:1])[:, None, None]
    product = np.broadcast_to(a[2] * b[2], shape).reshape(-1)
    ids = [np.broadcast_to(x, shape).reshape(-1) for x in (a[0], b[0], a[1], b[1], weight)]
    used = np.flatnonzero(product)
    if len(used) < len(product):
        product, ids = product[used], [x[used] for x in ids]
    # r_i² has each product of two different summands twice.
    return _merge([_ordered(ids)], [product if same else 2 * product])


def _dense_pair(left: RowTerm, right: RowTerm, rows: Rows, same: bool) -> tuple[_Keys, np.ndarray]:
    """The same for two dense terms: a matrix product for each noise stratum."""
    assert rows.precision is not None
    weights = np.broadcast_to(rows.precision, rows.n)
    order = np.argsort(weights, kind="stable")
    slots, starts = np.unique(weights[order], return_index=True)
    a = np.broadcast_to(left.known, (rows.n, left.width))
    b = np.broadcast_to(right.known, (rows.n, right.width))
    shape = (len(slots), left.width, right.width)
    product = np.empty(shape)
    for k, part in enumerate(np.split(order, starts[1:])):
        product[k] = a[part].T @ b[part]
    ids = [
        np.broadcast_to(x, shape).reshape(-1)
        for x in (
            left.column[0][None, :, None],
            right.column[0][None, None, :],
            left.slot[0][None, :, None],
            right.slot[0][None, None, :],
            slots[:, None, None],
        )
    ]
    flat = product.reshape(-1)
    return _merge([_ordered(ids)], [flat if same else 2 * flat])


def _ordered(ids: list[np.ndarray]) -> _Keys:
    """Swap the two sides of a key so that the smaller column comes first."""
    c, d, p, q, w = ids
    swap = (c > d) | ((c == d) & (p > q))
    return (
        np.where(swap, d, c), np.where(swap, c, d), np.where(swap, q, p), np.where(swap, p, q), w
    )  # fmt: skip


def _merge(keys: list[_Keys], totals: list[np.ndarray]) -> tuple[_Keys, np.ndarray]:
    """Add totals of equal keys; keys come out sorted by column pair."""
    if not keys:
        return tuple(np.zeros(0, np.int64) for _ in range(5)), np.zeros(0)
    columns = [np.concatenate([k[i] for k in keys]) for i in range(5)]
    values = np.concatenate(totals)
    lows = [int(c.min(initial=0)) for c in columns]
    sizes = [int(c.max(initial=0)) - low + 1 for c, low in zip(columns, lows, strict=True)]
    if float(np.prod(np.array(sizes, np.float64))) <= len(values):
        return _merge_few(columns, lows, sizes, values)
    order = _sorting(columns)
    columns = [c[order] for c in columns]
    values = values[order]
    if not len(values):
        return tuple(columns), values
    new = np.ones(len(values), bool)
    new[1:] = np.any([c[1:] != c[:-1] for c in columns], axis=0)
    starts = np.flatnonzero(new)
    return tuple(c[starts] for c in columns), np.add.reduceat(values, starts)


def _merge_few(
    columns: list[np.ndarray], lows: list[int], sizes: list[int], values: np.ndarray
) -> tuple[_Keys, np.ndarray]:
    """The same where fewer keys are possible than there are values: no sorting."""
    code = np.zeros(len(values), np.int64)
    for column, low, size in zip(columns, lows, sizes, strict=True):
        if size > 1:
            code = code * size + (column - low)
    sums = np.bincount(code, weights=values)
    present = np.flatnonzero(np.bincount(code))
    found = np.unravel_index(present, sizes)
    return tuple(f + low for f, low in zip(found, lows, strict=True)), sums[present]


def _sorting(columns: list[np.ndarray]) -> np.ndarray:
    """Lexicographic order of several integer columns, through one combined key where it fits."""
    sizes = [int(c.max(initial=0)) + 1 for c in columns]
    if float(np.prod(np.array(sizes, np.float64))) >= 2**62:
        return np.lexsort(columns[::-1])
    key = np.zeros(len(columns[0]), np.int64)
    for column, size in zip(columns, sizes, strict=True):
        key = key * size + column
    return np.argsort(key, kind="stable")
