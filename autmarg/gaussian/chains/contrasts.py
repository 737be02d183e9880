"""Rows that read the same states of a chain: as many as states, and contrasts that read none.

Rows of equal noise may be turned by any orthogonal matrix. Those of one step, r = K_s s + (rest),
are turned by the left singular vectors of K_s: as many as its rank still read states (of n rows
with the mean s_t, √n times their average), and the others are contrasts. A filter takes the former
one by one; contrasts are rows like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autmarg.gaussian.affine import Rows, RowTerm
from autmarg.gaussian.ragged import ranks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_MOST = 256  # rows of a step that are turned
_ROUNDINGS = 8.0  # of the largest coefficient of a column, up to which one is zero


class _Entries(NamedTuple):
    """Coefficients ``known`` of ω[slot] v[column] in rows, sorted by row."""

    row: Int[np.ndarray, "E"]
    column: Int[np.ndarray, "E"]
    known: Float[np.ndarray, "E"]
    slot: Int[np.ndarray, "E"]


class _Group(NamedTuple):
    """Rows [n] of one step and noise, and their coefficients of F features (column, slot)."""

    rows: Int[np.ndarray, "n"]
    features: Int[np.ndarray, "F 2"]
    known: Float[np.ndarray, "n F"]


def contrasts(rows: Rows, states: Int[np.ndarray, "T B d"], constant: int) -> tuple[Rows, Rows]:
    """Rows that read states, and contrasts that read none; together, the rows turned.

    Args:
        rows: each of which reads some state; their noise is independent.
        states: columns of a chain's states, -1 padded.
        constant: the column of the number one.
    """
    entries, reads = _entries(rows), np.ones(rows.n, bool)
    of_states = np.isin(np.arange(constant + 1), states[states >= 0])
    kept = np.ones(len(entries.row), bool)
    new: list[_Entries] = []
    for at, group in _groups(rows, entries, states, constant):
        turned = _turned(group, of_states[group.features[:, 0]])
        if turned is None:
            continue
        known, rank = turned
        kept[at] = False
        reads[group.rows[rank:]] = False
        i, f = np.nonzero(known)
        new.append(_Entries(group.rows[i], group.features[f, 0], known[i, f], group.features[f, 1]))
    old = _Entries(*(x[kept] for x in entries))
    whole = _Entries(*map(np.concatenate, zip(old, *new, strict=True)))
    own, others = np.flatnonzero(reads), np.flatnonzero(~reads)
    return _rows(rows, whole, own, constant), _rows(rows, whole, others, constant)


def _entries(rows: Rows) -> _Entries:
    parts = []
    for term in rows.terms:
        column, known, slot = term.full(rows.n)
        row, k = np.nonzero(known)
        parts.append((row, column[row, k], known[row, k], slot[row, k]))
    return _Entries(*map(np.concatenate, zip(*parts, strict=True)))


def _groups(
    rows: Rows, entries: _Entries, states: Int[np.ndarray, "T B d"], constant: int
) -> Iterator[tuple[Int[np.ndarray, "some"], _Group]]:
    """Rows of one step, chain and noise, with the places of their entries."""
    assert rows.precision is not None
    where, used = np.full((constant + 1, 2), -1), states >= 0
    where[states[used]] = np.argwhere(used)[:, :2]
    key = np.full((rows.n, 3), -1)
    np.maximum.at(key[:, :2], entries.row, where[entries.column])
    key[:, 2] = rows.precision
    _, group, counts = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    places = np.argsort(group[entries.row], kind="stable")
    ends = np.cumsum(np.bincount(group[entries.row], minlength=len(counts)))
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    for own, at in zip(members, np.split(places, ends[:-1]), strict=True):
        if 1 < len(own) <= _MOST:
            pairs = np.stack([entries.column[at], entries.slot[at]], axis=1)
            features, which = np.unique(pairs, axis=0, return_inverse=True)
            known = np.zeros((len(own), len(features)))
            np.add.at(
                known, (np.searchsorted(own, entries.row[at]), which.reshape(-1)), entries.known[at]
            )
            yield at, _Group(own, features, known)


def _turned(
    group: _Group, of_states: Bool[np.ndarray, "F"]
) -> tuple[Float[np.ndarray, "n F"], int] | None:
    """Coefficients of the turned rows, and how many of them read states; None of too few rows."""
    read = group.known[:, of_states]
    vectors, lengths, _ = np.linalg.svd(read)
    rank = int((lengths > _ROUNDINGS * np.finfo(float).eps * len(read) * lengths[0]).sum())
    if rank == len(read):
        return None
    turned = vectors.T @ group.known
    noise = _ROUNDINGS * np.finfo(float).eps * np.linalg.norm(group.known, axis=0)
    turned[np.abs(turned) <= noise] = 0.0
    turned[rank:, of_states] = 0.0
    return turned, rank


def _rows(rows: Rows, entries: _Entries, chosen: Int[np.ndarray, "some"], constant: int) -> Rows:
    """Some rows, their entries side by side."""
    number = np.full(rows.n, -1)
    number[chosen] = np.arange(len(chosen))
    order = np.argsort(entries.row, kind="stable")
    order = order[number[entries.row[order]] >= 0]
    row = number[entries.row[order]]
    at = row, ranks(np.bincount(row, minlength=len(chosen)))
    shape = len(chosen), int(at[1].max(initial=0)) + 1
    column, known, slot = np.full(shape, constant), np.zeros(shape), np.zeros(shape, np.int64)
    for into, values in ((column, entries.column), (known, entries.known), (slot, entries.slot)):
        into[at] = values[order]
    assert rows.precision is not None
    precision = np.broadcast_to(rows.precision, rows.n)[chosen]
    return replace(rows, n=len(chosen), terms=(RowTerm(column, known, slot),), precision=precision)
