"""Sums, differences, products, quotients, conversions and parts of complex numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import (
    Affine,
    Lookup,
    Opaque,
    Term,
    as_affine,
    coefficients,
    count,
)
from autmarg.analysis.rules.base import AffineRule, Operand, every, first, no_product
from autmarg.compat.jaxprs import Op, Param
from autmarg.ir.tape import Equation

_MANY = 4  # terms above which like ones are merged
_SHORT = 256  # elements up to which opaque coefficients are summed one by one, as in a Python loop


def add(values: Sequence[Any], factors: Sequence[complex]) -> Affine:
    """Σ factor · value, operands of one element broadcast."""
    shape = np.broadcast_shapes(*(v.shape for v in values))
    terms: list[Term] = []
    for value, factor in zip(values, factors, strict=True):
        affine = as_affine(broadcast(value, shape))
        terms.extend(affine.terms if factor == 1 else affine.times(np.full((), factor)).terms)
    total = Affine(shape, np.result_type(*(v.dtype for v in values)), tuple(terms))
    if len(terms) <= _MANY:
        return total
    return total.merged().collapsed() if total.size <= _SHORT else total.merged()


def broadcast(value: Any, shape: tuple[int, ...]) -> Any:
    """An operand of one element broadcast to ``shape``; others have that shape already."""
    if value.shape == shape:
        return value
    rows = np.broadcast_to(np.arange(count(value.shape)).reshape(value.shape), shape)
    if isinstance(value, Affine):
        return value.take(rows, shape)
    if isinstance(value, Opaque):
        return Opaque(value.base, shape, value.rows()[rows.reshape(-1)])
    return np.broadcast_to(value, shape)


def _add(equation: Equation, values: list[Any]) -> Affine:
    return add(values, (1, 1))


def _sub(equation: Equation, values: list[Any]) -> Affine:
    return add(values, (1, -1))


def _neg(equation: Equation, values: list[Any]) -> Affine:
    return values[0].times(np.full((), -1.0))


def multiply(left: Any, right: Any) -> Affine:
    """The product of two values, one of which is Affine."""
    no_product([left, right])
    if isinstance(right, Affine):
        left, right = right, left
    shape = np.broadcast_shapes(left.shape, right.shape)
    return broadcast(left, shape).times(broadcast(right, shape))


def _mul(equation: Equation, values: list[Any]) -> Affine:
    return multiply(*values)


def _div(equation: Equation, values: list[Any]) -> Affine:
    numerator, denominator = values
    if isinstance(denominator, Opaque):
        return multiply(numerator, replace(denominator, base=1.0 / denominator.base))
    with np.errstate(divide="ignore"):
        return multiply(numerator, 1.0 / coefficients(denominator))


def _first_power(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    return (0,) if equation.params[Param.Y] == 1 else ()


def _power_of_one(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """pow(x, exponent) with exponents that are known to be one."""
    exponent = operands[1].value
    return (0,) if exponent is not None and (np.asarray(exponent) == 1).all() else ()


def _broadcast_base(equation: Equation, values: list[Any]) -> Affine:
    return broadcast(values[0], np.broadcast_shapes(values[0].shape, values[1].shape))


def _widening(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """A conversion that does not round; complex to real takes the real part."""
    old, new = (np.dtype(d) for d in (operands[0].dtype, equation.params[Param.NEW_DTYPE]))
    if not jnp.issubdtype(new, jnp.inexact):
        return ()
    if not jnp.issubdtype(old, jnp.inexact):
        return (0,)
    return (0,) if jnp.finfo(new).bits >= jnp.finfo(old).bits else ()


def _convert(equation: Equation, values: list[Any]) -> Affine:
    new = np.dtype(equation.params[Param.NEW_DTYPE])
    part = values[0] if _is_complex(new) else real_part(values[0])
    return replace(part, dtype=new)


def _same(equation: Equation, values: list[Any]) -> Affine:
    return values[0]


def real_part(value: Affine, factor: complex = 1) -> Affine:
    """Re(factor · value): the columns are real, so it is that of each coefficient."""
    if not _is_complex(value.dtype):
        return value
    terms: list[Term] = []
    for term in value.terms:
        known = term.known * factor
        if term.lookup is None or not jnp.iscomplexobj(term.lookup.base):
            terms.append(replace(term, known=known.real))
            continue
        real, imag = jnp.real(term.lookup.base), jnp.imag(term.lookup.base)
        terms.append(replace(term, known=known.real, lookup=Lookup(real, term.lookup.index)))
        terms.append(replace(term, known=-known.imag, lookup=Lookup(imag, term.lookup.index)))
    return Affine(value.shape, np.empty(0, value.dtype).real.dtype, tuple(terms))


def imaginary_part(value: Affine) -> Affine:
    """Im value = Re(-i · value)."""
    return real_part(value, -1j)


def _real(equation: Equation, values: list[Any]) -> Affine:
    return real_part(values[0])


def _imag(equation: Equation, values: list[Any]) -> Affine:
    return imaginary_part(values[0])


def _complex(equation: Equation, values: list[Any]) -> Affine:
    return replace(add(values, (1, 1j)), dtype=_complex_dtype(values[0].dtype))


def _conj(equation: Equation, values: list[Any]) -> Affine:
    (value,) = values
    parts = (real_part(value), imaginary_part(value)) if _is_complex(value.dtype) else (value,)
    return replace(add(parts, (1, -1j)[: len(parts)]), dtype=_complex_dtype(value.dtype))


def _is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _complex_dtype(dtype: Any) -> np.dtype:
    return np.result_type(dtype, np.complex64)


ARITHMETIC = (
    AffineRule((Op.ADD, Op.ADD_ANY), every, _add),
    AffineRule((Op.SUB,), every, _sub),
    AffineRule((Op.NEG,), first, _neg),
    AffineRule((Op.MUL,), every, _mul, bilinear=(0, 1)),
    AffineRule((Op.DIV,), first, _div),
    AffineRule((Op.INTEGER_POW,), _first_power, _same),
    AffineRule((Op.POW,), _power_of_one, _broadcast_base),
    AffineRule((Op.CONVERT_ELEMENT_TYPE,), _widening, _convert),
    AffineRule((Op.COPY_P, Op.OPTIMIZATION_BARRIER), first, _same),
    AffineRule((Op.REAL,), first, _real),
    AffineRule((Op.IMAG,), first, _imag),
    AffineRule((Op.CONJ,), first, _conj),
    AffineRule((Op.COMPLEX,), every, _complex),
)
