"""Names of levels: categorical arguments that provably index an axis of a site.

A pandas column of categories is a list of codes and a list of labels. Its labels belong to an axis
of a site if the program reads that axis at exactly these codes, for which the tape is followed from
each gather back to the site. Sizes alone prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from autmarg.compat.jaxprs import ELEMENTWISE, Op, Param
from autmarg.ir.program import Program
from autmarg.ir.tape import Equation, Tape

Axis = tuple[str, int]  # a site and one of its axes


@dataclass(frozen=True, eq=False)
class Column:
    """A categorical column: codes [rows] into labels [levels]."""

    codes: np.ndarray
    labels: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The label of each row, as text where one is missing (then "")."""
        labels = storable(self.labels)
        if (self.codes >= 0).all():
            return labels[self.codes]
        return np.append(labels.astype(str), "")[self.codes]


def categorical(value: Any) -> Column | None:
    """A pandas ``Categorical``, or a series or index of categories; None for anything else."""
    found = getattr(value, "cat", value)
    if not hasattr(found, "codes") or not hasattr(found, "categories"):
        return None
    return Column(np.asarray(found.codes), np.asarray(found.categories))


def level_names(program: Program, named: Iterable[tuple[str, Any]]) -> dict[Axis, np.ndarray]:
    """Labels of the axes of latent sites that categorical arguments index.

    Args:
        program: the source program, as traced with these arguments.
        named: its arguments by name.

    Returns:
        (site, axis) → labels [levels], as a saved file can hold them.
    """
    columns = [column for _, value in named if (column := categorical(value)) is not None]
    if not columns:
        return {}
    found: dict[Axis, list[Column]] = {}
    for axis, size, index in _reads(program):
        for column in columns:
            if size == len(column.labels) and np.array_equal(index.reshape(-1), column.codes):
                found.setdefault(axis, []).append(column)
    labels = {axis: [storable(c.labels) for c in some] for axis, some in found.items()}
    return {
        axis: some[0]
        for axis, some in labels.items()
        if all(np.array_equal(some[0], other) for other in some)
    }


def known(tape: Tape, numbers: Iterable[int]) -> list[np.ndarray]:
    """Values that depend on no input."""
    numbers = list(numbers)
    values = tape.known([v for v in numbers if v not in tape.constants])
    return [np.asarray(values[v] if v in values else tape.constants[v]) for v in numbers]


def storable(labels: Any) -> np.ndarray:
    """Labels as numbers where they are, else as text."""
    array = np.asarray(labels)
    return array if array.dtype.kind in "iufb" else array.astype(str)


def origins(tape: Tape, number: int, axis: int) -> set[Axis]:
    """Axes of inputs whose element k is all that element k along an axis of a value reads of them.

    The set is complete only for the inputs that it names; what cannot be followed is left out.
    """
    names = {v: name for name, v in tape.inputs.items()}
    found: set[Axis] = set()
    seen: set[tuple[int, int]] = set()
    stack = [(number, axis)]
    while stack:
        here = stack.pop()
        if here in seen or here[0] in tape.constants:
            continue
        seen.add(here)
        if here[0] in names:
            found.add((names[here[0]], here[1]))
        elif (equation := tape.producer(here[0])) is not None:
            stack += _back(tape, equation, here[1])
    return found


def _reads(program: Program) -> Iterator[tuple[Axis, int, np.ndarray]]:
    """(site and axis, its size, known indices at which it is read)."""
    tape = program.tape
    latents = {node.name for node in program.latents}
    for equation in tape.slice(v for node in program.nodes for v in node.numbers):
        if equation.op is not Op.GATHER:
            continue
        operand, index = equation.inputs
        if not tape.dependencies([operand]) or tape.dependencies([index]):
            continue
        (starts,) = known(tape, [index])
        sizes = equation.params[Param.SLICE_SIZES]
        for k, axis in enumerate(equation.params[Param.DIMENSION_NUMBERS].start_index_map):
            if sizes[axis] != 1:
                continue
            for site, own in origins(tape, operand, axis):
                if site in latents:
                    yield (site, own), tape.avals[operand].shape[axis], starts[..., k]


def _back(tape: Tape, equation: Equation, axis: int) -> Iterator[tuple[int, int]]:
    """Inputs and their axes, of which an axis of an equation's output is an image."""
    if not equation.inputs:
        return  # an array of counts, as of an identity matrix
    op, params = equation.op, equation.params
    shape = tape.avals[equation.outputs[0]].shape
    first = equation.inputs[0]
    before = tape.avals[first].shape
    if op in ELEMENTWISE:
        shapes = {v: tape.avals[v].shape for v in equation.inputs}
        same = (v for v, own in shapes.items() if len(own) == len(shape))
        yield from ((v, axis) for v in same if shapes[v][axis] == shape[axis])
    elif op is Op.BROADCAST_IN_DIM:
        dimensions = tuple(params[Param.BROADCAST_DIMENSIONS])
        if axis in dimensions and before[dimensions.index(axis)] == shape[axis]:
            yield first, dimensions.index(axis)
    elif op in (Op.RESHAPE, Op.SQUEEZE):
        start = math.prod(shape[:axis])
        for own, size in enumerate(before):
            if size == shape[axis] != 1 and math.prod(before[:own]) == start:
                yield first, own
    elif op is Op.TRANSPOSE:
        yield first, params[Param.PERMUTATION][axis]
    elif op is Op.SLICE and before[axis] == shape[axis]:
        yield first, axis
    elif op is Op.DOT_GENERAL:
        yield from _of_product(tape, equation, axis)


def _of_product(tape: Tape, equation: Equation, axis: int) -> Iterator[tuple[int, int]]:
    """An axis of a matrix product that is one of a factor's own, not summed over."""
    (left, right), (left_batch, right_batch) = equation.params[Param.DIMENSION_NUMBERS]
    batches = len(left_batch)
    offset = batches
    for number, summed, batch in zip(
        equation.inputs, (left, right), (left_batch, right_batch), strict=True
    ):
        own = [a for a in range(len(tape.avals[number].shape)) if a not in (*summed, *batch)]
        if axis < batches:
            yield number, batch[axis]
        elif offset <= axis < offset + len(own):
            yield number, own[axis - offset]
        offset += len(own)


__all__ = ["Axis", "categorical", "known", "level_names", "origins", "storable"]
