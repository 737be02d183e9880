"""Rounds of elimination where columns meet few others, before what is left becomes dense.

Eliminating a column joins all that it meets, so columns of low degree go first (minimum degree;
George & Liu 1989, SIAM Review 31(1)), and those that do not meet each other go together, one round
being one stage of batched blocks of one column. Where two large factors meet seldom, this leaves a
core that is a small part of them.
"""

from __future__ import annotations

import numpy as np

from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.stages import AnyStage, BatchedBlocks
from autmarg.gaussian.stages.meetings import Dense
from autmarg.plan.pricing import root_seconds, round_seconds

_ROUNDS = 16  # at most; each is some fifty instructions to compile
_SHARE = 0.5  # of the columns, those of lowest degree, that a round picks from
_SWEEPS = 4  # in which an independent set is picked
_WORTH = 0.95  # of the time without it: what a round must save to be worth compiling


def rounds(pattern: Pattern) -> tuple[list[AnyStage], Pattern]:
    """Stages that take out columns of low degree as long as that saves time; what they leave."""
    stages: list[AnyStage] = []
    for _ in range(_ROUNDS):
        columns = _independent(pattern)
        if not len(columns):
            break
        stage, smaller = BatchedBlocks.plan(pattern, columns[:, None])
        after = round_seconds(stage) + root_seconds(len(smaller.columns))
        if isinstance(stage.meets, Dense) or after > _WORTH * root_seconds(len(pattern.columns)):
            break
        stages.append(stage)
        pattern = smaller
    return stages, pattern


def _independent(pattern: Pattern) -> np.ndarray:
    """Columns of low degree that do not meet each other, picked as by Luby (1986), low ones first.

    There are none where the pattern is nearly full.
    """
    columns = pattern.columns
    n = len(columns)
    local = np.full(int(columns.max(initial=0)) + 1, -1)
    local[columns] = np.arange(n)
    first, second = local[pattern.first], local[pattern.second]
    edges = np.unique(np.minimum(first, second) * n + np.maximum(first, second))
    i, j = edges // n, edges % n
    i, j = i[i != j], j[i != j]
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    if degree.mean() > n / 4:
        return columns[:0]
    rank = np.empty(n, np.int64)
    rank[np.lexsort([np.random.default_rng(0).permutation(n), degree])] = np.arange(n)
    waiting, picked = rank < _SHARE * n, np.zeros(n, bool)
    for _ in range(_SWEEPS):
        best = np.full(n, n)  # the lowest rank among a column's waiting neighbours
        both = waiting[i] & waiting[j]
        np.minimum.at(best, i[both], rank[j[both]])
        np.minimum.at(best, j[both], rank[i[both]])
        found = waiting & (rank < best)
        picked |= found
        waiting &= ~found
        waiting[j[found[i]]] = False
        waiting[i[found[j]]] = False
    return columns[picked]
