"""The expressions of a program, flattened: jaxprs with calls inlined and variables numbered.

Every site's distribution parameters, observed values and deterministic values are outputs of one
:class:`Tape`; dependency questions are slices of it, and evaluating a site is evaluating a slice.
Compared with a jaxpr, nested ``jit`` calls are inlined, variables are integers (so that a tape is
frozen, extendable and independent of JAX's variable objects), and each equation keeps the line of
the user's program that made it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.core import Tracer

from autmarg.compat.jaxprs import (
    INLINED,
    ClosedJaxpr,
    Literal,
    Op,
    Param,
    Primitive,
    bind,
    body_of,
    frames_of,
)
from autmarg.compat.moving import moved
from autmarg.compat.shards import is_sharded, on_host
from autmarg.compat.xla import quick
from autmarg.errors import Place
from autmarg.ir.loops import DistributedLoop
from autmarg.ir.staged import T, staged
from autmarg.ir.walk import Step, V, computed, walk


@dataclass(frozen=True, eq=False)
class Equation:
    """One primitive applied to numbered values."""

    primitive: Primitive
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    place: Place | None

    @property
    def name(self) -> str:
        """What JAX calls the primitive."""
        return self.primitive.name

    @property
    def op(self) -> Op:
        """Which primitive it is."""
        return Op.of(self.primitive)

    def bind(self, *values: Any) -> list[Any]:
        """Apply the primitive to concrete or traced arrays; always a list of outputs."""
        known = moved(self.op, self.params, values)
        return bind(self.primitive, self.params, *values) if known is None else [known]


@dataclass(frozen=True, eq=False)
class Tape:
    """Numbered equations over named inputs and known constants.

    Attributes:
        equations: in an order in which they can be evaluated.
        inputs: name of a latent site (or of a traced constant) → value number.
        constants: value number → known array, NumPy's unless it lies on several devices. A value
            without elements is one, whatever it is computed from: it depends on nothing.
        avals: shape and dtype of every value, by number.
    """

    equations: tuple[Equation, ...]
    inputs: Mapping[str, int]
    constants: Mapping[int, Any]
    avals: tuple[jax.ShapeDtypeStruct, ...]

    @cached_property
    def _producer(self) -> dict[int, int]:
        return {v: i for i, eqn in enumerate(self.equations) for v in eqn.outputs}

    @cached_property
    def _names(self) -> dict[int, str]:
        return {v: name for name, v in self.inputs.items()}

    def producer(self, number: int) -> Equation | None:
        """The equation that makes a value, None for inputs and constants."""
        index = self._producer.get(number)
        return None if index is None else self.equations[index]

    def slice(self, outputs: Iterable[int]) -> list[Equation]:
        """The equations that ``outputs`` need, in order."""
        needed, stack = set(), list(outputs)
        while stack:
            number = stack.pop()
            index = None if number in self.constants else self._producer.get(number)
            if index is not None and index not in needed:
                needed.add(index)
                stack.extend(self.equations[index].inputs)
        return [self.equations[i] for i in sorted(needed)]

    @cached_property
    def _dependencies(self) -> dict[int, frozenset[str]]:
        names = {v: frozenset({n}) for v, n in self._names.items() if v not in self.constants}
        for eqn in self.equations:
            union = frozenset().union(*(names.get(v, frozenset()) for v in eqn.inputs))
            names.update({v: union for v in eqn.outputs if v not in self.constants})
        return names

    def dependencies(self, outputs: Iterable[int]) -> frozenset[str]:
        """Names of the inputs on which ``outputs`` depend."""
        return frozenset().union(*(self._dependencies.get(v, frozenset()) for v in outputs))

    def evaluate(self, outputs: Iterable[int], values: Mapping[str, Any]) -> list[Any]:
        """Values of ``outputs`` given the named inputs they depend on."""
        outputs = list(outputs)
        env: dict[int, Any] = dict(self.constants)
        for name in self.dependencies(outputs):
            env[self.inputs[name]] = values[name]
        return self.interpret(outputs, env, computed)

    def interpret(self, outputs: Iterable[int], values: dict[int, V], step: Step[V]) -> list[V]:
        """Values of ``outputs`` in any domain.

        Args:
            outputs: numbers.
            values: by number, of constants and of the inputs that ``outputs`` need; what is
                evaluated on the way is added.
            step: what an equation does (:func:`autmarg.ir.walk.walk`).
        """
        outputs = list(outputs)
        walk(self.slice(outputs), values, step)
        return [values[v] for v in outputs]

    def agrees(self, other: Tape, outputs: Iterable[int]) -> bool:
        """Whether ``outputs`` are, by the same numbers, the very same expressions on both."""
        outputs = list(outputs)
        mine, others = self.slice(outputs), other.slice(outputs)
        if len(mine) != len(others) or any(a is not b for a, b in zip(mine, others, strict=True)):
            return False
        read = {*outputs, *(v for e in mine for v in e.inputs)}
        return all(
            self.constants.get(v) is other.constants.get(v)
            and self._names.get(v) == other._names.get(v)
            for v in read
        )

    def extend(self, function: Callable[..., Any], inputs: Iterable[int]) -> tuple[Tape, list[int]]:
        """The tape with ``function`` applied to numbered values, and the numbers of its outputs."""
        tape, outputs, _ = self.extend_staged(lambda *arrays: (None, function(*arrays)), inputs)
        return tape, outputs

    def extend_staged(
        self, function: Callable[..., tuple[T, Any]], inputs: Iterable[int]
    ) -> tuple[Tape, list[int], T]:
        """As :meth:`extend`, with what ``function`` knows beside its arrays (``ir/staged.py``)."""
        inputs = tuple(inputs)
        known, closed = staged(function, *(self.avals[v] for v in inputs))
        builder = Builder.of(self)
        outputs = builder.inline(closed, inputs)
        return builder.tape(self.inputs), outputs, known

    def with_input(self, name: str, shape: tuple[int, ...], dtype: Any) -> Tape:
        """The tape with one more named input."""
        builder = Builder.of(self)
        number = builder.number(jax.ShapeDtypeStruct(shape, dtype))
        return builder.tape({**self.inputs, name: number})

    def owning(self) -> Tape:
        """The tape with copies of its constants: the user's arrays may be changed in place."""
        copies = {
            number: value.copy() if isinstance(value, np.ndarray) else value
            for number, value in self.constants.items()
        }
        return replace(self, constants=copies)

    def folded(self, roots: Iterable[int]) -> Tape:
        """Evaluate, in one compiled call, everything that ``roots`` need and no input changes.

        Afterwards ``equations`` hold only what depends on an input (or is not needed by
        ``roots``), and ``constants`` hold NumPy arrays. What lies on several devices is computed
        there, and comes to the host when it is done.
        """
        live = self.slice(roots)
        known = [e for e in live if not any(self._dependencies.get(v) for v in e.outputs)]
        inside = {v for e in known for v in e.outputs}
        rest = [e for e in live if any(self._dependencies.get(v) for v in e.outputs)]
        frontier = sorted(inside & {*(v for e in rest for v in e.inputs), *roots})
        computed = self._compute(known, frontier)
        used = {*(v for e in rest for v in e.inputs), *roots}
        constants = {v: _as_known(c) for v, c in self.constants.items() if v in used}
        return replace(self, equations=tuple(rest), constants={**constants, **computed})

    def known(self, outputs: Iterable[int]) -> dict[int, np.ndarray]:
        """Values, by number, of ``outputs`` that depend on no input, in one compiled call."""
        outputs = list(outputs)
        return self._compute(self.slice(outputs), outputs)

    def _compute(self, equations: list[Equation], outputs: list[int]) -> dict[int, np.ndarray]:
        if not outputs:
            return {}
        given = {v for e in equations for v in e.inputs} & set(self.constants)

        def run(constants: dict[int, Any]) -> list[Any]:
            env = dict(constants)
            walk(equations, env, computed)
            return [env[v] for v in outputs]

        with jax.ensure_compile_time_eval():
            once = jax.jit(run, compiler_options=quick())
            results = once({v: self.constants[v] for v in given})
            return {v: _as_known(r) for v, r in zip(outputs, results, strict=True)}


