"""Ragged arrays: groups of different sizes that lie end to end, and tables padded with -1."""

from __future__ import annotations

import numpy as np


def ranks(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each group, [Σ counts]; groups of ``counts`` [groups] lie end to end."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def padded(row: np.ndarray, value: np.ndarray, rows: int) -> np.ndarray:
    """[rows, most] values by row (sorted), -1 padded."""
    counts = np.bincount(row, minlength=rows)
    table = np.full((rows, int(counts.max(initial=0))), -1)
    table[row, ranks(counts)] = value
    return table


def distinct(block: np.ndarray, key: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys of each block, ascending, [blocks, F] padded with -1; place of each entry."""
    stride = int(key.max(initial=0)) + 1
    pairs, inverse = np.unique(block * stride + key, return_inverse=True)
    owner = pairs // stride
    place = ranks(np.bincount(owner, minlength=blocks))
    return padded(owner, pairs % stride, blocks), place[inverse.reshape(-1)]
