"""Indices that read outside the array they index, which JAX moves inside without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from autmarg.compat.jaxprs import Op, Param
from autmarg.errors import ModelError
from autmarg.ir.program import Program
from autmarg.ir.tape import Equation, Tape

_MEMBERS = (Op.GATHER, Op.DYNAMIC_SLICE)
_SAME = (
    Op.BROADCAST_IN_DIM, Op.RESHAPE, Op.CONVERT_ELEMENT_TYPE, Op.SQUEEZE, Op.CONCATENATE,
)  # fmt: skip

_BEYOND = (
    "To predict for levels beyond those fitted, pass marg.predict a larger number of levels; where "
    "the model fixes that number, name the sites in new_levels=[…] and number new levels from 0."
)


def check_bounds(
    equation: Equation,
    index: np.ndarray,
    shape: tuple[int, ...],
    names: Mapping[str, Any] | None = None,
) -> None:
    """Raise where a known gather reads past the end of its operand.

    Args:
        equation: a gather, or a dynamic slice.
        index: its start indices, [..., indexed axes].
        shape: of the operand.
        names: arrays that the user has a name for, to say which one it is.

    Raises:
        ModelError: it does.
    """
    if equation.params.get(Param.MODE) == GatherScatterMode.CLIP:
        return  # asked for by name
    _check(equation, index, shape, names or {})


def _check(
    equation: Equation, index: np.ndarray, shape: tuple[int, ...], names: Mapping[str, Any]
) -> None:
    if equation.op is Op.GATHER:
        axes = equation.params[Param.DIMENSION_NUMBERS].start_index_map
    else:
        axes = tuple(range(len(shape)))
    sizes = equation.params[Param.SLICE_SIZES]
    for k, axis in enumerate(axes):
        starts = index[..., k]
        last = shape[axis] - sizes[axis]
        if starts.size and (starts.min() < 0 or starts.max() > last):
            where = f" at {equation.place}" if equation.place else ""
            # Negative indices have the length added to them by now.
            high = starts.max() > last
            bad = int(starts.max() if high else starts.min() - shape[axis])
            fills = equation.params.get(Param.MODE) == GatherScatterMode.FILL_OR_DROP
            does = "puts NaN at" if fills else "clamps"
            hint = _one_based(int(starts.min())) if high and bad == shape[axis] else ""
            raise ModelError(
                f"an index array{_called(bad, names)} reads outside the array it "
                f"indexes{where}: found index {bad} on an axis of length {shape[axis]}, expected "
                f"-{shape[axis]} to {shape[axis] - 1}. JAX {does} such indices silently; check the "
                f"codes of the grouping factor and the group count.{hint}"
            )


def _one_based(least: int) -> str:
    """What to do where the largest index is one too many."""
    if least < 1:
        return ""
    return f" {'These start at 1:' if least == 1 else 'If they count from 1,'} subtract 1."


def check_indices(program: Program, *, one_by_one: bool = False) -> None:
    """Raise where an array of latents is read at known indices outside of it.

    Indices that are traced, and those that a loop computes, are not known here. A gather that was
    asked to clip or to fill does what was asked.

    Args:
        program: as traced, or folded.
        one_by_one: check (instead) reads of one index that ``vmap`` or a loop put together, which
            JAX makes a gather that clips. They are known by their index, to which the length is
            added where it is negative: on the tape as it was traced.

    Raises:
        ModelError: an index is out of range.
    """
    tape = program.tape
    found = list(_reads(program, one_by_one))
    wanted = {v for e in found for v in e.inputs[1:]}
    values = dict(tape.constants)
    if missing := sorted(wanted - set(values)):
        values |= tape.known(missing)
    for equation in found:
        indices = [np.asarray(values[v]) for v in equation.inputs[1:]]
        index = indices[0] if equation.op is Op.GATHER else np.stack(indices, axis=-1)
        shape = tuple(tape.avals[equation.inputs[0]].shape)
        try:
            _check(equation, index, shape, program.names)
        except ModelError as error:
            if program.observed:
                raise
            raise ModelError(f"{error} {_BEYOND}") from None


def _reads(program: Program, one_by_one: bool) -> Iterator[Equation]:
    """Gathers and slices of what depends on an input, at indices that depend on none."""
    tape = program.tape
    for equation in tape.slice(v for node in program.nodes for v in node.numbers):
        if equation.op not in _MEMBERS or len(equation.inputs) < 2:
            continue
        mode = equation.params.get(Param.MODE)
        operand, *indices = equation.inputs
        clips = mode == GatherScatterMode.CLIP
        if mode == GatherScatterMode.FILL_OR_DROP or clips != one_by_one:
            continue
        if clips and not _counts_from_the_end(tape, indices[0]):
            continue
        if tape.dependencies([operand]) and not tape.dependencies(indices):
            yield equation


def _counts_from_the_end(tape: Tape, number: int) -> bool:
    """Whether an index has the length added to it where it is negative."""
    stack = [number]
    while stack:
        equation = tape.producer(stack.pop())
        if equation is None:
            continue
        if equation.op is Op.SELECT_N:
            chosen = tape.producer(equation.inputs[0])
            if chosen is not None and chosen.op is Op.LT:
                return True
        elif equation.op in _SAME:
            stack += equation.inputs
    return False


def _called(bad: int, names: Mapping[str, Any]) -> str:
    """In brackets, the user's integer arrays that have such an entry."""
    integers = {n: a for n, a in names.items() if np.issubdtype(a.dtype, np.integer)}
    # (NumPy compares them: where a caller is traced, what JAX computes is traced, too)
    found = [name for name, array in integers.items() if (np.asarray(array) == bad).any()]
    return f" ({', '.join(map(repr, found[:3]))})" if found else ""


__all__ = ["check_bounds", "check_indices"]
