"""What a stage costs, as sympy expressions in its sizes.

N rows are compiled away into meetings; M is the number of blocks, d their width, E the meetings of
a block with a later column, P the pairs of meetings, D the columns left for a later stage, T the
steps of a chain, n its rows in each step that are filtered one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy

from autmarg.analysis.work import Work
from autmarg.gaussian.filtering import ROWS
from autmarg.gaussian.stages import BatchedBlocks, Chain, Unrolled
from autmarg.plan.machine import slowness

M, D, d, E, P, T, n = sympy.symbols("M D d E P T n", positive=True, integer=True)
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
# What a reader of a plan is told of them.
SYMBOLS = {
    "M": "blocks of a stage (chains of a filter)",
    "d": "columns of a block (of a state)",
    "D": "columns that each block meets, or of the dense root",
    "E": "meetings of a block with another column",
    "P": "pairs of meetings",
    "T": "steps in time",
    "n": "rows at a step",
}


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one log-density in symbols, and the symbols' values."""

    structure: str
    formula: sympy.Expr
    values: tuple[tuple[sympy.Symbol, int], ...]

    @property
    def flops(self) -> sympy.Expr:
        """The number of multiply-adds."""
        return self.formula.subs(dict(self.values))

    def __str__(self) -> str:
        raised = re.sub(r"\*\*(\d)\b", lambda power: _RAISED[int(power[1])], str(self.formula))
        return f"{raised.replace('*', '·')} = {int(self.flops):,}"


# Nanoseconds in float64 on one core of the reference machine (AVX-512), value and gradient in a
# compiled loop: for a multiply-add of a large product with what goes with it, a cubed column of the
# root, an element of a dense matrix, a meeting or a pair of them, a cross-product, and the rest of
# a form (least squares over the plans of the benchmark); of a leapfrog step besides the gradient,
# and of it for each dimension. Other machines have them in proportion to their speeds.
_PRODUCT, _ROOT, _ELEMENT, _MEETING, _SUM, _REST = 0.082, 0.1, 12.0, 9.6, 1.2, 11_000.0
# The rest is less for forms so small that most of it fuses: measured without the other terms were
# 2 µs for forms of 1 to 9 columns, 2 to 6 for 38 to 43 of them.
_LEAST, _COLUMN = 2_000.0, 100.0
_STEP, _DIMENSION, _OPERATION, _KEY = 9_000.0, 20.0, 20.0, 10.0
_USUAL = 200  # operations with which the opaque numbers of the benchmark's plans are evaluated
# The same for a step of a chain besides its work, forwards and back, and for a multiply-add there,
# of small matrices that are read and written: some 25 ns for a chain of one state (plan/timing.py).
_IN_TIME, _SMALL = 700.0, 2.5


def seconds(stages: Sequence[Any], sums: int) -> float:
    """Predicted seconds of a gradient: its stages and ``sums`` entries of cross-products."""
    columns = sum(_columns(stage) for stage in stages)
    return _seconds(stages, sums, min(_REST, _LEAST + _COLUMN * columns))


def round_seconds(stage: BatchedBlocks) -> float:
    """Predicted seconds of a stage more in a large form."""
    return _seconds([stage], 0, _REST)


def _columns(stage: Any) -> float:
    if isinstance(stage, BatchedBlocks):
        return stage.blocks * stage.width
    return math.inf if isinstance(stage, Chain | Unrolled) else stage.size


def _seconds(stages: Sequence[Any], sums: int, kernels: float) -> float:
    products, elements = 0.0, _SUM * sums
    for stage in stages:
        if isinstance(stage, BatchedBlocks) and stage.dense is not None:
            meetings = stage.blocks * stage.width * len(stage.later)
            products += _PRODUCT * meetings * len(stage.later)
            elements += _ELEMENT * meetings
        elif isinstance(stage, BatchedBlocks):
            meetings = len(stage.target) + len(stage.meeting_block)
            elements += _MEETING * stage.width * meetings
        elif isinstance(stage, Chain):
            elements += _SMALL * float(stage_cost(stage).flops)
            kernels += _IN_TIME * _depth(stage)
        elif isinstance(stage, Unrolled):
            size, steps = float(len(stage.local)), stage.recurrence.steps
            products += _PRODUCT * float(stage_cost(stage).flops)
            elements += _ELEMENT * size**2 + _SMALL * stage.size * stage.recurrence.width * size
            kernels += _IN_TIME * steps
        else:
            root = _root(stage.size)
            products, elements = products + root[0], elements + root[1]
    return _here(products, elements, kernels)


