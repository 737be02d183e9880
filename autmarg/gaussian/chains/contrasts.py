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

from autmarg.gaussian.affine import Coefficients, Rows, RowTerm
from autmarg.gaussian.chains.places import steps_of
from autmarg.gaussian.ragged import ranks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_MOST = 256  # rows of a step that are turned
_ROUNDINGS = 8.0  # of the largest coefficient of a column, up to which one is zero


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
    old, reads = rows.coefficients, np.ones(rows.n, bool)
    place = steps_of(states, constant + 1)
    kept = np.ones(len(old.row), bool)
    new: list[Coefficients] = []
    for at, group in _groups(rows, old, place):
        turned = _turned(group, place[group.features[:, 0], 0] >= 0)
        if turned is None:
            continue
        known, rank = turned
        kept[at] = False
        reads[group.rows[rank:]] = False
        i, f = np.nonzero(known)
        column, slot = group.features[f].T
        new.append(Coefficients(group.rows[i], column, known[i, f], slot))
    rest = (x[kept] for x in old)
    whole = Coefficients(*map(np.concatenate, zip(rest, *new, strict=True)))
    own, others = np.flatnonzero(reads), np.flatnonzero(~reads)
    return _rows(rows, whole, own, constant), _rows(rows, whole, others, constant)


def _groups(
    rows: Rows, own: Coefficients, place: Int[np.ndarray, "columns+1 3"]
) -> Iterator[tuple[Int[np.ndarray, "some"], _Group]]:
    """Rows of one step, chain and noise, with the numbers of their coefficients."""
    assert rows.precision is not None
    key = np.full((rows.n, 3), -1)
    np.maximum.at(key[:, :2], own.row, place[own.column, :2])
    key[:, 2] = rows.precision
    _, group, counts = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    of_group = group[own.row]
    ends = np.cumsum(np.bincount(of_group, minlength=len(counts)))
    numbers = np.split(np.argsort(of_group, kind="stable"), ends[:-1])
    for chosen, at in zip(members, numbers, strict=True):
        if 1 < len(chosen) <= _MOST:
            pairs = np.stack([own.column[at], own.slot[at]], axis=1)
            features, feature = np.unique(pairs, axis=0, return_inverse=True)
            known = np.zeros((len(chosen), len(features)))
            row = np.searchsorted(chosen, own.row[at])
            np.add.at(known, (row, feature.reshape(-1)), own.known[at])
            yield at, _Group(chosen, features, known)


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


def _rows(rows: Rows, whole: Coefficients, chosen: Int[np.ndarray, "some"], constant: int) -> Rows:
    """Some rows, their coefficients side by side in one term."""
    number = np.full(rows.n, -1)
    number[chosen] = np.arange(len(chosen))
    order = np.argsort(whole.row, kind="stable")
    order = order[number[whole.row[order]] >= 0]
    row = number[whole.row[order]]
    at = row, ranks(np.bincount(row, minlength=len(chosen)))
    shape = len(chosen), int(at[1].max(initial=0)) + 1
    column, known, slot = np.full(shape, constant), np.zeros(shape), np.zeros(shape, np.int64)
    for into, values in ((column, whole.column), (known, whole.known), (slot, whole.slot)):
        into[at] = values[order]
    assert rows.precision is not None
    precision = np.broadcast_to(rows.precision, rows.n)[chosen]
    return replace(rows, n=len(chosen), terms=(RowTerm(column, known, slot),), precision=precision)
