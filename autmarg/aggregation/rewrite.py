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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.aggregation.elementwise import derivative, is_elementwise, with_derivative
from autmarg.aggregation.reductions import REDUCED, product, reduced
from autmarg.aggregation.sums import combined, is_linear, is_uniform, spread
from autmarg.aggregation.values import Elements, Known, Sum, Value, labels, pays
from autmarg.aggregation.writer import Writer
from autmarg.analysis.elements import MOVED, NONE, moved
from autmarg.compat.jaxprs import ELEMENTWISE, Op, body_of
from autmarg.gaussian.classes import compacted, joined
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
        return self._followed(equation, operands) or self.as_it_was(equation, operands)

    def _followed(self, equation: Equation, operands: list[Value]) -> list[Value] | None:
        """The outputs by classes; None where the equation is not followed."""
        op, found = equation.op, None
        if (chosen := _chosen(equation, operands)) is not None:
            return [chosen]
        if op in ELEMENTWISE:
            found = self._linear(equation, operands)
            return self._elementwise(equation, operands) if found is None else [found]
        if op is Op.CUSTOM_JVP_CALL:
            return self._with_derivative(equation, operands)
        if op in REDUCED:
            found = reduced(self, equation, operands)
        elif op in _TOGETHER:
            found = self._together(equation, operands)
        elif op in _MOVED and _is_followed(operands):
            found = self._moved(equation, operands)
        elif op is Op.DOT_GENERAL:
            found = product(self, equation, operands)
        return None if found is None else [found]

    # Element by element

    def _linear(self, equation: Equation, operands: list[Value]) -> Sum | None:
        """A sum that would have more classes than its terms, left as it is."""
        aval = self.tape.avals[equation.outputs[0]]
        if not jnp.issubdtype(aval.dtype, jnp.floating) or not is_linear(equation.op, operands):
            return None
        alike = [spread(o, aval.shape, one=True) for o in operands]
        if not any(isinstance(o, Sum) for o in alike):
            unknown = [o.classes for o in alike if isinstance(o, Elements)]
            keys = [*unknown, *(labels(o.array) for o in alike if isinstance(o, Known))]
            fewest = min(len(compacted(k)[0]) for k in unknown)
            if len(joined(keys)[0]) <= fewest:
                return None
        found = combined(equation.op, alike, aval.shape)
        return found if found is None or len(found.terms) <= _MANY else None

    def _elementwise(self, equation: Equation, operands: list[Value]) -> list[Value] | None:
        """One operation for each class of its operands."""
        return self._once(equation, operands, lambda: equation.bind)

    def _with_derivative(self, equation: Equation, operands: list[Value]) -> list[Value] | None:
        """The same of a function that has its own derivative."""
        body, avals = body_of(equation.params), [self.tape.avals[v] for v in equation.inputs]
        real = all(jnp.issubdtype(a.dtype, jnp.inexact) for a in avals)
        shapes = {self.tape.avals[v].shape for v in equation.outputs}
        if len(shapes) != 1 or not real or not is_elementwise(body):
            return None

        def function() -> Callable[..., list[Any]] | None:
            slopes = derivative(equation.primitive, equation.params, avals)
            return with_derivative(body, slopes) if is_elementwise(slopes) else None

        return self._once(equation, operands, function)

    def _once(
        self, equation: Equation, operands: list[Value],
        function: Callable[[], Callable[..., list[Any]] | None],
    ) -> list[Value] | None:  # fmt: skip
        """The outputs of a function of single elements, for each class of operands; None where
        there are too many of them, or no such function."""
        shape = self.tape.avals[equation.outputs[0]].shape
        alike = [spread(o, shape) for o in operands]
        written = [self.elements(o) if isinstance(o, Sum) else o for o in alike]
        keys = [_keys(o) for o in written if o.shape == shape]
        first, classes = joined(keys or [np.zeros(math.prod(shape), np.int64)])
        if not pays(len(first), math.prod(shape)) or (run := function()) is None:
            return None
        numbers = [self.operand(o, first, shape) for o in written]
        outputs = self.builder.apply(run, numbers, equation.place)
        return [Elements(v, shape, classes.reshape(shape)) for v in outputs]

    # Elements moved

    def _moved(self, equation: Equation, operands: list[Value]) -> Value | None:
        """The classes moved."""
        value, *rest = operands
        known = [o.array for o in rest if isinstance(o, Known)]
        if isinstance(value, Sum) and _is_full(equation, value.shape, known):
            found = [self._index_moved(equation, e, known) for _, e in value.terms]
            terms = [e for e in found if e is not None]
            if len(terms) < len(found):
                return None
            return value.mapped(terms, lambda w: _shifted(w, equation, known), terms[0].shape)
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


def _keys(value: Known | Elements) -> np.ndarray:
    """What tells its elements apart, [n]."""
    return labels(value.array) if isinstance(value, Known) else value.classes


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


def _is_full(equation: Equation, shape: tuple[int, ...], known: list[np.ndarray]) -> bool:
    """Whether no element of the result is a filling."""
    (index,) = moved(equation, [np.zeros(shape, np.int64), *known])
    return bool(index.size) and not (index == NONE).any()


def _shifted(weight: np.ndarray, equation: Equation, known: list[np.ndarray]) -> np.ndarray:
    """A weight, moved as the elements are."""
    places = np.arange(weight.size).reshape(weight.shape)
    return weight.reshape(-1)[moved(equation, [places, *known])[0]]


__all__ = ["by_classes"]
