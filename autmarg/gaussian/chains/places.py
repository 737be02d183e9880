"""Where the columns of a chain are: in time, and among the entries of a quadratic form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autmarg.gaussian.pattern import Pattern, positions

if TYPE_CHECKING:
    from jaxtyping import Int


def steps_of(columns: Int[np.ndarray, "T B d"], size: int) -> Int[np.ndarray, "size 3"]:
    """(step, chain, place) of each of ``size`` columns, -1 of those that are none of a chain's."""
    where, used = np.full((size, 3), -1), columns >= 0
    where[columns[used]] = np.argwhere(used)
    return where


def information_places(
    pattern: Pattern,
    columns: Int[np.ndarray, "T B d"],
    lag: Int[np.ndarray, "D"],
    place: Int[np.ndarray, "D"],
) -> Int[np.ndarray, "T B D D"]:
    """[T, B, D, D] positions of H_t: pairs of columns whose later step is t."""
    t, b, _ = columns.shape
    where = np.full((t, b, len(lag), len(lag)), -1)
    own = np.flatnonzero(lag == 0)
    for k in range(min(int(lag.max(initial=0)) + 1, t)):
        then = np.flatnonzero(lag == k)
        now, before = columns[k:], columns[: t - k]
        now, before = now[:, :, place[own], None], before[:, :, None, place[then]]
        found = positions(pattern, now, before)
        where[k:, :, own[:, None], then] = found
        where[k:, :, then[:, None], own] = np.swapaxes(found, 2, 3)
    return where


def entry_places(
    outside: Int[np.ndarray, "B S"], later: Int[np.ndarray, "B R"]
) -> Int[np.ndarray, "B R+1"]:
    """Index of each later column among [1, outside, 0], the constant in front."""
    b, r = outside.shape
    same = later[:, :, None] == outside[:, None, :]
    same &= (later >= 0)[:, :, None]
    place = np.where(same.any(axis=2), same.argmax(axis=2) + 1, r + 1) if r else np.ones_like(later)
    return np.concatenate([np.zeros((b, 1), np.int64), place], axis=1)
