"""The elimination order: which columns go in which stage.

Chains go first, in time, or are written out where that costs less. Members are taken largest first;
a member whose columns fall into many small sets that do not meet each other is a stage of batched
blocks, together with any other member that adds to those sets without joining two of them (an
intercept and a slope as two sites). When no member does so, columns that meet few others go in
rounds, as long as that saves time. What is left is the dense root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from autmarg.gaussian.affine import AffineForm, Member
from autmarg.gaussian.assembly import Assembly
from autmarg.gaussian.quadratic import Pattern
from autmarg.gaussian.recurrence import Recurrence
from autmarg.gaussian.residual import residual
from autmarg.gaussian.schedule import Schedule
from autmarg.gaussian.stages import BatchedBlocks, Chain, DenseRoot, Unrolled, next_registered
from autmarg.gaussian.statistics import cross_products
from autmarg.plan.degree import rounds

SMALL_ROOT = 24  # columns that are not worth a stage of their own
MAX_ROOT = 6000  # columns of a dense root: some ten matrices of that size are alive in a gradient
MAX_BLOCK = 16  # columns of one block
MAX_PADDING = 3.0  # stored columns per column, where blocks differ in size


class TooLarge(Exception):
    """A schedule that is beyond the budget of memory; the message says by what."""


def assemble(form: AffineForm) -> Assembly:
    """The cross-products of an affine form, and how they become G."""
    return Assembly(form, cross_products(form))


def schedule(form: AffineForm, assembly: Assembly) -> Schedule:
    """The elimination order of an affine form.

    Raises:
        TooLarge: a stage would be beyond the budget.
    """
    return Schedule(form, assembly, residual(form, assembly.stats), stages_of(form, assembly))


def stages_of(form: AffineForm, assembly: Assembly) -> tuple[Any, ...]:
    """The stages that eliminate an affine form, in order.

    Raises:
        TooLarge: a stage would be beyond the budget.
    """
    pattern, planned = assembly.pattern, []
    for number, each in enumerate(form.recurrences):
        waiting = [r.columns[r.columns >= 0] for r in form.recurrences[number + 1 :]]
        states = np.concatenate([np.zeros(0, np.int64), *waiting])
        stage, pattern = _in_time(pattern, each, number, states)
        planned.append(stage)
    left = set(pattern.columns.tolist())
    more = eliminate(pattern, [m for m in form.members if m.offset in left])
    return (*planned, *more)


def eliminate(pattern: Pattern, members: Sequence[Member]) -> list[Any]:
    """Stages of blocks and the dense root that eliminate all columns of a pattern, members' own.

    Raises:
        TooLarge: a stage would be beyond the budget.
    """
    stages: list[Any] = []
    members = sorted(members, key=lambda m: -m.blocks * m.size)
    while len(pattern.columns) and (planned := next_registered(pattern, members)) is not None:
        stage, pattern = planned
        stages.append(stage)
        left = set(pattern.columns.tolist())
        members = [m for m in members if left.issuperset(m.columns.reshape(-1).tolist())]
    while len(pattern.columns) > SMALL_ROOT:
        found = _next_blocks(pattern, members)
        if found is None:
            break
        columns, used = found
        members = [m for m in members if m not in used]
        stage, pattern = BatchedBlocks.plan(pattern, columns)
        stages.append(stage)
    if len(pattern.columns) > SMALL_ROOT:
        more, pattern = rounds(pattern)
        stages += more
    if len(pattern.columns) > MAX_ROOT:
        raise TooLarge(
            f"a dense root of {len(pattern.columns):,} columns is more than the {MAX_ROOT:,} that "
            "are planned"
        )
    if len(pattern.columns):
        root, _ = DenseRoot.plan(pattern)
        stages.append(root)
    return stages


def _in_time(
    pattern: Pattern, recurrence: Recurrence, number: int, states: np.ndarray
) -> tuple[Chain | Unrolled, Pattern]:
    """A recurrence's stage: in time, unless its columns are fewer than those that it would join."""
    planned = Chain.plan(pattern, recurrence, number, states)
    if planned is not None:
        joined = planned[0].later.shape[1]
        steps = recurrence.steps * recurrence.chains
        in_time = steps * (planned[0].state + joined) ** 2 * planned[0].state + joined**3 / 6
        others = len(pattern.columns) - planned[0].size
        full = planned[0].size - len(recurrence.idle)
        at_once = (full + min(others, SMALL_ROOT)) ** 3 + others * full**2
        if in_time <= at_once:
            return planned
    return Unrolled.plan(pattern, recurrence, number)


def _next_blocks(pattern: Pattern, members: list[Member]) -> tuple[np.ndarray, list[Member]] | None:
    """Columns [B, d] of the next stage of blocks, and the members in it."""
    best: tuple[np.ndarray, list[Member]] | None = None
    for member in members:
        labels = _components(pattern, member.columns.reshape(-1))
        blocks = _blocks(member.columns.reshape(-1), labels)
        if blocks is None or (best is not None and len(blocks) <= len(best[0])):
            continue
        best = blocks, [member]
    if best is None:
        return None
    blocks, used = best
    for member in members:
        if member in used:
            continue
        together = np.concatenate([m.columns.reshape(-1) for m in (*used, member)])
        grown = _blocks(together, _components(pattern, together))
        if grown is not None and len(grown) == len(blocks):
            blocks, used = grown, [*used, member]
    return blocks, used


def _components(pattern: Pattern, columns: np.ndarray) -> np.ndarray:
    """Label of each column's connected set within ``columns``."""
    local = np.full(int(pattern.columns.max()) + 1, -1)
    local[columns] = np.arange(len(columns))
    i, j = local[pattern.first], local[pattern.second]
    inside = (i >= 0) & (j >= 0)
    entries: Any = (np.ones(int(inside.sum()), bool), (i[inside], j[inside]))
    graph = coo_array(entries, shape=(len(columns), len(columns)))
    return connected_components(graph, directed=False)[1]


def _blocks(columns: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Columns by connected set, [B, d] padded with -1, or None where that is no batch."""
    counts = np.bincount(labels)
    width = int(counts.max())
    if len(counts) < 2 or width > MAX_BLOCK or len(counts) * width > MAX_PADDING * len(columns):
        return None
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum(counts) - counts
    within = np.arange(len(columns)) - np.repeat(starts, counts)
    blocks = np.full((len(counts), width), -1)
    blocks[labels[order], within] = columns[order]
    return blocks
