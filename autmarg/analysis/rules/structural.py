"""Primitives that only move entries: one rule for all of them.

Apply the primitive to arrays of row numbers instead of the operands, then re-index the terms by
the row numbers that come out. Several operands that may end up in the result (concatenate, pad,
select, scatter) are numbered one after the other. Where an index or a predicate depends on kept
latents, the result is a matrix of zeros and ones, opaque, times the operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from autmarg.analysis.domain import Affine, Opaque, array_of, as_affine, count, stacked
from autmarg.analysis.rules.arithmetic import add, broadcast
from autmarg.analysis.rules.base import AffineRule, Linear, Operand, every, first
from autmarg.analysis.rules.matrix import times_matrix
from autmarg.compat.jaxprs import Op, Param
from autmarg.ir.bounds import check_bounds
from autmarg.ir.tape import Equation

_NO_ROW = -1  # what a gather in fill mode puts where it reads outside


def _pad_operands(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    return (0, 1)


def _data(*positions: int) -> Linear:
    """Linear in the operands at ``positions``, unless one of the others is traced."""

    def linear(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
        others = (o for i, o in enumerate(operands) if i not in positions)
        return () if any(o.traced for o in others) else positions

    return linear


def _overwritten(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """scatter(operand, indices, updates); one that computes (``.at[…].apply``) moves no entries."""
    if equation.params[Param.UPDATE_JAXPR] is not None:
        return ()
    return _data(0, 2)(equation, operands)


def _cases(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """select_n(which, *cases)."""
    return _data(*range(1, len(operands)))(equation, operands)


def _extract(equation: Equation, values: list[Any], data: tuple[int, ...]) -> Any:
    others = [v for i, v in enumerate(values) if i not in data]
    if not all(isinstance(v, np.ndarray) for v in others):
        if equation.op is Op.SELECT_N:
            return select(values[0], values[1:])
        return times_matrix(equation, values, data)
    operands, starts, total, index = list(values), {}, 0, jnp.result_type(int)
    for i in data:
        n = count(values[i].shape)
        starts[i] = (total, n)
        operands[i] = np.arange(total, total + n, dtype=index).reshape(values[i].shape)
        total += n
    equation, fill = _filled(equation, values)
    with jax.ensure_compile_time_eval():
        out = equation.bind(*operands)
    dtype = np.result_type(*(values[i].dtype for i in data))
    pieces = [(values[i], *starts[i]) for i in data] + fill
    results = [_picked(np.asarray(rows), pieces, dtype) for rows in out]
    return results if equation.primitive.multiple_results else results[0]


def _filled(equation: Equation, values: list[Any]) -> tuple[Equation, list[tuple[Any, int, int]]]:
    """For a gather: one that marks rows outside, and the constant that stands there."""
    if equation.op is not Op.GATHER:
        return equation, []
    fill = equation.params[Param.FILL_VALUE]
    filling = equation.params[Param.MODE] == GatherScatterMode.FILL_OR_DROP
    if not filling or fill is None or np.isnan(fill):
        check_bounds(equation, values[1], values[0].shape)
        return equation, []
    marked = replace(equation, params={**equation.params, Param.FILL_VALUE: _NO_ROW})
    return marked, [(np.full(1, fill, float), _NO_ROW, 1)]


def _picked(rows: np.ndarray, pieces: list[tuple[Any, int, int]], dtype: Any) -> Any:
    """The array whose entries are numbered ``rows``: piece after piece from its start."""
    shape, rows = rows.shape, rows.reshape(-1)
    used = []
    for value, start, n in pieces:
        inside = (rows >= start) & (rows < start + n)
        if inside.any():
            used.append((value, np.where(inside, rows - start, 0), inside))
    if len(used) == 1 and isinstance(used[0][0], Opaque):
        value, local, _ = used[0]
        return Opaque(value.base, shape, value.rows()[local])
    if all(isinstance(value, np.ndarray) for value, _, _ in used):
        out = np.zeros(len(rows), dtype)
        for value, local, inside in used:
            out[inside] = value.reshape(-1)[local[inside]]
        return out.reshape(shape)
    if len(used) > 2:
        parts = [(as_affine(v), local[i], np.flatnonzero(i)) for v, local, i in used]
        return Affine(shape, dtype, stacked(len(rows), parts))
    terms: list[Any] = []
    for value, local, inside in used:
        terms.extend(as_affine(value).take(local, shape, inside).terms)
    return Affine(shape, dtype, tuple(terms))


def select(which: Any, cases: Sequence[Any]) -> Any:
    """``lax.select_n`` with an Opaque selector: each case where it is chosen, zero elsewhere."""
    if not any(isinstance(case, Affine) for case in cases):
        chosen = jax.lax.select_n(array_of(which), *(array_of(case) for case in cases))
        return Opaque(chosen, chosen.shape)
    shape = cases[0].shape
    which = broadcast(which, shape)
    parts = []
    for number, case in enumerate(cases):
        gate = Opaque(which.flat == number, shape, which.rows())
        parts.append(as_affine(case).where(gate))
    return add(parts, [1] * len(parts))


def _rule(ops: tuple[Op, ...], linear: Linear) -> AffineRule:
    def extract(equation: Equation, values: list[Any]) -> Any:
        return _extract(equation, values, linear(equation, [Operand.of(v) for v in values]))

    return AffineRule(ops, linear, extract, lazy=True)


MOVING = (
    Op.RESHAPE, Op.SQUEEZE, Op.EXPAND_DIMS, Op.TRANSPOSE, Op.BROADCAST_IN_DIM, Op.SLICE, Op.REV,
    Op.COPY, Op.TILE, Op.SPLIT,
)  # fmt: skip

STRUCTURAL = (
    _rule(MOVING, first),
    _rule((Op.CONCATENATE, Op.STACK), every),
    _rule((Op.PAD,), _pad_operands),
    _rule((Op.GATHER, Op.DYNAMIC_SLICE), _data(0)),
    _rule((Op.SELECT_N,), _cases),
    _rule((Op.DYNAMIC_UPDATE_SLICE,), _data(0, 1)),
    _rule((Op.SCATTER,), _overwritten),
)
