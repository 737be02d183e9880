"""Classes of equal entries, numbered in the order of their codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int


def compacted(
    codes: Int[np.ndarray, "n"],
) -> tuple[Int[np.ndarray, "classes"], Int[np.ndarray, "n"]]:
    """(Where each class is first met; the class of each entry) of integers ≥ 0."""
    if not len(codes):
        return codes, codes
    most = int(codes.max()) + 1
    if most > 4 * len(codes) + 1024:
        first, classes = np.unique(codes, return_index=True, return_inverse=True)[1:]
        return first, classes.reshape(-1)
    met = np.full(most, -1)
    met[codes[::-1]] = np.arange(len(codes))[::-1]
    used = np.flatnonzero(met >= 0)
    place = np.zeros(most, np.int64)
    place[used] = np.arange(len(used))
    return met[used], place[codes]


def joined(
    keys: Sequence[Int[np.ndarray, "n"]],
) -> tuple[Int[np.ndarray, "classes"], Int[np.ndarray, "n"]]:
    """The same of entries that differ where any of several keys does."""
    first, classes = compacted(keys[0])
    for key in keys[1:]:
        # (of what was met so far there are as many classes as entries at most)
        first, classes = compacted(classes * (int(key.max(initial=0)) + 1) + key)
    return first, classes


__all__ = ["compacted", "joined"]
