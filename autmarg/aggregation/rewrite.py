"""A tape whose equations work on classes of equal elements instead of on all of them.

A domain for :meth:`autmarg.ir.tape.Tape.interpret` that writes as it goes. Elements that are moved
(indexed, broadcast, reshaped) move their classes and cost nothing; an operation element by element
is done once for each class of operands that are met together; sums stay sums of such terms, so that

    Σᵢ wᵢ f(s_{c(i)}) = Σ_c f(s_c) Σ_{i: c(i) = c} wᵢ

has its weights added up here, whatever the data are that they come from: binary rows of equal
predictors become binomial ones. What is not followed is done as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.aggregation.elementwise import derivative, is_elementwise, with_derivative
from autmarg.aggregation.reductions import REDUCED, product, reduced
from autmarg.aggregation.sums import combined, is_linear, is_uniform, spread
from autmarg.aggregation.values import (
    Elements,
    Known,
    Sum,
    Value,
    compacted,
    joined,
    labels,
    pays,
)
from autmarg.aggregation.writer import Writer
from autmarg.analysis.elements import MOVED, NONE
from autmarg.analysis.elements import moved as moved_in_jax
from autmarg.compat.jaxprs import ELEMENTWISE, Op, body_of
from autmarg.ir.tape import Equation, Tape

_MANY = 8  # terms from which a sum is written
_MOVED = MOVED - {Op.SPLIT} | {Op.GATHER, Op.DYNAMIC_SLICE}
_TOGETHER = frozenset({Op.CONCATENATE, Op.PAD, Op.STACK})


def by_classes(tape: Tape, output: int) -> tuple[Tape, int]:
    """A tape, and a number on it, that is the value of a number on another.

    Args:
        tape: with what is known folded.
        output: number of an array.
    """
    writer = _Rewriter(tape)
    plain = {v: c for v, c in tape.constants.items() if isinstance(c, np.ndarray)}
    values: dict[int, Value] = {v: Known(c, v) for v, c in plain.items()}
    for number in (*tape.inputs.values(), *tape.constants):  # (keys, and arrays on many devices)
        values.setdefault(number, Elements(number, tape.avals[number].shape))
    (found,) = tape.interpret([output], values, writer.step)
    number = writer.plain(found)
    return writer.builder.tape(tape.inputs), number


class _Rewriter(Writer):
    """What each equation makes of classes of values."""

    def step(self, equation: Equation, operands: list[Value]) -> list[Value]:
        """What an equation makes of its operands."""
        if all(isinstance(o, Known) for o in operands):
            arrays = (o.array for o in operands if isinstance(o, Known))
            with jax.ensure_compile_time_eval():
                made = [np.asarray(x) for x in equation.bind(*arrays)]
            return [Known(x, v) for x, v in zip(made, equation.outputs, strict=True)]
        op = equation.op
        found: Value | None = None
        if (chosen := _chosen(equation, operands)) is not None:
            return [chosen]
        if op in ELEMENTWISE:
            shape = self.tape.avals[equation.outputs[0]].shape
            alike = [spread(o, shape) for o in operands]
            found = self._linear(equation, alike) or self._elementwise(equation, alike)
        elif op is Op.CUSTOM_JVP_CALL:
            return self._with_derivative(equation, operands)
        elif op in REDUCED:
            found = reduced(self, equation, operands)
        elif op in _TOGETHER:
            found = self._together(equation, operands)
        elif op in _MOVED and _is_followed(operands):
            found = self._moved(equation, operands)
        elif op is Op.DOT_GENERAL:
            found = product(self, equation, operands)
        return [found] if found is not None else self.as_it_was(equation, operands)

    # Element by element

    def _linear(self, equation: Equation, operands: list[Value]) -> Sum | None:
        """A sum that would have more classes than its terms, left as it is."""
        aval = self.tape.avals[equation.outputs[0]]
        if not jnp.issubdtype(aval.dtype, jnp.floating) or not is_linear(equation.op, operands):
            return None
        if not any(isinstance(o, Sum) for o in operands):
            alike = [spread(o, aval.shape, one=True) for o in operands]
            unknown = [o.classes for o in alike if isinstance(o, Elements)]
            keys = [*unknown, *(labels(o.array) for o in alike if isinstance(o, Known))]
            fewest = min(len(compacted(k)[0]) for k in unknown)
            if len(joined(keys)[0]) <= fewest:
                return None
        alike = [spread(o, aval.shape, one=True) for o in operands]
        found = combined(equation.op, alike, aval.shape)
        return found if found is None or len(found.terms) <= _MANY else None

    def _classes(
        self, operands: Sequence[Value], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Elements of one shape by all that they are functions of."""
        keys = [
            labels(o.array) if isinstance(o, Known) else self.elements(o).classes
            for o in operands
            if o.shape == shape
        ]
        return joined(keys or [np.zeros(math.prod(shape), np.int64)])

    def _elementwise(self, equation: Equation, operands: list[Value]) -> Elements | None:
        """One operation for each class of its operands."""
        shape = self.tape.avals[equation.outputs[0]].shape
        operands = [o if isinstance(o, Known) else self.elements(o) for o in operands]
        first, classes = self._classes(operands, shape)
        if not pays(len(first), math.prod(shape)):
            return None
        numbers = [self.operand(o, first, shape) for o in operands]
        number = self.write(lambda *xs: equation.bind(*xs)[0], numbers, equation)
        return Elements(number, shape, classes.reshape(shape))

    def _with_derivative(self, equation: Equation, operands: list[Value]) -> list[Value]:
        """A call with a derivative of its own, for each class of its operands."""
        body, avals = body_of(equation.params), [self.tape.avals[v] for v in equation.inputs]
        shapes = {self.tape.avals[v].shape for v in equation.outputs}
        real = all(jnp.issubdtype(a.dtype, jnp.inexact) for a in avals)
        if len(shapes) != 1 or not real or not is_elementwise(body):
            return self.as_it_was(equation, operands)
        (shape,) = shapes
        alike = [spread(o, shape) for o in operands]
        operands = [o if isinstance(o, Known) else self.elements(o) for o in alike]
        first, classes = self._classes(operands, shape)
        slopes = partial(derivative, equation.primitive, equation.params, avals)
        if not pays(len(first), math.prod(shape)) or not is_elementwise(slopes()):
            return self.as_it_was(equation, operands)
        function = with_derivative(equation.primitive, equation.params, avals)
        numbers = [self.operand(o, first, shape) for o in operands]
        outputs = self.builder.apply(lambda *xs: list(function(*xs)), numbers, equation.place)
        return [Elements(v, shape, classes.reshape(shape)) for v in outputs]

    # Elements moved

    def _moved(self, equation: Equation, operands: list[Value]) -> Value | None:
        """The classes moved."""
        value, *rest = operands
        known = [o.array for o in rest if isinstance(o, Known)]
        if isinstance(value, Sum) and _is_full(equation, value.shape, known):
            parts = [(_shifted(w, equation, known), e) for w, e in value.terms]
            moved_terms = [(w, self._index_moved(equation, e, known)) for w, e in parts]
            if any(e is None for _, e in moved_terms):
                return None
            terms = tuple((w, e) for w, e in moved_terms if e is not None)
            return Sum(terms, _shifted(value.known, equation, known), terms[0][1].shape)
        if isinstance(value, Known):
            return None
        return self._index_moved(equation, self.elements(value), known)

    def _index_moved(
        self, equation: Equation, own: Elements, known: list[np.ndarray]
    ) -> Elements | None:
        (index,) = moved(equation, [own.classes.reshape(own.shape), *known])
        if not index.size or (index == NONE).any():
            return None
        if own.index is None and not pays(len(compacted(index.reshape(-1))[0]), index.size):
            return None
        return Elements(own.number, index.shape, index)

    def _together(self, equation: Equation, operands: list[Value]) -> Elements | None:
        """Arrays put together: their classes side by side."""
        parts, numbers, start = [], [], 0
        for each in operands:
            if isinstance(each, Known):
                first, classes = compacted(labels(each.array))
                few = each.array.reshape(-1)[first]
                number, index, count = self.builder.constant(few, few), classes, len(first)
            else:
                own = self.elements(each)
                number, index = own.number, own.classes
                count = self.size(number)
            parts.append(start + index.reshape(each.shape))
            numbers.append(number)
            start += count
        (index,) = moved(equation, parts)
        if not pays(len(compacted(index.reshape(-1))[0]), index.size) or (index == NONE).any():
            return None
        number = self.write(
            lambda *xs: jnp.concatenate([x.reshape(-1) for x in xs]), numbers, equation
        )
        return Elements(number, index.shape, index)


