"""What an expression is as a function of one latent x: c · xᵖ · (1 - x)^q, element by element.

The slice of the tape that an argument of a distribution needs is interpreted with three kinds of
value: known (a NumPy array), opaque (depends on other latents only), and :class:`Monomial`: each
element is a coefficient times powers of one element of x, or the logarithm of that. So
``tau**-0.5``, ``rsqrt(tau)``, ``sqrt(1 / tau)`` and ``exp(-0.5 * log(tau))`` are one and the same.
Primitives that only move entries are applied to an array of x's element numbers. Everything else
is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.naming import spelled
from autmarg.analysis.rules.structural import MOVING
from autmarg.compat.jaxprs import Op, Param
from autmarg.conjugacy.monomial import Monomial, NoMatch
from autmarg.conjugacy.monomial_functions import FUNCTIONS, WITH_ZEROS
from autmarg.ir.bounds import check_bounds
from autmarg.ir.tape import Equation, Tape, run_body

# What the function of a primitive reads beside its operands.
_OPTIONS = {
    Op.INTEGER_POW: Param.Y, Op.CONVERT_ELEMENT_TYPE: Param.NEW_DTYPE, Op.REDUCE_SUM: Param.AXES,
    Op.DOT_GENERAL: Param.DIMENSION_NUMBERS,
}  # fmt: skip
_MOVING = (*MOVING, Op.CONCATENATE, Op.GATHER, Op.DYNAMIC_SLICE)


class MonomialInterpreter:
    """Values of a tape as functions of the latent ``name``.

    Args:
        tape: on which known values are constants.
        name: of x.
        values: arrays of all other inputs.
        positive: whether x is known to be positive: powers and logarithms are refused otherwise.
        unit: whether x is between 0 and 1.
        zeros: whether coefficients may be zero where a known condition says so.
    """

    def __init__(
        self,
        tape: Tape,
        name: str,
        values: Mapping[str, Any],
        positive: bool,
        unit: bool,
        zeros: bool = False,
    ) -> None:
        self.tape, self.positive, self.unit, self.zeros = tape, positive, unit, zeros
        self.env: dict[int, Any] = {v: np.asarray(c) for v, c in tape.constants.items()}
        for other, number in tape.inputs.items():
            if other == name:
                shape = tape.avals[number].shape
                index = np.arange(int(np.prod(shape))).reshape(shape)
                self.env[number] = Monomial(np.ones(()), index, Fraction(1))
            elif other in values:
                self.env[number] = values[other]

    def read(self, number: int) -> Any:
        """The value with that number.

        Raises:
            NoMatch: it is another function of x.
        """
        return self.tape.interpret([number], self.env, self._apply)[0]

    def _apply(self, equation: Equation, values: list[Any]) -> list[Any]:
        if not any(isinstance(v, Monomial) for v in values):
            if all(isinstance(v, np.ndarray) for v in values):
                with jax.ensure_compile_time_eval():
                    return [np.asarray(out) for out in equation.bind(*values)]
            return equation.bind(*values)
        op = equation.op
        if op is Op.CUSTOM_JVP_CALL:
            return self._called(equation, values)
        if op in _MOVING:
            return _moved(equation, values)
        functions = FUNCTIONS | WITH_ZEROS if self.zeros else FUNCTIONS
        found = functions[op](*values, *_options(equation)) if op in functions else None
        if found is None or not self._allowed(found):
            where = f" ({equation.place})" if equation.place else ""
            raise NoMatch(f"through {spelled(equation.name)}{where}", equation)
        return [found]

    def _called(self, equation: Equation, values: list[Any]) -> list[Any]:
        """The outputs of a function that has a derivative of its own."""
        return run_body(equation.params[Param.CALL_JAXPR], values, self._apply, np.asarray)

    def _allowed(self, value: Monomial) -> bool:
        """Logarithms and powers need a positive x, powers of 1 - x one below 1."""
        plain = not value.log and value.powers == (1, 0)
        return plain or (self.positive and (value.q == 0 or self.unit))


def _options(equation: Equation) -> list[Any]:
    """The parameters of a primitive that matter here."""
    return [equation.params[_OPTIONS[equation.op]]] if equation.op in _OPTIONS else []


def _moved(equation: Equation, values: list[Any]) -> list[Any]:
    """A primitive that only moves entries, of x's (all of one power) and nothing else."""
    several = equation.op is Op.CONCATENATE
    moving, rest = (values, []) if several else (values[:1], values[1:])
    head = moving[0]
    kinds = {(v.powers, v.log) if isinstance(v, Monomial) else None for v in moving}
    if kinds != {(head.powers, head.log) if isinstance(head, Monomial) else None}:
        raise NoMatch("joined with something else", equation)
    if not all(isinstance(v, np.ndarray) for v in rest):
        raise NoMatch("by an index that depends on a latent or is traced", equation)
    if equation.op is Op.GATHER:
        check_bounds(equation, rest[0], head.shape)
    with jax.ensure_compile_time_eval():
        indices = equation.bind(*(jnp.asarray(v.index) for v in moving), *rest)
    coefficients = [head.coefficient] * len(indices)
    if several or np.ndim(head.coefficient):
        parts = [v.whole() for v in moving]
        if all(isinstance(part, np.ndarray) for part in parts):
            with jax.ensure_compile_time_eval():
                coefficients = [np.asarray(c) for c in equation.bind(*parts, *rest)]
        else:
            coefficients = equation.bind(*(jnp.asarray(part) for part in parts), *rest)
    pairs = zip(coefficients, indices, strict=True)
    return [replace(head, coefficient=c, index=np.asarray(i)) for c, i in pairs]
