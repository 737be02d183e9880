"""Collecting like terms of rows: what multiplies one column by one slot of ω is one coefficient.

b - mean(b + …) multiplies b by 1 - 3 · (1/3), which is zero but for rounding. Left as three
coefficients, or as one of 1e-16, it would be a feature that data seem to determine: a least-squares
fit of it is 1e15, and all digits are lost in taking it out again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autmarg.gaussian.affine import RowTerm


def collected(terms: Sequence[RowTerm]) -> list[RowTerm]:
    """The terms with like ones added up, and coefficients that are nothing but rounding zero.

    Terms that read other columns or slots in each row are alike where all their rows are.
    """
    terms = [RowTerm(_once(t.column), t.known, _once(t.slot)) for t in terms]
    same = [term for term in terms if len(term.column) == len(term.slot) == 1]
    other = [term for term in terms if len(term.column) > 1 or len(term.slot) > 1]
    return _of_all_rows(same) + _row_by_row(other)


def _once(label: np.ndarray) -> np.ndarray:
    """Columns or slots [n|1, K], [1, K] where all rows have the same."""
    return label[:1] if (label == label[:1]).all() else label


def _of_all_rows(terms: list[RowTerm]) -> list[RowTerm]:
    """Of terms that read the same columns and slots in all rows."""
    full = [term.full(len(term.known)) for term in terms]
    if not full or any(len(term.known) == 0 for term in terms):  # no terms, or no rows
        return terms
    places = np.concatenate([np.stack([c[0], p[0]], axis=1) for c, _, p in full])
    keys, first, which, count = np.unique(
        places, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if len(keys) == len(places):
        return terms
    which = which.reshape(-1)
    summands = [known[:, k] for _, known, _ in full for k in range(known.shape[1])]
    sums = [summands[start] for start in first]
    for key in np.flatnonzero(count > 1):
        sums[key] = _sum([summands[k] for k in np.flatnonzero(which == key)])
    out = []
    for length in sorted({len(known) for known in sums}):  # one for all rows, or one a row
        some = [k for k, known in enumerate(sums) if len(known) == length]
        column, slot = keys[some].T[:, None]
        out.append(RowTerm(column, np.stack([sums[k] for k in some], axis=1), slot))
    return out


def _row_by_row(terms: list[RowTerm]) -> list[RowTerm]:
    """Of terms that read other columns or slots in each row: those alike go to the first one."""
    found: dict[tuple[bytes, bytes], list[tuple[int, int]]] = {}
    for t, term in enumerate(terms):
        for k in range(term.width):
            found.setdefault(_reads(term, k), []).append((t, k))
    sums = {}
    for places in found.values():
        known = [terms[t].known[:, k % terms[t].known.shape[1]] for t, k in places]
        sums[places[0]] = _sum(known) if len(known) > 1 else known[0]
    if len(sums) == sum(term.width for term in terms):
        return terms
    out = []
    for t, term in enumerate(terms):
        kept = [k for k in range(term.width) if (t, k) in sums]
        if kept:
            column, slot = (_some(each, kept) for each in (term.column, term.slot))
            known = np.stack(np.broadcast_arrays(*(sums[t, k] for k in kept)), axis=1)
            out.append(RowTerm(column, known, slot))
    return out


def _reads(term: RowTerm, k: int) -> tuple[bytes, bytes]:
    """Which columns and slots the k-th of a term reads in its rows."""
    column, slot = (each[:, k % each.shape[1]] for each in (term.column, term.slot))
    return column.astype(np.int64).tobytes(), slot.astype(np.int64).tobytes()


def _some(label: np.ndarray, kept: list[int]) -> np.ndarray:
    return label if label.shape[1] == 1 else label[:, kept]


def _sum(parts: list[np.ndarray]) -> np.ndarray:
    """Their sum, zero where it is within the rounding of the parts and of adding them up."""
    total, size = sum(parts), sum(abs(part) for part in parts)
    rounding = 4 * len(parts) * np.finfo(np.float64).eps * size
    return np.where(abs(total) <= rounding, 0.0, total)
