"""Sums, other reductions and products, for each class of rows."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.aggregation.sums import as_sum, reshaped
from autmarg.aggregation.values import Elements, Known, Sum, Value, labels, pays
from autmarg.aggregation.writer import Writer, scaled, taken
from autmarg.compat.jaxprs import Op, Param, bind
from autmarg.gaussian.classes import joined
from autmarg.ir.tape import Equation

_ALONG = 512  # elements of a row from which equal rows are not looked for
REDUCED = frozenset({
    Op.REDUCE_SUM, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.REDUCE_PROD, Op.REDUCE_AND, Op.REDUCE_OR,
})  # fmt: skip


def reduced(writer: Writer, equation: Equation, operands: list[Value]) -> Value | None:
    """A reduction along some axes; None where it is not followed."""
    axes = tuple(equation.params[Param.AXES])
    (value,) = operands
    aval = writer.tape.avals[equation.outputs[0]]
    if isinstance(value, Known) or not axes or not math.prod(value.shape):
        return None
    if math.prod(value.shape[k] for k in axes) == 1:
        return reshaped(value, aval.shape)
    if equation.op is Op.REDUCE_SUM and jnp.issubdtype(aval.dtype, jnp.floating):
        return _added(writer, equation, as_sum(value, value.shape), axes)
    own = writer.elements(value)
    return None if own.index is None else _of_rows(writer, equation, own, axes)


def _added(writer: Writer, equation: Equation, whole: Sum, axes: tuple[int, ...]) -> Value:
    """Σ along some axes, term by term."""
    aval, add = writer.tape.avals[equation.outputs[0]], partial(_summed, writer, equation, axes)
    terms = tuple((np.ones(()), add(w, e)) for w, e in whole.terms)
    known = np.broadcast_to(whole.known, whole.shape).sum(axes)
    found = Sum(terms, known, aval.shape)
    return found if aval.shape else writer.elements(found)


def _summed(
    writer: Writer, equation: Equation, axes: tuple[int, ...], weight: np.ndarray, own: Elements
) -> Elements:
    """Σ weight · elements along some axes."""
    aval = writer.tape.avals[equation.outputs[0]]
    if own.index is not None and len(axes) < len(own.shape):
        return _of_rows(writer, equation, own, axes, weight)
    if own.index is None:
        number = writer.write(lambda x: jnp.sum(scaled(weight, x), axes), [own.number], equation)
        return Elements(number, aval.shape)
    size, each = writer.size(own.number), np.broadcast_to(weight, own.shape).reshape(-1)
    total = np.bincount(own.classes, each, size).astype(aval.dtype)
    used = np.flatnonzero(np.bincount(own.classes, minlength=size))
    if len(used) == size:
        number = writer.write(lambda x: jnp.vdot(total, x), [own.number], equation)
    else:
        some = total[used]
        number = writer.write(lambda x: jnp.vdot(some, taken(x, used)), [own.number], equation)
    return Elements(number, aval.shape)


def _of_rows(
    writer: Writer, equation: Equation, own: Elements, axes: tuple[int, ...],
    weight: np.ndarray | None = None,
) -> Elements:  # fmt: skip
    """A reduction of the rows along some axes, with weights if it is a sum, once for equal ones."""
    shape = writer.tape.avals[equation.outputs[0]].shape
    index, keys = _as_rows(own.classes.reshape(own.shape), axes), []
    scale = weight
    if weight is not None and weight.ndim:
        scale = _as_rows(np.broadcast_to(weight, own.shape), axes)
        keys = list(labels(scale).reshape(scale.shape).T)
    keys = [*index.T, *keys] if index.shape[1] <= _ALONG else []
    first, classes = joined(keys or [np.arange(len(index))])
    few = pays(len(first), len(index))
    picked = index[first] if few else index
    if scale is not None and scale.ndim and few:
        scale = scale[first]

    def run(x: Any) -> Any:
        rows = taken(x, picked)
        if scale is not None:
            out = jnp.sum(scaled(scale, rows), -1)
        else:
            out = bind(equation.primitive, {**equation.params, Param.AXES: (1,)}, rows)[0]
        return out if few else out.reshape(shape)

    number = writer.write(run, [own.number], equation)
    return Elements(number, shape, classes.reshape(shape) if few else None)


def product(writer: Writer, equation: Equation, operands: list[Value]) -> Elements | None:
    """A known matrix times a value: equal rows of the matrix once."""
    (summed, batch) = equation.params[Param.DIMENSION_NUMBERS]
    known = [k for k, o in enumerate(operands) if isinstance(o, Known)]
    if batch[0] or len(known) != 1:
        return None
    (left,) = known
    matrix, other = operands[left], operands[1 - left]
    assert isinstance(matrix, Known)
    rows = _as_rows(matrix.array, tuple(summed[left]))
    if not rows.size or rows.shape[1] > _ALONG:
        return None
    first, classes = joined([labels(column) for column in rows.T])
    if not pays(len(first), len(rows)):
        return None
    aval, few = writer.tape.avals[equation.outputs[0]], rows[first]
    axes = tuple(summed[1 - left])
    free = [n for k, n in enumerate(other.shape) if k not in axes]

    def run(x: Any) -> Any:
        return (few @ _columns(x, axes)).reshape(-1).astype(aval.dtype)

    number, width = writer.write(run, [writer.plain(other)], equation), math.prod(free)
    index = classes[:, None] * width + np.arange(width)
    index = (index if left == 0 else index.T).reshape(aval.shape)
    return Elements(number, aval.shape, index)


def _as_rows(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """[the other axes, these axes]."""
    kept = [k for k in range(array.ndim) if k not in axes]
    rows = math.prod(array.shape[k] for k in kept)
    return array.transpose(*kept, *axes).reshape(rows, -1)


def _columns(x: Any, axes: tuple[int, ...]) -> Any:
    """[these axes, the others]."""
    kept = [k for k in range(x.ndim) if k not in axes]
    count = math.prod(x.shape[k] for k in axes)
    return x.transpose(*axes, *kept).reshape(count, -1)


__all__ = ["REDUCED", "product", "reduced"]