def _depth(chain: Chain) -> int:
    """Steps of a chain that go one after the other."""
    steps, blocks = chain.recurrence.steps, chain.recurrence.blocks
    rows = 1 if chain.rows is None else chain.rows.size[2]
    depth = steps if blocks == 1 else 2 * -(-steps // blocks) + blocks
    return depth if rows <= ROWS else depth * rows


def root_seconds(size: int) -> float:
    """Predicted seconds of a dense root of ``size`` columns in a gradient."""
    return _here(*_root(size))


def source_seconds(work: Work) -> float:
    """Predicted seconds of a gradient of a program, or of a part of it, as it is written."""
    products = _PRODUCT * work.products + _ROOT * work.cubes
    return _here(products, work.elements, _OPERATION * work.operations)


def evaluation_seconds(work: Work, products: int) -> float:
    """Predicted seconds of what a marginal evaluates besides its stages.

    ``work`` is that of its opaque numbers, of whose operations a usual number is counted with the
    stages; ``products`` are added up at each step, for G and for the sum of squares.
    """
    more = max(0.0, work.operations - _USUAL)
    whole = replace(work, elements=work.elements + _KEY * products, operations=more)
    return source_seconds(whole)


def overhead(dimensions: int) -> float:
    """Predicted seconds of a leapfrog step besides its gradient, in so many dimensions."""
    return _here(0.0, _DIMENSION * dimensions, _STEP)


def _root(size: int) -> tuple[float, float]:
    return _ROOT * float(size) ** 3, _ELEMENT * float(size) ** 2


def _here(products: float, elements: float, kernels: float = 0.0) -> float:
    """Seconds on this machine of what takes so many nanoseconds on the reference."""
    slow = slowness()
    return 1e-9 * (slow.product * products + slow.element * elements + slow.kernel * kernels)


def stage_cost(stage: Any) -> Cost:
    """Structure and cost of one elimination stage; a registered one says its own."""
    if structure := getattr(stage, "structure", ""):
        return Cost(structure, getattr(stage, "cost", sympy.Integer(0)), ())
    if isinstance(stage, BatchedBlocks):
        sizes = [(M, stage.blocks), (d, stage.width)]
        if stage.dense is not None:
            values = (*sizes, (D, len(stage.later)))
            text = f"{stage.blocks} blocks of {stage.width}, dense to {len(stage.later)}"
            return Cost(text, M * d**3 / 6 + M * d * D**2, values)
        values = (*sizes, (E, len(stage.meeting_block)), (P, len(stage.target)))
        text = f"{stage.blocks} blocks of {stage.width}, {len(stage.meeting_block)} meetings"
        return Cost(text, M * d**3 / 6 + E * d**2 / 2 + P * d, values)
    if isinstance(stage, Chain):
        steps, chains = stage.recurrence.steps, stage.recurrence.chains
        sizes = ((T, steps), (M, chains), (d, stage.state), (D, stage.later.shape[1]))
        text = f"{chains} chains of {steps} steps, states of {stage.state}"
        work = T * M * (4 * d**3 + d**2 * D + d * D**2)
        if stage.rows is not None:
            sizes = (*sizes, (n, stage.rows.size[2]))
            work = T * M * (2 * d**3 + d**2 * D + n * (4 * d**2 + 2 * d * D + D**2))
        if (blocks := stage.recurrence.blocks) > 1:
            return Cost(f"{text}, {blocks} blocks of steps side by side", 3 * work, sizes)
        return Cost(text, work, sizes)
    if isinstance(stage, Unrolled):
        size = stage.size
        text = f"{size} states written out in innovations"
        return Cost(text, 2 * D**3, ((D, len(stage.local)),))
    return Cost(f"dense root of {stage.size}", D**3 / 6, ((D, stage.size),))
