"""Known integers that JAX would wrap to other numbers in a narrower type, without a word."""

from __future__ import annotations

import numpy as np

from autmarg.compat.jaxprs import Op, Param
from autmarg.errors import ModelError
from autmarg.ir.program import Program
from autmarg.ir.tape import Equation, Tape

# What is done to indices on the way to a lookup: sums of two numbers are the largest of it.
_PLAIN = (
    Op.ADD, Op.BROADCAST_IN_DIM, Op.CONCATENATE, Op.CONVERT_ELEMENT_TYPE, Op.LT, Op.GE, Op.RESHAPE,
    Op.SELECT_N, Op.SQUEEZE, Op.SLICE, Op.TRANSPOSE,
)  # fmt: skip


def check_widths(program: Program) -> None:
    """Raise where known integers do not fit the type to which they are converted.

    JAX looks arrays up by 32-bit integers, in a session with 64 bits, too: of identifiers beyond
    them it keeps the last 32 bits, which are a valid index as often as not.

    Raises:
        ModelError: there are some.
    """
    tape = program.tape
    narrowed = [e for e in tape.slice(_numbers(program)) if _narrows(tape, e)]
    doubtful = [e for e in narrowed if not _small(tape, e)]
    if not doubtful:
        return
    values = tape.known([e.inputs[0] for e in doubtful])
    for equation in doubtful:
        value, new = values[equation.inputs[0]], np.iinfo(equation.params[Param.NEW_DTYPE])
        if value.size and (value.min() < new.min or value.max() > new.max):
            where = f" at {equation.place}" if equation.place else ""
            raise ModelError(
                f"found integers beyond {new.bits} bits{where} ({value.min()} to {value.max()}), "
                "which JAX wraps to other numbers: expected codes 0, 1, … (codes = "
                "np.unique(ids, return_inverse=True)[1])"
            )


def _numbers(program: Program) -> list[int]:
    return [v for node in program.nodes for v in node.numbers]


def _narrows(tape: Tape, equation: Equation) -> bool:
    """Whether an equation puts known integers into a narrower integer type."""
    if equation.op is not Op.CONVERT_ELEMENT_TYPE or tape.dependencies(equation.inputs):
        return False
    old = np.dtype(tape.avals[equation.inputs[0]].dtype)
    new = np.dtype(equation.params[Param.NEW_DTYPE])
    return old.kind in "iu" and new.kind in "iu" and old.itemsize > new.itemsize


def _small(tape: Tape, equation: Equation) -> bool:
    """Whether a glance at the constants behind it says that the integers fit."""
    behind = tape.slice(equation.inputs)
    if any(e.op not in _PLAIN for e in behind):
        return False
    limit = np.iinfo(equation.params[Param.NEW_DTYPE]).max // 2 ** (
        1 + sum(e.op is Op.ADD for e in behind)
    )
    read = {v for e in (*behind, equation) for v in e.inputs} & set(tape.constants)
    arrays = [np.asarray(tape.constants[v]) for v in read]
    return all(a.dtype.kind not in "iu" or not a.size or _size(a) <= limit for a in arrays)


def _size(array: np.ndarray) -> int:
    return max(int(array.max()), -int(array.min()))


__all__ = ["check_widths"]