@lru_cache(maxsize=256)
def body_tape(closed: ClosedJaxpr) -> tuple[Tape, tuple[int, ...]]:
    """The tape of a primitive's body, its inputs named "0", "1", …, and its outputs' numbers."""
    builder = Builder()
    numbers = [builder.number(v.aval) for v in closed.jaxpr.invars]
    outputs = tuple(builder.inline(closed, numbers))
    return builder.tape({str(i): v for i, v in enumerate(numbers)}), outputs


def run_body(
    closed: ClosedJaxpr, operands: list[V], step: Step[V], constant: Callable[[Any], V]
) -> list[V]:
    """Outputs of a primitive's body in any domain, given its operands.

    ``constant`` makes a value of a known array.
    """
    tape, outputs = body_tape(closed)
    values = dict(zip(tape.inputs.values(), operands, strict=True))
    values |= {v: constant(c) for v, c in tape.constants.items()}
    return tape.interpret(outputs, values, step)


def _as_known(value: Any) -> Any:
    """A constant as a NumPy array; typed PRNG keys stay JAX arrays."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    return on_host(value) if is_sharded(value) else np.asarray(value)


class Builder:
    """Writes jaxprs onto a growing tape."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.constants: dict[int, Any] = {}
        self.avals: list[jax.ShapeDtypeStruct] = []

    @classmethod
    def of(cls, tape: Tape) -> Builder:
        """A builder that goes on from a tape."""
        builder = cls()
        builder.equations = list(tape.equations)
        builder.constants = dict(tape.constants)
        builder.avals = list(tape.avals)
        return builder

    def tape(self, inputs: Mapping[str, int]) -> Tape:
        """What was built so far, as a tape with these inputs."""
        constants = {**self.constants, **self._empty()}
        return Tape(tuple(self.equations), dict(inputs), constants, tuple(self.avals))

    def _empty(self) -> dict[int, np.ndarray]:
        """Values without elements (random keys aside)."""
        empty = ((v, a) for v, a in enumerate(self.avals) if 0 in a.shape)
        plain = ((v, a) for v, a in empty if not jnp.issubdtype(a.dtype, jax.dtypes.extended))
        return {v: np.zeros(a.shape, a.dtype) for v, a in plain}

    def number(self, aval: Any) -> int:
        """The number of a new value of this shape and dtype."""
        self.avals.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        return len(self.avals) - 1

    def constant(self, value: Any, aval: Any) -> int:
        """The number of a new constant; a concrete one is kept as a NumPy array."""
        number = self.number(aval)
        stays = isinstance(value, Tracer) or is_sharded(value)
        self.constants[number] = value if stays else _as_known(value)
        return number

    def apply(
        self,
        function: Callable[..., list[Any]],
        inputs: Iterable[int],
        place: Place | None,
        distribute: bool = True,
    ) -> list[int]:
        """Append a function of ``inputs``, all of whose equations stand at ``place``."""
        inputs = list(inputs)
        closed = jax.make_jaxpr(function)(*(self.avals[v] for v in inputs))
        first = len(self.equations)
        outputs = self.inline(closed, inputs, distribute)
        self.equations[first:] = [replace(e, place=place) for e in self.equations[first:]]
        return outputs

    def inline(
        self,
        closed: ClosedJaxpr,
        inputs: Iterable[int],
        distribute: bool = True,
        place: Place | None = None,
    ) -> list[int]:
        """Append a jaxpr applied to ``inputs``; the numbers of its outputs.

        Calls are inlined, and scans distributed (see :mod:`autmarg.ir.loops`). Equations inside a
        library function do not know the user's line; theirs is ``place``, that of the call.
        """
        jaxpr = closed.jaxpr
        env: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            env[var] = self.constant(value, var.aval)

        def read(atom: Any) -> int:
            if isinstance(atom, Literal):
                aval: Any = atom.aval
                value = atom.val if is_sharded(atom.val) else np.asarray(atom.val, aval.dtype)
                return self.constant(value, aval)
            return env[atom]

        for eqn in jaxpr.eqns:
            here = place_of(eqn) or place
            arguments, op = [read(a) for a in eqn.invars], Op.of(eqn.primitive)
            if op in INLINED:
                outputs = self.inline(body_of(eqn.params), arguments, distribute, here)
            elif distribute and op is Op.SCAN and eqn.params[Param.LENGTH]:
                outputs = self._distributed(eqn, arguments, here)
            else:
                outputs = [self.number(v.aval) for v in eqn.outvars]
                self.equations.append(
                    Equation(
                        eqn.primitive,
                        dict(eqn.params),
                        tuple(arguments),
                        tuple(outputs),
                        here,
                    )
                )
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def _distributed(self, eqn: Any, arguments: list[int], place: Place | None) -> list[int]:
        """The outputs of a scan, vectorised where it does not recur."""
        body, closed = Builder(), body_of(eqn.params)
        inputs = [body.number(v.aval) for v in closed.jaxpr.invars]
        outputs = body.inline(closed, inputs, place=place)
        return DistributedLoop(self, body, inputs, outputs, arguments, eqn.params, place).run()


_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PACKAGES = (
    *(os.path.dirname(os.path.abspath(m.__file__ or "")) + os.sep for m in (jax, numpyro)),
    *(_HERE + part for part in sorted(os.listdir(_HERE)) if part != "_demo.py"),  # it has models
)


def is_library(file: str) -> bool:
    """Whether a frame belongs to JAX, NumPyro, autmarg or contextlib rather than to the user."""
    return file.startswith((*_PACKAGES, "<frozen")) or file == contextlib.__file__


def place_of(equation: Any) -> Place | None:
    """The nearest enclosing line outside JAX, NumPyro and autmarg, or None."""
    for frame in frames_of(equation):
        if not is_library(frame.file_name):
            return Place(frame.file_name, frame.line_num, frame.function_name)
    return None
