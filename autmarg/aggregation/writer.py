"""Classes of values written onto a tape that has all values, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.aggregation.sums import classes_of, first_of, is_uniform
from autmarg.aggregation.values import Elements, Known, Sum, Value, pays
from autmarg.ir.tape import Builder, Equation, Tape


class Writer:
    """Writes values onto a growing tape.

    Attributes:
        tape: what is rewritten.
        builder: goes on from it.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape, self.builder = tape, Builder.of(tape)
        self._sums: dict[Sum, Elements] = {}

    def write(
        self, function: Callable[..., Any], numbers: Iterable[int], like: Equation | None = None
    ) -> int:
        """The number of a function's one result."""
        place = None if like is None else like.place
        return self.builder.apply(lambda *xs: [function(*xs)], numbers, place)[0]

    def plain(self, value: Value) -> int:
        """The number of the array itself."""
        if isinstance(value, Known):
            if value.number is not None:
                return value.number
            return self.builder.constant(value.array, value.array)
        own = self.elements(value)
        if own.index is None:
            return own.number
        index, size = own.index, self.size(own.number)
        if index.size == size and (index.reshape(-1) == np.arange(size)).all():
            return self.write(lambda x: x.reshape(index.shape), [own.number])
        return self.write(lambda x: taken(x, index), [own.number])

    def elements(self, value: Elements | Sum) -> Elements:
        """The value, written if it is a sum."""
        if isinstance(value, Elements):
            return value
        if value not in self._sums:
            self._sums[value] = self._total(value)
        return self._sums[value]

    def _total(self, value: Sum) -> Elements:
        """A sum, written."""
        first, classes = classes_of(value)
        few = pays(len(first), math.prod(value.shape))
        if not few and value.known.ndim:
            rest = replace(value, known=np.zeros(()))
            if pays(len(classes_of(rest)[0]), math.prod(value.shape)):
                value = replace(value, terms=((np.ones(()), self.elements(rest)),))
        known = np.broadcast_to(value.known, value.shape)
        weights = [np.broadcast_to(w, value.shape) for w, _ in value.terms]
        shape = (len(first),) if few else value.shape

        def part(array: np.ndarray) -> Any:
            return (
                first_of(array) if is_uniform(array) else array.reshape(-1)[first] if few else array
            )

        numbers = [self.picked(e, first) if few else self.plain(e) for _, e in value.terms]
        own, constant = [part(w) for w in weights], part(known)

        def total(*xs: Any) -> Any:
            out: Any = None
            for w, x in zip(own, xs, strict=True):
                out = _plus(out, w, x)
            out = out if constant is None or _is_zero(constant) else out + constant
            return jnp.broadcast_to(out, shape).astype(xs[0].dtype)

        number = self.write(total, numbers)
        return Elements(number, value.shape, classes.reshape(value.shape) if few else None)

    def picked(self, own: Elements, first: np.ndarray) -> int:
        """The number of some of its elements, [k]."""
        wanted = own.classes[first]
        size = self.size(own.number)
        if len(wanted) == size and (wanted == np.arange(size)).all():
            return self.write(lambda x: x.reshape(-1), [own.number])
        return self.write(lambda x: taken(x, wanted), [own.number])

    def as_it_was(self, equation: Equation, operands: list[Value]) -> list[Value]:
        """The equation itself, on whole arrays."""
        numbers = [self.plain(o) for o in operands]
        outputs = list(equation.outputs)
        if numbers != list(equation.inputs):
            outputs = [self.builder.number(self.tape.avals[v]) for v in outputs]
            self.builder.equations.append(
                Equation(equation.primitive, equation.params, tuple(numbers), tuple(outputs),
                         equation.place)
            )  # fmt: skip
        return [Elements(v, self.builder.avals[v].shape) for v in outputs]

    def operand(self, value: Value, first: np.ndarray, shape: tuple[int, ...]) -> int:
        """The number of an operand for the classes: [k], or the scalar that it is."""
        if value.shape != shape:
            return self.write(lambda x: x.reshape(()), [self.plain(value)])
        if isinstance(value, Known):
            few = value.array.reshape(-1)[first]
            return self.builder.constant(few, few)
        return self.picked(self.elements(value), first)

    def size(self, number: int) -> int:
        """How many elements a value has."""
        return math.prod(self.builder.avals[number].shape)


def _is_zero(array: np.ndarray) -> bool:
    return array.ndim == 0 and array == 0


def scaled(weight: Any, x: Any) -> Any:
    """weight · x, without a product by one."""
    return x if np.ndim(weight) == 0 and weight == 1 else jnp.asarray(weight, x.dtype) * x


def _plus(total: Any, weight: np.ndarray, x: Any) -> Any:
    """total + weight · x, without what is nothing."""
    if total is not None and weight.ndim == 0 and weight == -1:
        return total - x
    own = scaled(weight, x)
    return own if total is None else total + own


def taken(x: Any, index: np.ndarray) -> Any:
    """Elements of an array, by their places in order."""
    return x.reshape(-1).at[index].get(mode="promise_in_bounds")


__all__ = ["Writer", "scaled", "taken"]