def _is_followed(operands: list[Value]) -> bool:
    """Whether only the first is not known."""
    return all(isinstance(o, Known) for o in operands[1:])


def _chosen(equation: Equation, operands: Sequence[Value]) -> Value | None:
    """The one case that a known condition takes."""
    condition = operands[0]
    if equation.op is not Op.SELECT_N or not isinstance(condition, Known):
        return None
    if not is_uniform(condition.array):
        return None
    return operands[1 + int(condition.array.flat[0])]


def moved(equation: Equation, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Where elements go that an equation moves."""
    with jax.ensure_compile_time_eval():
        return moved_in_jax(equation, arrays)


def _is_full(equation: Equation, shape: tuple[int, ...], known: list[np.ndarray]) -> bool:
    """Whether no element of the result is a filling."""
    (index,) = moved(equation, [np.zeros(shape, np.int64), *known])
    return bool(index.size) and not (index == NONE).any()


def _shifted(weight: np.ndarray, equation: Equation, known: list[np.ndarray]) -> np.ndarray:
    """A weight, moved as the elements are."""
    if weight.ndim == 0:
        return weight
    places = np.arange(weight.size).reshape(weight.shape)
    return weight.reshape(-1)[moved(equation, [places, *known])[0]]


__all__ = ["by_classes"]
