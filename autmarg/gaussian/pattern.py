"""Which entries of the quadratic form may differ from zero, and what elimination fills in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which entries of G may differ from zero.

    ``first`` and ``second`` are the columns of each entry; an unordered pair may be listed twice
    (the two triangles of a diagonal block), then both entries are equal.
    """

    columns: Int[np.ndarray, "columns"]
    first: Int[np.ndarray, "entries"]
    second: Int[np.ndarray, "entries"]

    def lookup(
        self, i: Int[np.ndarray, "*#pairs"], j: Int[np.ndarray, "*#pairs"]
    ) -> Int[np.ndarray, "*pairs"]:
        """Position of each unordered pair (i, j), or -1.

        Where the pairs are a run of the entries in order, so are their positions: a slice of the
        values, and not a gather.
        """
        order, keys = self._sorted
        i, j = np.broadcast_arrays(i, j)
        wanted = np.minimum(i, j) * self._stride + np.maximum(i, j)
        if not len(keys) or not wanted.size:
            return np.full(wanted.shape, -1)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[at] == wanted, order[at], -1)
        run = found.flat[0] + np.arange(found.size)
        if run[0] < 0 or run[-1] >= len(keys):
            return found
        ordered = np.array_equal(self.first[run], i.reshape(-1))
        ordered = ordered and np.array_equal(self.second[run], j.reshape(-1))
        return run.reshape(found.shape) if ordered else found

    @property
    def _stride(self) -> int:
        return int(self.columns.max(initial=0)) + 1

    @property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        cached = self.__dict__.get("_cache")
        if cached is None:
            low = np.minimum(self.first, self.second)
            keys = low * self._stride + np.maximum(self.first, self.second)
            order = np.argsort(keys, kind="stable")
            cached = (order, keys[order])
            self.__dict__["_cache"] = cached
        return cached


def positions(
    pattern: Pattern, i: Int[np.ndarray, "*#pairs"], j: Int[np.ndarray, "*#pairs"]
) -> Int[np.ndarray, "*pairs"]:
    """Place of each entry (i, j) of G in the values, -1 where there is none or an index is -1."""
    i, j = np.broadcast_arrays(i, j)
    found = pattern.lookup(np.maximum(i, 0), np.maximum(j, 0))
    return np.where((i >= 0) & (j >= 0), found, -1)


def pairs_of(
    block: Int[np.ndarray, "E"], counts: Int[np.ndarray, "B"]
) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """All ordered pairs e ≤ e' of meetings of the same block."""
    ends = np.cumsum(counts)[block]
    length = ends - np.arange(len(block))
    left = np.repeat(np.arange(len(block)), length)
    starts = np.cumsum(length) - length
    right = np.arange(len(left)) - np.repeat(starts, length) + left
    return left, right


def filled(
    pattern: Pattern,
    block_of: Int[np.ndarray, "size"],
    later: Int[np.ndarray, "R"],
    column: Int[np.ndarray, "E"],
    left: Int[np.ndarray, "P"],
    right: Int[np.ndarray, "P"],
) -> tuple[Pattern, Int[np.ndarray, "P"]]:
    """The later columns' pattern with fill, and the place in it of each pair of meetings."""
    stays = (block_of[pattern.first] < 0) & (block_of[pattern.second] < 0)
    stride = len(block_of)

    def code(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return np.minimum(i, j) * stride + np.maximum(i, j)

    fill = code(column[left], column[right])
    keys = np.unique(np.concatenate([code(pattern.first[stays], pattern.second[stays]), fill]))
    return Pattern(later, keys // stride, keys % stride), np.searchsorted(keys, fill)
