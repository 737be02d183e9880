"""Sums, differences, products and quotients."""

from __future__ import annotations

from typing import Any

import numpy as np

from autmarg.analysis.domain import Affine, Opaque, as_affine, count
from autmarg.analysis.rules.base import CannotExtract, Rule, every, first
from autmarg.ir.tape import Equation


def _broadcast(value: Any, shape: tuple[int, ...]) -> Any:
    """An operand of one element spread over ``shape``; others have that shape already."""
    if value.shape == shape:
        return value
    rows = np.broadcast_to(np.arange(count(value.shape)).reshape(value.shape), shape)
    if isinstance(value, Affine):
        return value.take(rows, shape)
    if isinstance(value, Opaque):
        return Opaque(value.base, shape, value.rows()[rows.reshape(-1)])
    return np.broadcast_to(value, shape)


def _sum(values: list[Any], signs: tuple[float, ...]) -> Affine:
    shape = np.broadcast_shapes(*(v.shape for v in values))
    terms = []
    for value, sign in zip(values, signs, strict=True):
        affine = as_affine(_broadcast(value, shape))
        terms.extend(affine.terms if sign == 1 else affine.times(np.full((), sign)).terms)
    return Affine(shape, values[0].dtype, tuple(terms))


def _add(equation: Equation, values: list[Any]) -> Affine:
    return _sum(values, (1.0, 1.0))


def _sub(equation: Equation, values: list[Any]) -> Affine:
    return _sum(values, (1.0, -1.0))


def _neg(equation: Equation, values: list[Any]) -> Affine:
    return values[0].times(np.full((), -1.0))


def _mul(equation: Equation, values: list[Any]) -> Affine:
    left, right = values
    if isinstance(right, Affine):
        left, right = right, left
    if isinstance(right, Affine):
        raise CannotExtract("a product of two latents that are both to be integrated out")
    shape = np.broadcast_shapes(left.shape, right.shape)
    return _broadcast(left, shape).times(_broadcast(right, shape))


def _div(equation: Equation, values: list[Any]) -> Affine:
    numerator, denominator = values
    if isinstance(denominator, Affine):
        raise CannotExtract("a division by a latent that is to be integrated out")
    if isinstance(denominator, Opaque):
        inverse: Any = Opaque(1.0 / denominator.base, denominator.shape, denominator.index)
    else:
        with np.errstate(divide="ignore"):
            inverse = 1.0 / np.asarray(denominator, np.float64)
    return _mul(equation, [numerator, inverse])


def _first_power(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    return (0,) if equation.params["y"] == 1 else ()


def _to_float(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    return (0,) if np.issubdtype(equation.params["new_dtype"], np.floating) else ()


def _convert(equation: Equation, values: list[Any]) -> Affine:
    return Affine(values[0].shape, equation.params["new_dtype"], values[0].terms)


def _same(equation: Equation, values: list[Any]) -> Affine:
    return values[0]


ARITHMETIC = (
    Rule(("add", "add_any"), every, _add),
    Rule(("sub",), every, _sub),
    Rule(("neg",), first, _neg),
    Rule(("mul",), every, _mul, bilinear=True),
    Rule(("div",), first, _div),
    Rule(("integer_pow",), _first_power, _same),
    Rule(("convert_element_type",), _to_float, _convert),
    Rule(("copy_p", "real", "reduce_precision", "optimization_barrier"), first, _same),
)
