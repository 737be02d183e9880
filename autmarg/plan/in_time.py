"""Which chains are filtered in time, what states hold, and which rows they take one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from autmarg.gaussian.affine import AffineForm, Rows
from autmarg.gaussian.chains.contrasts import contrasts
from autmarg.gaussian.chains.recurrence import Recurrence
from autmarg.gaussian.chains.width import Width
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.stages import Unrolled
from autmarg.gaussian.stages.cost import Counts, filter_counts
from autmarg.plan.pricing import counted_seconds

SMALL_ROOT = 24  # columns that are not worth a stage of their own
_FAR = 1.2  # times as many predicted seconds
ROWS = 8  # of a step, on average, up to which they are filtered one by one


class Filtered(NamedTuple):
    """How a recurrence is filtered.

    Attributes:
        width: what its states hold.
        rows: that are taken one by one; none where all go by cross-products.
        contrasts: rows that are left of the recurrence's own, and read no state.
    """

    width: Width
    rows: tuple[Rows, ...] = ()
    contrasts: tuple[Rows, ...] = ()


def in_time(form: AffineForm, pattern: Pattern) -> dict[int, Filtered]:
    """The recurrences that are filtered, with those of their rows that are taken one by one."""
    read = _read(form)
    found: dict[int, Filtered] = {}
    for number, each in enumerate(form.recurrences):
        waiting = [r.columns[r.columns >= 0] for r in form.recurrences[number + 1 :]]
        states = np.concatenate([np.zeros(0, np.int64), *waiting])
        width = Width.of(pattern, each, states, read)
        own = None if width is None else _one_by_one(form, each, width)
        if own is None or not _pays(pattern, each, own.width, sum(r.n for r in own.rows)):
            _, pattern = Unrolled.plan(pattern, each, number)
            continue
        found[number] = own
        pattern = own.width.left(pattern, each)
    return found


def _read(form: AffineForm) -> np.ndarray:
    """[columns] whether a row reads each column."""
    read = np.zeros(form.columns + 1, bool)
    for rows in form.rows:
        for term in rows.terms:
            column, known, _ = term.full(rows.n)
            read[column[known != 0]] = True
    return read[:-1]


def _pays(pattern: Pattern, recurrence: Recurrence, width: Width, rows: int) -> bool:
    """Whether filtering costs less than writing the states out in innovations.

    In multiply-adds, and not far more in seconds: those of a filter's small matrices take longer.
    ``rows`` is how many are filtered one by one.
    """
    state, joined = width.state, width.later.shape[1]
    size, steps = int((recurrence.columns >= 0).sum()), recurrence.steps
    each = steps * recurrence.chains
    others, full = len(pattern.columns) - size, size - len(recurrence.idle)
    root = full + min(others, SMALL_ROOT)
    if each * (state + joined) ** 2 * state + joined**3 / 6 > root**3 + others * full**2:
        return False
    local = size + joined
    at_a_step = -(-rows // each) or None
    filtered = filter_counts(steps, recurrence.chains, state, joined, at_a_step, recurrence.blocks)
    filtered += Counts(cubes=joined**3)
    written = Counts(
        products=2 * local**3 + others * full**2, cubes=root**3,
        small=size * recurrence.width * local, entries=local**2, steps=steps,
    )  # fmt: skip
    return counted_seconds(filtered) <= _FAR * counted_seconds(written)


def _one_by_one(form: AffineForm, recurrence: Recurrence, width: Width) -> Filtered:
    """With the rows that read a recurrence apart, where they are few in each step."""
    own = np.zeros(form.columns + 1, bool)
    own[recurrence.columns[recurrence.columns >= 0]] = True
    picked, count = [], 0
    for rows in form.rows:
        here = _reads(rows, own)
        if rows.block > 1 and here.any():
            return Filtered(width)
        count += int(here.sum())
        picked.append(rows.picked(np.flatnonzero(here)))
    most = recurrence.steps * recurrence.chains * max(ROWS, 2 * width.state)
    if form.layout is not None or count > most:
        return Filtered(width)
    parts = [contrasts(rows, recurrence.columns, form.columns) for rows in picked if rows.n]
    return Filtered(width, *(tuple(r for r in each if r.n) for each in zip(*parts, strict=True)))


def _reads(rows: Rows, columns: np.ndarray) -> np.ndarray:
    """[n] whether a row reads one of the columns."""
    found = np.zeros(rows.n, bool)
    for term in rows.terms:
        column, known, _ = term.full(rows.n)
        found |= (columns[column] & (known != 0)).any(axis=1)
    return found


def without(form: AffineForm, chains: Mapping[int, Filtered]) -> tuple[Rows, ...]:
    """The rows that read no column of recurrences whose rows are taken one by one."""
    own = np.zeros(form.columns + 1, bool)
    for number in (n for n, each in chains.items() if each.rows):
        columns = form.recurrences[number].columns
        own[columns[columns >= 0]] = True
    kept = (rows.picked(np.flatnonzero(~_reads(rows, own))) for rows in form.rows)
    left = (rows for each in chains.values() for rows in each.contrasts)
    return (*(rows for rows in kept if rows.n), *left)
