"""Scatters that combine: sums within segments, and ``.at[…].add``, ``subtract``, ``multiply``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, as_affine, count
from autmarg.analysis.rules.arithmetic import add, multiply
from autmarg.analysis.rules.base import AffineRule, Operand, check_summands
from autmarg.analysis.rules.contraction import fold
from autmarg.analysis.rules.matrix import evaluate, times_matrix
from autmarg.compat.jaxprs import Op
from autmarg.gaussian.ragged import ranks
from autmarg.ir.tape import Equation


def _summands(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """scatter-add(operand, indices, updates)."""
    return () if operands[1].traced else (0, 2)


def _scattered_sum(sign: int) -> Any:
    def extract(equation: Equation, values: list[Any]) -> Affine:
        operand, indices, updates = values
        if not isinstance(indices, np.ndarray):
            return times_matrix(equation, values, (0, 2))
        targets = _targets(equation, indices, operand.shape, updates.shape)
        moved = _sum_by_target(as_affine(updates), targets, operand.shape)
        return add([operand, moved], [1, sign])

    return extract


def _targets(
    equation: Equation, indices: np.ndarray, shape: tuple[int, ...], updates: tuple[int, ...]
) -> np.ndarray:
    """Row of the result to which each element of the updates is added; -1 where it is dropped.

    The transpose of a scatter is a gather, here of row numbers counted from 1.
    """
    zeros = jnp.zeros(shape)
    sign = 1 if equation.op is Op.SCATTER_ADD else -1
    with jax.ensure_compile_time_eval():
        transpose = jax.linear_transpose(
            lambda u: equation.bind(zeros, jnp.asarray(indices), sign * u)[0], jnp.zeros(updates)
        )
        (rows,) = transpose(1.0 + jnp.arange(count(shape), dtype=zeros.dtype).reshape(shape))
    return np.asarray(rows).reshape(-1).astype(np.int64) - 1


def _sum_by_target(value: Affine, targets: np.ndarray, shape: tuple[int, ...]) -> Affine:
    """Rows added up by target."""
    kept = np.flatnonzero(targets >= 0)
    order = kept[np.argsort(targets[kept], kind="stable")]
    counts = np.bincount(targets[order], minlength=count(shape))
    width = int(counts.max(initial=0))
    check_summands(len(counts) * width)
    within = ranks(counts)
    groups, used = np.zeros((len(counts), width), np.int64), np.zeros((len(counts), width))
    groups[targets[order], within] = order
    used[targets[order], within] = 1.0
    terms = (fold(t, groups).times(np.repeat(used, t.width, axis=1)) for t in value.terms)
    return Affine(shape, value.dtype, tuple(terms)).merged()


def _base(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """scatter-mul(operand, indices, updates): elements of the updates may meet."""
    return () if operands[1].traced else (0,)


def _scattered_product(equation: Equation, values: list[Any]) -> Affine:
    operand, indices, updates = values
    ones = np.ones(operand.shape, operand.dtype)
    return multiply(operand, evaluate(lambda *a: equation.bind(*a)[0], [ones, indices, updates]))


SCATTER = (
    AffineRule((Op.SCATTER_ADD,), _summands, _scattered_sum(1)),
    AffineRule((Op.SCATTER_SUB,), _summands, _scattered_sum(-1)),
    AffineRule((Op.SCATTER_MUL,), _base, _scattered_product),
)
