"""Which element of a latent each element of a value is a function of.

A domain for :meth:`autmarg.ir.tape.Tape.interpret`: beside what is known, a value is the array of
the elements that its own elements read, ``NONE`` where they read none, ``SEVERAL`` where more than
one. Primitives that move entries move these; what is not followed reads everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from autmarg.compat.jaxprs import (
    ELEMENTWISE,
    INLINED,
    REDUCTIONS,
    WITH_DERIVATIVE,
    Op,
    Param,
    bind,
    body_of,
)
from autmarg.ir.tape import Equation, Tape, body_tape, run_body

NONE, SEVERAL = -1, -2
# Primitives that move entries of all their operands, and those that pick entries of the first.
MOVED = frozenset({
    Op.BROADCAST_IN_DIM, Op.CONCATENATE, Op.EXPAND_DIMS, Op.PAD, Op.RESHAPE, Op.REV, Op.SLICE,
    Op.SPLIT, Op.SQUEEZE, Op.STACK, Op.TILE, Op.TRANSPOSE,
})  # fmt: skip
_INDEXED = frozenset({Op.DYNAMIC_SLICE, Op.GATHER})


@dataclass(frozen=True, eq=False)
class Reads:
    """Stands for a value that is not known.

    Attributes:
        of: in the value's shape, which element of the latent is read there, NONE or SEVERAL.
    """

    of: np.ndarray


_Value = np.ndarray | Reads


def elements_read(tape: Tape, latent: str, outputs: Collection[int]) -> list[np.ndarray]:
    """For each output, the element of a latent that its elements are functions of.

    Args:
        tape: with what is known folded, for speed.
        latent: name of an input; its elements are numbered in order.
        outputs: numbers.

    Returns:
        Arrays of the outputs' shapes: a number of an element, NONE or SEVERAL.
    """
    values: dict[int, _Value] = dict(tape.constants)
    for name, number in tape.inputs.items():
        if number not in values:
            shape = tape.avals[number].shape
            own = np.arange(int(np.prod(shape))) if name == latent else np.full(shape, NONE)
            values[number] = Reads(own.reshape(shape))
    with jax.ensure_compile_time_eval():
        found = tape.interpret(outputs, values, partial(_step, tape))
    return [_reads(x) for x in found]


def _reads(value: _Value) -> np.ndarray:
    return value.of if isinstance(value, Reads) else np.full(np.shape(value), NONE)


def _step(tape: Tape, equation: Equation, operands: list[_Value]) -> list[_Value]:
    """One equation on arrays of elements."""
    op = equation.op
    if all(not isinstance(o, Reads) for o in operands):
        return [np.asarray(x) for x in equation.bind(*operands)]
    if op in INLINED | WITH_DERIVATIVE:
        body = body_of(equation.params)
        return run_body(body, operands, partial(_step, body_tape(body)[0]), np.asarray)
    shapes = [tape.avals[v].shape for v in equation.outputs]
    own = [_reads(o) for o in operands]
    if all((x == NONE).all() for x in own):
        return [Reads(np.full(shape, NONE)) for shape in shapes]
    found = _followed(equation, operands, own)
    if found is None:
        found = [np.full(shape, _joined(own)) for shape in shapes]
    return [Reads(x) for x in found]


def _joined(arrays: Iterable[np.ndarray]) -> int:
    """What a value reads that reads all elements of some arrays."""
    every = np.unique(np.concatenate([x.reshape(-1) for x in arrays]))
    every = every[every != NONE]
    return NONE if not len(every) else int(every[0]) if len(every) == 1 else SEVERAL


def _followed(
    equation: Equation, operands: list[_Value], own: list[np.ndarray]
) -> list[np.ndarray] | None:
    """The elements that each output reads; None where the primitive is not followed."""
    op, params = equation.op, equation.params
    known = [o for o in operands if not isinstance(o, Reads)]
    if op is Op.SELECT_N and not isinstance(operands[0], Reads):
        return moved(equation, [operands[0], *own[1:]])
    if op is Op.MUL:
        zero = [not isinstance(o, Reads) and o == 0 for o in operands]
        return [np.where(zero[0] | np.asarray(zero[1]), NONE, _both(own))]
    if op in ELEMENTWISE:
        return [_both(own)]
    if op in MOVED:
        return moved(equation, own)
    if op in _INDEXED and len(known) == len(operands) - 1 and isinstance(operands[0], Reads):
        return moved(equation, [own[0], *known])
    if op in REDUCTIONS and Param.AXES in params and len(own) == 1:
        return [_along(own[0], tuple(params[Param.AXES]))]
    if op is Op.DOT_GENERAL:
        return [_product(equation, operands, own)]
    return None


def _both(own: list[np.ndarray]) -> np.ndarray:
    """What reads all of some arrays, element by element."""
    found, *rest = np.broadcast_arrays(*own)
    for other in rest:
        several = (found != other) & (found != NONE) & (other != NONE)
        found = np.where(several, SEVERAL, np.where(found == NONE, other, found))
    return found


def moved(equation: Equation, operands: list[np.ndarray]) -> list[np.ndarray]:
    """The primitive itself, on elements' numbers: where elements go that an equation moves."""
    params = dict(equation.params)
    if Param.FILL_VALUE in params:
        params[Param.FILL_VALUE] = NONE
    arrays = [x.astype(np.int32) if x.dtype == np.int64 else x for x in operands]
    with jax.ensure_compile_time_eval():
        return [np.asarray(x, np.int64) for x in bind(equation.primitive, params, *arrays)]


def _along(own: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """What reads all of an array along some axes."""
    if not own.size:
        return np.full(tuple(n for k, n in enumerate(own.shape) if k not in axes), NONE)
    least = np.where(own < 0, np.iinfo(own.dtype).max, own).min(axes)
    most, several = own.max(axes), (own == SEVERAL).any(axes)
    several |= (most >= 0) & (least != most)
    return np.where(several, SEVERAL, np.maximum(most, NONE))


def _product(equation: Equation, operands: list[_Value], own: list[np.ndarray]) -> np.ndarray:
    """What the elements of a matrix product read: of known factors, where they are not zero."""
    (summed, batch) = equation.params[Param.DIMENSION_NUMBERS]
    left, right = (_matrices(x, s, b) for x, s, b in zip(own, summed, batch, strict=True))
    there = [np.ones_like(o.of, bool) if isinstance(o, Reads) else o != 0 for o in operands]
    masks = [_matrices(x, s, b) for x, s, b in zip(there, summed, batch, strict=True)]
    free = [
        [n for k, n in enumerate(x.shape) if k not in (*s, *b)]
        for x, s, b in zip(own, summed, batch, strict=True)
    ]
    out = np.full((left.shape[0], left.shape[1], right.shape[1]), NONE)
    for k in range(left.shape[2]):  # one summand after the other
        a, b = left[:, :, k, None], right[:, None, :, k]
        both = masks[0][:, :, k, None] & masks[1][:, None, :, k]
        out = _both([out, np.where(both, _both([a, b]), NONE)])
    lead = [own[0].shape[k] for k in batch[0]]
    return out.reshape(*lead, *free[0], *free[1])


def _matrices(x: np.ndarray, summed: Collection[int], batch: Collection[int]) -> np.ndarray:
    """[batch, free, summed]."""
    free = [k for k in range(x.ndim) if k not in (*summed, *batch)]
    sizes = [int(np.prod([x.shape[k] for k in axes])) for axes in (batch, free, summed)]
    return x.transpose(*batch, *free, *summed).reshape(sizes)


__all__ = ["MOVED", "NONE", "SEVERAL", "elements_read", "moved"]
