"""Cross-products of rows, computed once.

Every entry of the quadratic form Σ_i ω[w_i] r_i² over columns (c, c') is a sum over rows of
known · known' · ω[p] ω[p'] ω[w]. Rows that share (c, c', p, p', w) are added up here, at plan time
and in float64, so that a step costs as many products as there are distinct keys: the number of
meetings of levels where the noise has few strata, at most N·K² where it varies row by row.

Rows come in chunks, so that memory is that of the sums and of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autmarg.gaussian.affine import AffineForm, Rows

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_CHUNK = 1 << 18  # coefficients of a chunk of rows
_STRATA = 64  # of noise, up to which a chunk's products are matrix products, one for each
_INDEX = np.int32  # of columns and slots

_Keys = tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class CrossProducts:
    """Keys (first ≤ second column, their slots, the precision's slot) and their sums.

    ``count`` [n_precisions] rows at each precision slot ``strata``, for the normalising constant.
    """

    first: Int[np.ndarray, "keys"]
    second: Int[np.ndarray, "keys"]
    first_slot: Int[np.ndarray, "keys"]
    second_slot: Int[np.ndarray, "keys"]
    weight: Int[np.ndarray, "keys"]
    total: Float[np.ndarray, "keys"]
    strata: Int[np.ndarray, "n_precisions"]
    count: Float[np.ndarray, "n_precisions"]
    n: int


def cross_products(form: AffineForm, centre: Callable[[Rows], Rows] | None = None) -> CrossProducts:
    """The sums of products of a form's rows whose noise is independent.

    ``centre`` rewrites a chunk of rows before it is added up.
    """
    assert max(form.columns, form.slots) < np.iinfo(_INDEX).max
    sums = _Totals()
    for rows in form.independent:
        width = sum(term.width for term in rows.terms)
        # At least as many rows as make a chunk's products worth their keys.
        for chunk in rows.chunks(max(_CHUNK // max(width, 1), 4 * width)):
            _add_products(sums, chunk if centre is None else centre(chunk))
    (first, second, p, q, weight), totals = sums.merged()
    counted = [rows for rows in form.independent if rows.counted]
    strata = [_strata(rows) for rows in counted]
    slots = np.concatenate([np.zeros(0, np.int64), *(s for s, _ in strata)])
    counts = np.concatenate([np.zeros(0), *(c for _, c in strata)])
    n = sum(rows.n for rows in counted)
    return CrossProducts(first, second, p, q, weight, totals, slots, counts, n)


def _strata(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    assert rows.precision is not None
    if len(rows.precision) == 1:
        return rows.precision, np.full(1, float(rows.n))
    slots, counts = np.unique(rows.precision, return_counts=True)
    return slots, counts.astype(np.float64)


class _Totals:
    """Totals by key; parts are merged whenever more than what is merged already have come in."""

    def __init__(self) -> None:
        self.keys: list[_Keys] = [tuple(np.zeros(0, _INDEX) for _ in range(5))]
        self.totals: list[np.ndarray] = [np.zeros(0)]
        self.waiting = 0

    def add(self, first: _Keys, second: _Keys, weight: np.ndarray, total: np.ndarray) -> None:
        """Add totals of products; columns and slots of both sides broadcast with ``total``."""
        used = np.nonzero(total)

        def key(label: np.ndarray) -> np.ndarray:
            return np.broadcast_to(label, total.shape)[used].astype(_INDEX)

        c, p, d, q = (key(label) for label in (*first, *second))
        swap = (c > d) | ((c == d) & (p > q))  # the smaller column comes first
        c, d = np.where(swap, d, c), np.where(swap, c, d)
        p, q = np.where(swap, q, p), np.where(swap, p, q)
        self.keys.append((c, d, p, q, key(weight)))
        self.totals.append(total[used])
        self.waiting += len(c)
        if self.waiting > max(2 * _CHUNK, len(self.totals[0])):
            self.merged()

    def merged(self) -> tuple[_Keys, np.ndarray]:
        """All keys, sorted by column pair, and their totals."""
        columns = [np.concatenate([k[i] for k in self.keys]) for i in range(5)]
        values = np.concatenate(self.totals)
        self.keys, self.totals = [], []
        keys, totals = _grouped(columns, values[:, None])
        self.keys, self.totals, self.waiting = [keys], [totals[:, 0]], 0
        return keys, totals[:, 0]


class _Summands(NamedTuple):
    """Summands known · ω[slot] · v[column] of n rows.

    One has ``column`` and ``slot`` [n|1] and ``known`` [n]; K of which all rows read the same
    columns and slots have them [K], and ``known`` [n, K].
    """

    column: np.ndarray
    slot: np.ndarray
    known: np.ndarray

    @property
    def place(self) -> _Keys:
        return self.column, self.slot


def _add_products(sums: _Totals, rows: Rows) -> None:
    """Add the products of all pairs of summands of some rows.

    r_i² has each product of two different summands twice.
    """
    assert rows.precision is not None
    shared, single = _summands(rows)
    strata = np.unique(rows.precision)
    if len(strata) <= _STRATA:
        _add_squares(sums, shared, rows.precision, strata)
    else:
        for k, (column, slot) in enumerate(zip(*shared.place, strict=True)):
            own = _Summands(column[None], slot[None], shared.known[:, k])
            rest = _Summands(*(a[..., k:] for a in shared))
            factor = np.where(np.arange(len(rest.column)) == 0, 1.0, 2.0)
            _add_by_row(sums, own, rest._replace(known=rest.known * factor), rows.precision)
    twice = shared._replace(known=2.0 * shared.known)
    for i, left in enumerate(single):
        _add_by_row(sums, left, twice, rows.precision)
        for right in single[: i + 1]:
            product = left.known * right.known * (1.0 if left is right else 2.0)
            labels = (*left.place, *right.place, rows.precision)
            (c, p, d, q, weight), total = _grouped(labels, product[:, None])
            sums.add((c, p), (d, q), weight, total[:, 0])


def _summands(rows: Rows) -> tuple[_Summands, list[_Summands]]:
    """Summands of which all rows read one column and slot, as a matrix; and one by one the rest."""
    none = np.zeros(0, np.int64)
    shared, single = [_Summands(none, none, np.zeros((rows.n, 0)))], []
    for term in rows.terms:
        known = np.broadcast_to(term.known, (rows.n, term.width))
        column, slot = (np.broadcast_to(a, (len(a), term.width)) for a in (term.column, term.slot))
        if len(column) == len(slot) == 1:
            shared.append(_Summands(column[0], slot[0], known))
        else:
            each = range(term.width)
            single += (_Summands(column[:, k], slot[:, k], known[:, k]) for k in each)
    together = (np.concatenate(parts, axis=-1) for parts in zip(*shared, strict=True))
    return _Summands(*together), single


def _add_squares(sums: _Totals, shared: _Summands, weight: np.ndarray, strata: np.ndarray) -> None:
    """Products of shared summands: a matrix product for each noise stratum."""
    i, j = np.triu_indices(len(shared.column))
    first, second = ((shared.column[k], shared.slot[k]) for k in (i, j))
    for stratum in strata:
        known = shared.known if len(strata) == 1 else shared.known[weight == stratum]
        product = (known.T @ known)[i, j]
        sums.add(first, second, stratum, np.where(i == j, product, 2.0 * product))


def _add_by_row(sums: _Totals, one: _Summands, shared: _Summands, weight: np.ndarray) -> None:
    """Products of one summand with shared ones."""
    labels = (*one.place, weight)
    (c, p, w), total = _grouped(labels, one.known[:, None] * shared.known)
    sums.add((c[:, None], p[:, None]), shared.place, w[:, None], total)


def _grouped(labels: Sequence[np.ndarray], values: np.ndarray) -> tuple[_Keys, np.ndarray]:
    """Sums [G, V] of ``values`` [n, V] over rows of equal labels, each [n] or [1], in their order.

    Labels come back [G].
    """
    n = len(values)
    if not n:
        return tuple(label[:0] for label in labels), values
    low = [int(label.min()) for label in labels]
    sizes = [int(label.max()) + 1 - least for label, least in zip(labels, low, strict=True)]
    possible = float(np.prod(np.array(sizes, np.float64)))
    if possible >= 2**62:
        return _sorted_by_labels(labels, values)
    code = np.zeros(n, np.int64)
    for label, least, size in zip(labels, low, sizes, strict=True):
        if size > 1:
            code = code * size + (label - least)
    if possible > n:
        order = np.argsort(code, kind="stable")
        code = code[order]
        return _added_up(labels, values, order, code[1:] != code[:-1])
    present = np.flatnonzero(np.bincount(code))
    sums = [np.bincount(code, weights=column)[present] for column in values.T]
    found = np.unravel_index(present, sizes)
    keys = tuple(label + least for label, least in zip(found, low, strict=True))
    return keys, np.stack(sums, axis=1) if sums else values[: len(present)]


def _sorted_by_labels(labels: Sequence[np.ndarray], values: np.ndarray) -> tuple[_Keys, np.ndarray]:
    """The same where labels have too many combinations for one number each."""
    whole = [np.broadcast_to(label, len(values)) for label in labels]
    order = np.lexsort(whole[::-1])
    new = np.any([label[order[1:]] != label[order[:-1]] for label in whole], axis=0)
    return _added_up(labels, values, order, new)


def _added_up(
    labels: Sequence[np.ndarray], values: np.ndarray, order: np.ndarray, new: np.ndarray
) -> tuple[_Keys, np.ndarray]:
    """Sums over runs of rows in an order; ``new`` [n - 1] says where another run starts."""
    starts = np.flatnonzero(np.concatenate([[True], new]))
    picked = order[starts]
    keys = tuple(np.broadcast_to(label, len(values))[picked] for label in labels)
    return keys, np.add.reduceat(values[order], starts, axis=0)
