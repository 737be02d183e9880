"""Linear primitives without structure of their own: the matrix comes from basis vectors.

With known other operands the matrix is concrete, and rows of few non-zeros are kept as such. With
opaque ones it is traced, one opaque number for each of its entries, except that a second factor
(a kernel) with few entries gives one concrete matrix for each of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, Opaque, array_of, count
from autmarg.analysis.rules.arithmetic import add, imaginary_part, real_part
from autmarg.analysis.rules.base import AffineRule, Linear, Operand, check_summands, no_product
from autmarg.analysis.rules.contraction import contract, linear_map
from autmarg.compat.jaxprs import Op, Param
from autmarg.ir.tape import Equation

_FEW = 64  # entries of an opaque factor up to which each has a concrete matrix


def times_matrix(equation: Equation, values: list[Any], data: Sequence[int]) -> Affine:
    """A primitive that is jointly linear in the operands ``data``, by its matrix in each."""
    out = jax.eval_shape(lambda *a: equation.bind(*a)[0], *(_aval(v) for v in values))
    parts: list[Any] = []
    rest = [
        np.zeros(v.shape, v.dtype) if isinstance(v, Affine) and i in data else v
        for i, v in enumerate(values)
    ]
    for i in data:
        if isinstance(values[i], Affine):
            zeros = [np.zeros(v.shape, v.dtype) if j in data else v for j, v in enumerate(rest)]
            parts.extend(_one(equation, zeros, i, values[i], out))
    if any(not isinstance(values[i], Affine) for i in data):
        parts.append(_apply(equation, rest, out))
    return add(parts, [1] * len(parts))


def _one(equation: Equation, others: list[Any], i: int, value: Affine, out: Any) -> list[Affine]:
    """The matrix in operand ``i`` times ``value``; real and imaginary parts have one each."""
    if not jnp.issubdtype(value.dtype, jnp.complexfloating):
        return [_product(equation, others, i, value, out, 1.0)]
    real, imag = real_part(value), imaginary_part(value)
    return [
        _product(equation, others, i, real, out, 1.0),
        _product(equation, others, i, imag, out, 1j),
    ]


def _product(
    equation: Equation, others: list[Any], i: int, value: Affine, out: Any, unit: complex
) -> Affine:
    n, m = value.size, count(out.shape)
    check_summands(n * m)
    basis = unit * np.eye(n).reshape(n, *value.shape)

    def columns(*operands: Any) -> Any:
        operand = jnp.asarray(basis, others[i].dtype)

        def image(e: Any) -> Any:
            return equation.bind(*operands[:i], e, *operands[i + 1 :])[0]

        return jnp.reshape(jax.vmap(image)(operand), (n, m)).T

    matrix = evaluate(columns, others)
    flat = Affine((n,), value.dtype, value.terms)
    product = linear_map(matrix, flat)
    return Affine(out.shape, out.dtype, product.terms)


def _apply(equation: Equation, values: list[Any], out: Any) -> Any:
    result = evaluate(lambda *operands: equation.bind(*operands)[0], values)
    assert result.shape == out.shape
    return result


def evaluate(function: Any, values: list[Any]) -> Any:
    """``function`` of Known and Opaque values: Known where all of them are."""
    if all(isinstance(v, np.ndarray) for v in values):
        with jax.ensure_compile_time_eval():
            return np.asarray(function(*(jnp.asarray(v) for v in values)))
    result = function(*map(array_of, values))
    return Opaque(result, result.shape)


def _aval(value: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _at(*positions: int) -> Linear:
    return lambda equation, operands: positions


def _by_matrix(ops: tuple[Op, ...], linear: Linear) -> AffineRule:
    def extract(equation: Equation, values: list[Any]) -> Affine:
        return times_matrix(equation, values, linear(equation, [Operand.of(v) for v in values]))

    return AffineRule(ops, linear, extract)


def _factors(ops: tuple[Op, ...], left: int, right: int) -> AffineRule:
    """Products with a rule of their own for how entries meet: convolutions, sparse matrices."""

    def extract(equation: Equation, values: list[Any]) -> Affine:
        no_product([values[left], values[right]])
        i, j = (left, right) if isinstance(values[left], Affine) else (right, left)
        other = values[j]
        if not isinstance(other, Opaque) or other.entries > _FEW:
            return times_matrix(equation, values, (i,))
        parts = []
        for k in range(other.entries):
            indicator = (other.rows() == k).reshape(other.shape).astype(other.dtype)
            part = times_matrix(equation, [*values[:j], indicator, *values[j + 1 :]], (i,))
            parts.append(part.times(Opaque(other.flat, (1,), np.array([k]))))
        return add(parts, [1] * len(parts)).merged()

    return AffineRule(ops, _at(left, right), extract, bilinear=(left, right))


def _triangular_solve(equation: Equation, values: list[Any]) -> Affine:
    """A⁻¹ B or B A⁻¹: the inverse, then the rule for products."""
    a, b = values
    eye = np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape)
    inverse = evaluate(lambda *operands: equation.bind(*operands)[0], [a, eye])
    k = len(b.shape) - 2
    batch = tuple(range(k))
    if equation.params[Param.LEFT_SIDE]:
        return contract(inverse, b, (((k + 1,), (k,)), (batch, batch)))
    return contract(b, inverse, (((k + 1,), (k,)), (batch, batch)))


def _right_hand_sides(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """custom_linear_solve(*constants, *right-hand sides)."""
    return tuple(range(sum(equation.params[Param.CONST_LENGTHS]), len(operands)))


MATRIX = (
    AffineRule((Op.TRIANGULAR_SOLVE,), _at(1), _triangular_solve),
    _by_matrix((Op.CUSTOM_LINEAR_SOLVE,), _right_hand_sides),
    _by_matrix((Op.FFT, Op.REDUCE_WINDOW_SUM), _at(0)),
    _factors((Op.CONV_GENERAL_DILATED,), 0, 1),
    _factors((Op.BCOO_DOT_GENERAL,), 0, 2),
)
