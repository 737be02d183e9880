"""Primitives that only move entries: one rule for all of them.

Apply the primitive to arrays of row numbers instead of the operands, then re-index the terms by
the row numbers that come out. Several operands that may end up in the result (concatenate, pad,
select, scatter) are numbered one after the other.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, Opaque, as_affine, count
from autmarg.analysis.rules.base import CannotExtract, Rule, every, first
from autmarg.errors import ModelError
from autmarg.ir.tape import Equation


def _bind(equation: Equation, operands: list[Any]) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        return np.asarray(equation.bind(*(jnp.asarray(o) for o in operands))[0])


def _select_cases(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    return tuple(range(1, len(equation.inputs))) if known[0] else ()


def _pad_operands(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    return (0, 1)


def _indexed(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    return (0,) if all(known[1:]) else ()


def _updated(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    """dynamic_update_slice(operand, update, *starts)."""
    return (0, 1) if all(known[2:]) else ()


def _scattered(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    """scatter(operand, indices, updates)."""
    return (0, 2) if known[1] else ()


def check_bounds(equation: Equation, index: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise where a known gather reads past the end of its operand; JAX would clamp silently."""
    numbers = equation.params["dimension_numbers"]
    sizes = equation.params["slice_sizes"]
    for k, axis in enumerate(numbers.start_index_map):
        starts = index[..., k]
        last = shape[axis] - sizes[axis]
        if starts.size and (starts.min() < 0 or starts.max() > last):
            where = f" at {equation.place}" if equation.place else ""
            bad = starts.max() if starts.max() > last else starts.min()
            raise ModelError(
                f"an index array reads outside the array it indexes{where}: found index {bad} "
                f"on an axis of length {shape[axis]}, expected -{shape[axis]} to "
                f"{shape[axis] - 1}. JAX clamps such indices silently; check the codes of the "
                "grouping factor and the group count."
            )


def _extract(equation: Equation, values: list[Any], data: tuple[int, ...]) -> Any:
    operands, starts, total = list(values), {}, 0
    for i, value in enumerate(values):
        if i in data:
            n = count(value.shape)
            starts[i] = (total, n)
            operands[i] = np.arange(total, total + n, dtype=np.int64).reshape(value.shape)
            total += n
        elif not isinstance(value, np.ndarray):
            raise CannotExtract("an index or predicate that depends on a latent")
    if equation.primitive.name == "gather":
        check_bounds(equation, np.asarray(values[1]), values[0].shape)
    picked = _bind(equation, operands)
    rows = picked.reshape(-1)
    pieces = []
    for i, (start, n) in starts.items():
        inside = (rows >= start) & (rows < start + n)
        if inside.any():
            pieces.append((values[i], np.where(inside, rows - start, 0), inside))
    if len(pieces) == 1 and isinstance(pieces[0][0], Opaque):
        value, local, _ = pieces[0]
        return Opaque(value.base, picked.shape, value.rows()[local])
    terms: list[Any] = []
    for value, local, inside in pieces:
        affine = as_affine(value)
        terms.extend(affine.take(local, picked.shape, inside).terms)
    return Affine(picked.shape, _dtype(values, data), tuple(terms))


def _dtype(values: list[Any], data: tuple[int, ...]) -> Any:
    return next(values[i].dtype for i in data)


def _rule(primitives: tuple[str, ...], linear: Any) -> Rule:
    def extract(equation: Equation, values: list[Any]) -> Any:
        known = [isinstance(v, np.ndarray) for v in values]
        return _extract(equation, values, linear(equation, known))

    return Rule(primitives, linear, extract, lazy=True)


STRUCTURAL = (
    _rule(
        (
            "reshape",
            "squeeze",
            "expand_dims",
            "transpose",
            "broadcast_in_dim",
            "slice",
            "rev",
            "copy",
            "tile",
        ),
        first,
    ),
    _rule(("concatenate", "stack"), every),
    _rule(("pad",), _pad_operands),
    _rule(("gather", "dynamic_slice"), _indexed),
    _rule(("select_n",), _select_cases),
    _rule(("dynamic_update_slice",), _updated),
    _rule(("scatter",), _scattered),
)
