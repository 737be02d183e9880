"""Primitives that hold programs: calls with rules of differentiation, branches and loops.

Each says once how its bodies are run, in two domains: on degrees, a loop until nothing changes, and
on values, a loop step by step. ``run(body, operands)`` is given by the domain. A call whose
operands are all opaque stays one call, so that its own derivative and its loop remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, Opaque, array_of, as_affine, count, stacked
from autmarg.analysis.rules.base import CannotExtract
from autmarg.analysis.rules.structural import select
from autmarg.compat.jaxprs import WITH_DERIVATIVE, ClosedJaxpr, Op, Param, body_of
from autmarg.ir.tape import Equation

UNROLLED = 512  # steps of a loop up to which it is written out

Run = Callable[[ClosedJaxpr, list[Any]], list[Any]]


@dataclass(frozen=True)
class Call:
    """How a primitive runs its bodies.

    Attributes:
        ops: the primitives.
        degrees: ``degrees(equation, operands, run)`` of the outputs, given those of the operands.
        values: ``values(equation, operands, run)``, at least one of them Affine.
    """

    ops: tuple[Op, ...]
    degrees: Callable[[Equation, list[Any], Run], list[Any]]
    values: Callable[[Equation, list[Any], Run], list[Any]]


def _inline(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    return run(body_of(equation.params), operands)


def _joined(results: Sequence[list[Any]]) -> list[Any]:
    """Degrees that hold whichever of the results it is."""
    first, *rest = results
    for other in rest:
        first = [a.join(b) for a, b in zip(first, other, strict=True)]
    return first


def _cond_degrees(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    which, *rest = operands
    branches = equation.params[Param.BRANCHES]
    if which.value is not None:
        return run(branches[_clamped(which.value, branches)], rest)
    chosen = _joined([run(branch, rest) for branch in branches])
    return [out.indexed_by(which, equation) for out in chosen]


def _cond_values(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    which, *rest = operands
    branches = equation.params[Param.BRANCHES]
    if isinstance(which, np.ndarray):
        return run(branches[_clamped(which, branches)], rest)
    results = [run(branch, rest) for branch in branches]
    index = Opaque(jnp.clip(which.base, 0, len(branches) - 1), which.shape, which.index)
    return [select(index, cases) for cases in zip(*results, strict=True)]


def _clamped(which: np.ndarray, branches: Sequence[Any]) -> int:
    return int(np.clip(which, 0, len(branches) - 1))


def _settled(carry: list[Any], step: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """Degrees of a loop's state that one more step does not change."""
    while True:
        after = _joined([carry, step(carry)])
        if all(a.same(b) for a, b in zip(after, carry, strict=True)):
            return after
        carry = after


def _scan_degrees(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    consts, carry, rows = scan_parts(equation, operands)
    n, rows = len(carry), [row.entry() for row in rows]

    def step(state: list[Any]) -> list[Any]:
        return run(body_of(equation.params), [*consts, *state, *rows])

    carry = _settled([c.entry() for c in carry], lambda state: step(state)[:n])
    return [*carry, *step(carry)[n:]]


def _scan_values(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    consts, carry, rows = scan_parts(equation, operands)
    n, length = len(carry), equation.params[Param.LENGTH]
    _check_length(length)
    outputs: list[list[Any]] = []
    order = range(length)
    for t in reversed(order) if equation.params[Param.REVERSE] else order:
        step = run(body_of(equation.params), [*consts, *carry, *(entry(row, t) for row in rows)])
        carry = [_tidy(c) for c in step[:n]]
        outputs.append(step[n:])
    if equation.params[Param.REVERSE]:
        outputs.reverse()
    if not outputs:
        empty = body_of(equation.params).out_avals[n:]
        return [*carry, *(np.zeros((0, *a.shape), a.dtype) for a in empty)]
    return [*carry, *(_stack(list(column)) for column in zip(*outputs, strict=True))]


def scan_parts(equation: Equation, operands: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """A loop's operands: constants, the start of its carry, and what it goes over."""
    a = equation.params[Param.NUM_CONSTS]
    b = a + equation.params[Param.NUM_CARRY]
    return operands[:a], operands[a:b], operands[b:]


def _check_length(length: int) -> None:
    if length > UNROLLED:
        raise CannotExtract(
            f"its loop has {length:,} steps, and at most {UNROLLED} are written out",
            "use array operations, or numpyro.contrib.control_flow.scan with the noise as sites",
        )


def _while_degrees(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    test, body, state = _while_parts(equation, operands)
    params = equation.params
    state = _settled(
        [s.entry() for s in state], lambda s: run(params[Param.BODY_JAXPR], [*body, *s])
    )
    (proceed,) = run(params[Param.COND_JAXPR], [*test, *state])
    return [s.indexed_by(proceed, equation) for s in state]


def _while_values(equation: Equation, operands: list[Any], run: Run) -> list[Any]:
    test, body, state = _while_parts(equation, operands)
    steps = 0
    while True:
        (proceed,) = run(equation.params[Param.COND_JAXPR], [*test, *state])
        if not isinstance(proceed, np.ndarray):
            raise CannotExtract(
                "the number of steps of its loop depends on a latent",
                "use a known number of steps",
            )
        if not proceed:
            return state
        steps += 1
        _check_length(steps)
        state = [_tidy(s) for s in run(equation.params[Param.BODY_JAXPR], [*body, *state])]


def _while_parts(equation: Equation, operands: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    a = equation.params[Param.COND_NCONSTS]
    b = a + equation.params[Param.BODY_NCONSTS]
    return operands[:a], operands[a:b], operands[b:]


def _tidy(value: Any) -> Any:
    return value.merged().collapsed() if isinstance(value, Affine) else value


def entry(value: Any, t: int) -> Any:
    """``value[t]``."""
    shape = value.shape[1:]
    if isinstance(value, np.ndarray):
        return np.asarray(value[t])
    rows = t * count(shape) + np.arange(count(shape))
    if isinstance(value, Affine):
        return value.take(rows, shape)
    return Opaque(value.base, shape, value.rows()[rows])


def _stack(values: list[Any]) -> Any:
    """The values along a new first axis."""
    shape = (len(values), *values[0].shape)
    if all(isinstance(v, np.ndarray) for v in values):
        return np.stack(values)
    if not any(isinstance(v, Affine) for v in values):
        return Opaque(jnp.stack([array_of(v) for v in values]), shape)
    size = count(shape[1:])
    pieces = [
        (as_affine(v), np.arange(size), t * size + np.arange(size)) for t, v in enumerate(values)
    ]
    return Affine(shape, values[0].dtype, stacked(count(shape), pieces))


CALLS = (
    Call((*WITH_DERIVATIVE, Op.REMAT2, Op.CHECKPOINT), _inline, _inline),
    Call((Op.COND,), _cond_degrees, _cond_values),
    Call((Op.SCAN,), _scan_degrees, _scan_values),
    Call((Op.WHILE,), _while_degrees, _while_values),
)
