"""How long work is predicted to take on this machine: that of stages, and that of the source.

Stages count their work by kind themselves (:mod:`autmarg.gaussian.stages.cost`); here is what each
kind takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autmarg.analysis.work import Work
from autmarg.gaussian.stages import AnyStage
from autmarg.gaussian.stages.cost import Counts, dense_root
from autmarg.plan.machine import slowness

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
_TURN = 0.5  # for an entry of a matrix that noise is multiplied by, forwards and back


def seconds(stages: Sequence[AnyStage], sums: int) -> float:
    """Predicted seconds of a gradient: its stages and ``sums`` entries of cross-products."""
    counts = sum((stage.cost.counts for stage in stages), Counts())
    return _seconds(counts, sums, min(_REST, _LEAST + _COLUMN * counts.columns))


def counted_seconds(counts: Counts) -> float:
    """Predicted seconds of work in a gradient, by kind."""
    return _seconds(counts, 0, 0.0)


def round_seconds(stage: AnyStage) -> float:
    """Predicted seconds of a stage more in a large form."""
    return _seconds(stage.cost.counts, 0, _REST)


def root_seconds(size: int) -> float:
    """Predicted seconds of a dense root of ``size`` columns in a gradient."""
    return _seconds(dense_root(size).counts, 0, 0.0)


def step_seconds(steps: int) -> float:
    """Predicted seconds of so many steps in time, one after the other, besides their work."""
    return _here(0.0, 0.0, _IN_TIME * steps)


def turn_seconds(entries: int) -> float:
    """Predicted seconds of a matrix with so many entries that noise is multiplied by."""
    return _here(0.0, _TURN * entries)


def _seconds(counts: Counts, sums: int, kernels: float) -> float:
    """Of work counted by kind, ``sums`` entries of cross-products, and nanoseconds of kernels."""
    products = _PRODUCT * counts.products + _ROOT * counts.cubes
    elements = _ELEMENT * counts.entries + _MEETING * counts.meetings + _SMALL * counts.small
    return _here(products, elements + _SUM * sums, kernels + _IN_TIME * counts.steps)


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


def _here(products: float, elements: float, kernels: float = 0.0) -> float:
    """Seconds on this machine of what takes so many nanoseconds on the reference."""
    slow = slowness()
    return 1e-9 * (slow.product * products + slow.element * elements + slow.kernel * kernels)
