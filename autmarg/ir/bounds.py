"""Indices that read outside the array they index, which JAX moves inside without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from autmarg.errors import ModelError
from autmarg.ir.program import Program
from autmarg.ir.tape import Equation

_MEMBERS = ("gather", "dynamic_slice")


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
    if equation.primitive.name == "gather":
        if equation.params["mode"] == GatherScatterMode.CLIP:
            return  # asked for by name
        axes = equation.params["dimension_numbers"].start_index_map
    else:
        axes = tuple(range(len(shape)))
    sizes = equation.params["slice_sizes"]
    for k, axis in enumerate(axes):
        starts = index[..., k]
        last = shape[axis] - sizes[axis]
        if starts.size and (starts.min() < 0 or starts.max() > last):
            where = f" at {equation.place}" if equation.place else ""
            # Negative indices have the length added to them by now.
            high = starts.max() > last
            bad = int(starts.max() if high else starts.min() - shape[axis])
            fills = equation.params.get("mode") == GatherScatterMode.FILL_OR_DROP
            does = "puts NaN at" if fills else "clamps"
            raise ModelError(
                f"an index array{_called(bad, names or {})} reads outside the array it "
                f"indexes{where}: found index {bad} on an axis of length {shape[axis]}, expected "
                f"-{shape[axis]} to {shape[axis] - 1}. JAX {does} such indices silently; check the "
                "codes of the grouping factor and the group count."
            )


def check_indices(program: Program) -> None:
    """Raise where an array of latents is read at known indices outside of it.

    Indices that are traced, and those that a loop computes, are not known here. A gather that was
    asked to clip or to fill does what was asked.

    Raises:
        ModelError: an index is out of range.
    """
    tape = program.tape
    found = list(_reads(program))
    wanted = {v for e in found for v in e.inputs[1:]}
    values = dict(tape.constants)
    if missing := sorted(wanted - set(values)):
        values |= tape.known(missing)
    for equation in found:
        indices = [np.asarray(values[v]) for v in equation.inputs[1:]]
        index = indices[0] if equation.primitive.name == "gather" else np.stack(indices, axis=-1)
        shape = tuple(tape.avals[equation.inputs[0]].shape)
        check_bounds(equation, index, shape, program.names)


def _reads(program: Program) -> Iterator[Equation]:
    """Gathers and slices of what depends on an input, at indices that depend on none."""
    tape = program.tape
    for equation in tape.slice(v for node in program.nodes for v in node.numbers):
        if equation.primitive.name not in _MEMBERS or len(equation.inputs) < 2:
            continue
        fills = equation.params.get("mode") == GatherScatterMode.FILL_OR_DROP
        operand, *indices = equation.inputs
        if not fills and tape.dependencies([operand]) and not tape.dependencies(indices):
            yield equation


def _called(bad: int, names: Mapping[str, Any]) -> str:
    """In brackets, the user's integer arrays that have such an entry."""
    found = [
        name
        for name, array in names.items()
        if np.issubdtype(array.dtype, np.integer) and np.size(array) and (array == bad).any()
    ]
    return f" ({', '.join(map(repr, found[:3]))})" if found else ""


__all__ = ["check_bounds", "check_indices"]
