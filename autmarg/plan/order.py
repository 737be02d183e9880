"""The elimination order: which columns go in which stage.

Chains go first, in time, or are written out where that costs less. Members are taken largest first;
a member whose columns fall into many small sets that do not meet each other is a stage of batched
blocks, together with any other member that adds to those sets without joining two of them (an
intercept and a slope as two sites). When no member does so, columns that meet few others go in
rounds, as long as that saves time. What is left is the dense root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from autmarg.errors import RequestError
from autmarg.gaussian.affine import AffineForm, Member
from autmarg.gaussian.assembly import Assembly
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.ragged import padded
from autmarg.gaussian.schedule import Schedule
from autmarg.gaussian.small import UNROLL
from autmarg.gaussian.stages import (
    REGISTERED,
    AnyStage,
    BatchedBlocks,
    Chain,
    DenseRoot,
    TriangularRoot,
    Unrolled,
    next_registered,
)
from autmarg.gaussian.terms import REGISTERED_TERMS, terms_of
from autmarg.gaussian.triangle import TriangularAssembly, triangles
from autmarg.plan.degree import rounds
from autmarg.plan.in_time import SMALL_ROOT, Filtered, in_time, without

MAX_ROOT = 6000  # columns of a dense root: some ten matrices of that size are alive in a gradient
MAX_BLOCK = 16  # columns of one block
MAX_PADDING = 3.0  # stored columns per column, where blocks differ in size


@dataclass(frozen=True)
class TooLarge:
    """A dense root of so many ``columns`` that it is beyond the budget of memory."""

    columns: int

    def __str__(self) -> str:
        return (
            f"a dense root of {self.columns:,} columns is more than the {MAX_ROOT:,} that are "
            "planned"
        )


def assemble(form: AffineForm) -> Assembly:
    """The terms of an affine form, and how they become G."""
    return Assembly(form, terms_of(form))


def schedule(form: AffineForm, assembly: Assembly) -> Schedule:
    """The elimination order of an affine form.

    Raises:
        RequestError: a stage would be beyond the budget of memory.
    """
    exact = _by_rows(form, assembly)
    if exact is not None and (not form.columns or form.flat.any()):
        return exact
    assembly, chains = _apart(form, assembly)
    stages = _stages(form, assembly, chains)
    if isinstance(stages, TooLarge):
        names = [m.name for m in form.members if m.random]
        raise RequestError(
            f"cannot integrate out {names} together: {stages}; keep one of the larger sites sampled"
        )
    return Schedule(form, assembly, stages, exact)


def one_by_one(form: AffineForm, assembly: Assembly, names: Sequence[str]) -> Schedule:
    """A schedule that eliminates members in this order, one column at a time.

    The columns of a member must not meet each other. A draw of one then depends on its own noise
    and on the members that are eliminated after it, and on nothing else.
    """
    pattern, stages = assembly.pattern, []
    members = {m.name: m for m in form.members}
    for name in names:
        stage, pattern = BatchedBlocks.plan(pattern, members[name].columns.reshape(-1, 1))
        stages.append(stage)
    return Schedule(form, assembly, tuple(stages), None)


def stages_of(form: AffineForm, assembly: Assembly) -> tuple[AnyStage, ...] | TooLarge:
    """The stages that eliminate an affine form, in order."""
    assembly, chains = _apart(form, assembly)
    return _stages(form, assembly, chains)


def _apart(form: AffineForm, assembly: Assembly) -> tuple[Assembly, dict[int, Filtered]]:
    """The chains that are filtered, and the assembly with the rows apart that they walk."""
    chains = in_time(form, assembly.pattern)
    filtered = tuple(rows for each in chains.values() for rows in each.rows)
    if not filtered:
        return assembly, chains
    rest = replace(form, rows=without(form, chains))
    return Assembly(rest, terms_of(rest, filtered)), chains


def _stages(
    form: AffineForm, assembly: Assembly, chains: dict[int, Filtered]
) -> tuple[AnyStage, ...] | TooLarge:
    pattern, planned = assembly.pattern, []
    for number, each in enumerate(form.recurrences):
        if number in chains:
            own = chains[number]
            stage, pattern = Chain.plan(pattern, each, number, own.width, form.members, own.rows)
        else:
            stage, pattern = Unrolled.plan(pattern, each, number)
        planned.append(stage)
    left = set(pattern.columns.tolist())
    more = eliminate(pattern, [m for m in form.members if m.offset in left])
    return more if isinstance(more, TooLarge) else (*planned, *more)


def _by_rows(form: AffineForm, assembly: Assembly) -> Schedule | None:
    """The schedule of a small form by its rows, which keep more digits than cross-products."""
    if form.columns > SMALL_ROOT or REGISTERED or REGISTERED_TERMS:
        return None
    rows = triangles(form, assembly.summed.stats)
    if rows is None:
        return None
    identity = (~form.flat).astype(np.float64)
    root = [TriangularRoot(np.arange(form.columns), identity)] if form.columns else []
    return Schedule(form, TriangularAssembly(assembly, rows), tuple(root))


def eliminate(pattern: Pattern, members: Sequence[Member]) -> list[AnyStage] | TooLarge:
    """Stages of blocks and the dense root that eliminate all columns of a pattern, members' own."""
    stages: list[AnyStage] = []
    members = sorted(members, key=lambda m: -m.blocks * m.size)
    while len(pattern.columns) and (planned := next_registered(pattern, members)) is not None:
        stage, pattern = planned
        stages.append(stage)
        left = set(pattern.columns.tolist())
        members = [m for m in members if left.issuperset(m.columns.reshape(-1).tolist())]
    while len(pattern.columns) > UNROLL:
        found = _next_blocks(pattern, members)
        if found is None:
            break
        columns, used = found
        left = len(pattern.columns) - (columns >= 0).sum()
        if len(pattern.columns) <= SMALL_ROOT and left > UNROLL:
            break  # a root of either size would be one call of LAPACK's
        members = [m for m in members if m not in used]
        stage, pattern = BatchedBlocks.plan(pattern, columns)
        stages.append(stage)
    if len(pattern.columns) > SMALL_ROOT:
        more, pattern = rounds(pattern)
        stages += more
    if len(pattern.columns) > MAX_ROOT:
        return TooLarge(len(pattern.columns))
    if len(pattern.columns):
        root, _ = DenseRoot.plan(pattern)
        stages.append(root)
    return stages


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
    return padded(labels[order], columns[order], len(counts))
