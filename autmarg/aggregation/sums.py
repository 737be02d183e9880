"""Weighted sums of elements, and the operations that keep them so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autmarg.aggregation.values import Elements, Known, Sum, Value, labels
from autmarg.compat.jaxprs import Op
from autmarg.gaussian.classes import joined


def classes_of(value: Sum) -> tuple[np.ndarray, np.ndarray]:
    """Elements of a sum by all that they are functions of."""
    keys = [e.classes for _, e in value.terms]
    arrays = [w for w in (*(w for w, _ in value.terms), value.known) if w.ndim]
    return joined([*keys, *(labels(np.broadcast_to(w, value.shape)) for w in arrays)])


def spread(value: Value, shape: tuple[int, ...], one: bool = False) -> Value:
    """An operand in the shape of the result; single numbers only if ``one`` is set."""

    def wider(own: Elements) -> Elements:
        index = np.broadcast_to(own.classes.reshape(own.shape), shape)
        return Elements(own.number, shape, index)

    if value.shape == shape or (math.prod(value.shape) == 1 and not one):
        return value
    if isinstance(value, Known):
        return Known(np.broadcast_to(value.array, shape))
    if isinstance(value, Elements):
        return wider(value)
    elements = (wider(e) for _, e in value.terms)
    return value.mapped(elements, lambda w: np.broadcast_to(w, shape), shape)


def reshaped(value: Elements | Sum, shape: tuple[int, ...]) -> Elements | Sum:
    """The same elements, in their order."""

    def in_order(own: Elements) -> Elements:
        return Elements(own.number, shape, own.classes.reshape(shape))

    if isinstance(value, Elements):
        return in_order(value)
    elements = (in_order(e) for _, e in value.terms)
    return value.mapped(elements, lambda w: w.reshape(shape), shape)


def is_linear(op: Op, operands: Sequence[Value]) -> bool:
    """Whether an operation is linear in all that is not known of its operands."""
    known = [isinstance(o, Known) for o in operands]
    if op in (Op.ADD, Op.SUB, Op.ADD_ANY, Op.NEG):
        return True
    return (op is Op.MUL and any(known)) or (op is Op.DIV and known[1])


def combined(op: Op, operands: Sequence[Value], shape: tuple[int, ...]) -> Sum | None:
    """A linear operation on sums."""
    if op in (Op.MUL, Op.DIV):
        (factor,) = (o.array for o in operands if isinstance(o, Known))
        (value,) = (o for o in operands if not isinstance(o, Known))
        with np.errstate(divide="ignore"):
            factor = np.asarray(factor, float) if op is Op.MUL else 1 / np.asarray(factor, float)
        if not np.isfinite(factor).all():
            return None
        factor = first_of(factor) if is_uniform(factor) else factor
        own = as_sum(value, shape)
        return Sum(tuple((w * factor, e) for w, e in own.terms), own.known * factor, shape)
    parts = [as_sum(o, shape) for o in operands]
    signs = [-1.0 if op is Op.NEG or (op is Op.SUB and k) else 1.0 for k in range(len(parts))]
    terms: dict[Elements, np.ndarray] = {}
    for sign, part in zip(signs, parts, strict=True):
        for w, e in part.terms:
            terms[e] = terms[e] + sign * w if e in terms else sign * w
    known = sum((s * p.known for s, p in zip(signs, parts, strict=True)), np.zeros(()))
    return Sum(tuple((np.asarray(w), e) for e, w in terms.items()), np.asarray(known), shape)


def as_sum(value: Value, shape: tuple[int, ...]) -> Sum:
    """A value as a sum of one term, if it is none."""
    if isinstance(value, Known):
        array = np.asarray(value.array, float)
        return Sum((), first_of(array) if is_uniform(array) else array, shape)
    if isinstance(value, Elements):
        return Sum(((np.ones(()), value),), np.zeros(()), shape)
    return value


def is_uniform(array: np.ndarray) -> bool:
    """Whether all elements are the same number."""
    return bool(array.size) and bool((array == array.flat[0]).all())


def first_of(array: np.ndarray) -> np.ndarray:
    """The first element, without axes."""
    return np.asarray(array.flat[0])


__all__ = [
    "as_sum", "classes_of", "combined", "first_of", "is_linear", "is_uniform", "reshaped", "spread",
]  # fmt: skip
