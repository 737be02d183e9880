"""Ragged arrays: groups of different sizes that lie end to end, and tables padded with -1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int


def ranks(counts: Int[np.ndarray, "groups"]) -> Int[np.ndarray, "members"]:
    """0, 1, 2, … within each group, [Σ counts]; groups of ``counts`` [groups] lie end to end."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def padded(
    row: Int[np.ndarray, "n"], value: Int[np.ndarray, "n"], rows: int
) -> Int[np.ndarray, "rows most"]:
    """[rows, most] values by row (sorted), -1 padded."""
    counts = np.bincount(row, minlength=rows)
    table = np.full((rows, int(counts.max(initial=0))), -1)
    table[row, ranks(counts)] = value
    return table


def distinct(
    block: Int[np.ndarray, "n"], key: Int[np.ndarray, "n"], blocks: int
) -> tuple[Int[np.ndarray, "blocks F"], Int[np.ndarray, "n"]]:
    """Distinct keys of each block, ascending, [blocks, F] padded with -1; place of each entry."""
    stride = int(key.max(initial=0)) + 1
    pairs, inverse = np.unique(block * stride + key, return_inverse=True)
    owner = pairs // stride
    place = ranks(np.bincount(owner, minlength=blocks))
    return padded(owner, pairs % stride, blocks), place[inverse.reshape(-1)]
