"""The affine interpreter: evaluates a tape with Known, Opaque and Affine values.

Run inside ``jax.make_jaxpr`` over the kept latents, so that Opaque arithmetic is traced while
everything about structure stays concrete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from autmarg.analysis.domain import Affine, Opaque, count, identity
from autmarg.analysis.rules import call_for, rule_for
from autmarg.analysis.rules.base import CannotExtract, Operand
from autmarg.analysis.rules.finite import answer, settled
from autmarg.compat.jaxprs import ELEMENTWISE, ClosedJaxpr, Op, Param
from autmarg.errors import InternalError
from autmarg.ir.tape import Equation, Tape, run_body

Derive = Callable[[Equation, list[Any]], list[Any] | None]


class AffineInterpreter:
    """Values of a tape, with ``columns`` as affine unknowns and all other inputs Opaque.

    Args:
        tape: a folded tape.
        columns: names of the latents that are unknowns.
        values: arrays of all other inputs.
        derive: gives the outputs of an equation over states of their own, or None.
    """

    def __init__(
        self,
        tape: Tape,
        columns: frozenset[str],
        values: Mapping[str, Any],
        derive: Derive | None = None,
    ) -> None:
        self.tape, self.derive = tape, derive
        self.env: dict[int, Any] = dict(tape.constants)
        for name, number in tape.inputs.items():
            aval = tape.avals[number]
            if number in tape.constants:
                continue  # it has no elements
            if name in columns:
                self.env[number] = identity(name, aval.shape, aval.dtype)
            elif name in values:
                self.env[number] = Opaque(values[name], aval.shape)

    def read(self, number: int) -> np.ndarray | Opaque | Affine:
        """The value with that number, evaluating what it needs."""
        return self.tape.interpret([number], self.env, self._step)[0]

    def _step(self, equation: Equation, operands: list[Any]) -> list[Any]:
        outputs = self.derive(equation, operands) if self.derive else None
        return apply(equation, operands) if outputs is None else outputs


def run(closed: ClosedJaxpr, operands: list[Any]) -> list[Any]:
    """The outputs of a body applied to values."""
    return run_body(closed, operands, apply, lambda known: known)


def apply(equation: Equation, operands: list[Any]) -> list[Any]:
    """One equation on Known, Opaque and Affine operands.

    Raises:
        CannotExtract: the result is affine and is not written out.
    """
    sites = frozenset().union(*(o.sites for o in operands if isinstance(o, Affine)))
    if any(isinstance(o, Affine) for o in operands):
        try:
            return _affine(equation, operands)
        except CannotExtract as failure:
            if failure.equation is None:
                failure.equation, failure.sites = equation, sites
            raise
    opaque = [o for o in operands if isinstance(o, Opaque)]
    if not opaque:
        with jax.ensure_compile_time_eval():
            return [np.asarray(out) for out in equation.bind(*operands)]
    indexed = any(o.index is not None for o in opaque)
    rule = rule_for(equation.op)
    if rule and rule.lazy and len(opaque) == 1:
        data = rule.linear(equation, [Operand.of(o) for o in operands])
        alone = len(data) == 1 and isinstance(operands[data[0]], Opaque)
        if alone and (indexed or _grows(equation, opaque[0])):
            result = rule.extract(equation, operands)
            found = result if isinstance(result, list) else [result]
            # (filled or padded with a number it is a sum, of which no lookup is left)
            if not any(isinstance(each, Affine) for each in found):
                return found
    if indexed and equation.op in ELEMENTWISE:
        shared = _on_distinct(equation, operands)
        if shared is not None:
            return [shared]
    results = equation.bind(*(o.value() if isinstance(o, Opaque) else o for o in operands))
    return [Opaque(r, r.shape) for r in results]


def _affine(equation: Equation, operands: list[Any]) -> list[Any]:
    if settled(equation, [o for o in operands if isinstance(o, np.ndarray)]):
        return answer(equation, operands)
    if (call := call_for(equation.op)) is not None:
        return call.values(equation, operands, run)
    rule = rule_for(equation.op)
    if rule is None:
        raise InternalError(
            f"'{equation.name}' was taken for affine, without a rule ({equation.place})"
        )
    result = rule.extract(equation, operands)
    return result if isinstance(result, list) else [result]


def _grows(equation: Equation, operand: Opaque) -> bool:
    """Whether a structural primitive repeats entries (then a lookup is cheaper than a copy)."""
    if equation.op is Op.BROADCAST_IN_DIM:
        return count(equation.params[Param.SHAPE]) > operand.entries
    return equation.op is Op.GATHER


def _on_distinct(equation: Equation, operands: list[Any]) -> Opaque | None:
    """An elementwise primitive applied once to each distinct combination of operand entries."""
    shape = np.broadcast_shapes(*(o.shape for o in operands))
    n, code, size = count(shape), np.zeros(1, np.int64), 1
    labels: list[tuple[np.ndarray, np.ndarray]] = []
    for operand in operands:
        if isinstance(operand, Opaque):
            entries, rows = np.arange(operand.entries), operand.rows()
        else:
            entries, rows = np.unique(operand, return_inverse=True)
        rows = np.broadcast_to(rows.reshape(operand.shape), shape).reshape(-1)
        size *= max(len(entries), 1)
        if size > 2**62:
            return None
        code = code * len(entries) + rows
        labels.append((entries, rows))
    _, at, inverse = np.unique(code, return_index=True, return_inverse=True)
    if 2 * len(at) > n:
        return None
    picked = []
    for operand, (entries, rows) in zip(operands, labels, strict=True):
        index = entries[rows[at]]
        if isinstance(operand, Opaque):
            picked.append(operand.base.reshape(-1)[index])
        else:
            picked.append(index.astype(operand.dtype))
    (base,) = equation.bind(*picked)
    return Opaque(base, shape, inverse.reshape(-1))
