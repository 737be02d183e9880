"""Why a mean is not affine in a latent, in words that are true.

JAX's own derivative rules tell "nonlinear" from "affine, but there is no rule for it yet": a
function is affine where its tangent, once dead code is removed, does not read the primal value.
That is wrong only where a derivative is zero, or cut, by definition; those primitives are named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from autmarg.analysis.naming import located, spelled
from autmarg.compat.jaxprs import COMPARISONS, WITH_DERIVATIVE, Op, Param, reads
from autmarg.errors import Refusal
from autmarg.ir.nodes import Node
from autmarg.ir.tape import Equation, Tape, run_body
from autmarg.ir.walk import computed

_ROUNDING = (Op.FLOOR, Op.CEIL, Op.ROUND, Op.SIGN, Op.REM, Op.NEXTAFTER)
_CHOICES = COMPARISONS | {Op.IS_FINITE, Op.ARGMAX, Op.ARGMIN}
_ORDERINGS = (Op.SORT, Op.TOP_K)  # of which only the order is read, where the mean is affine


def refusal(
    tape: Tape, name: str, child: Node, mean: int, equation: Equation, what: str = "mean"
) -> Refusal:
    """The refusal to integrate ``name`` out of the mean of ``child``, which ``equation`` spoils.

    ``what`` says which value that is: the "mean", or the "observed value".
    """
    op = equation.op
    place = equation.place or child.place
    affine = functools.partial(is_affine_mean, tape, mean, name)
    rule, remedy = f"nonlinear {what}", ""
    value = f"the {what} of {located(child)}"
    through = f"through {spelled(equation.name)}"
    if equation.place and str(equation.place) != str(child.place):
        through = f"{through} ({equation.place})"
    reason = f"'{name}' enters {value} {through}, which is not linear"
    if op is Op.STOP_GRADIENT:
        rule = "hidden from gradients"
        reason = f"'{name}' enters {value} through 'stop_gradient', which hides it from gradients"
        remedy = "remove stop_gradient"
    elif op is Op.CONVERT_ELEMENT_TYPE:
        new = np.dtype(equation.params[Param.NEW_DTYPE])
        reason = f"'{name}' is rounded to {new} in {value}"
        remedy = f"compute the {what} in the latent's own float type"
    elif op in _CHOICES or (op in _ORDERINGS and affine()):
        rule = "choice by a latent"
        reason = f"'{name}' decides a condition, an index or a number of steps {through} in {value}"
    elif op not in _ROUNDING:
        known = affine()
        unruled = f"{through}, for which autmarg has no rule"
        if known:
            rule = "no rule yet"
            reason = f"'{name}' enters {value} linearly, but {unruled} yet"
            remedy = "write it with other array operations, such as a product with a matrix"
        elif known is None:
            rule = "no derivative"
            reason = f"'{name}' enters {value} {unruled} and JAX no derivative"
    return Refusal(name, rule, reason, place, remedy, culprit=equation.name)


def is_affine_mean(tape: Tape, number: int, name: str) -> bool | None:
    """Whether value ``number`` is affine in the input ``name`` by JAX's derivative rules.

    None where JAX has no derivative of it.
    """
    avals = {n: tape.avals[tape.inputs[n]] for n in tape.dependencies([number])}
    others = {n: aval for n, aval in avals.items() if n != name}

    def of(x: Any, rest: Mapping[str, Any]) -> Any:
        env = {**tape.constants, **{tape.inputs[n]: v for n, v in rest.items()}}
        env[tape.inputs[name]] = x
        return tape.interpret([number], env, _computed)[0]

    return is_affine(of, avals[name], others)


def is_affine(function: Callable[[Any, Any], Any], aval: Any, rest: Any) -> bool | None:
    """Whether ``function(x, rest)`` is affine in the arrays ``x`` by JAX's derivative rules.

    None where JAX has no derivative of it.
    """

    def tangent(x: Any, dx: Any, rest: Any) -> Any:
        return jax.jvp(lambda x: function(x, rest), (x,), (dx,))[1]

    try:
        used = reads(tangent, aval, aval, rest)
    except (NotImplementedError, TypeError, ValueError):  # primitives, custom_vjp; callbacks
        return None
    return not any(used[: len(jax.tree.leaves(aval))])


def _computed(equation: Equation, operands: list[Any]) -> list[Any]:
    """What an equation computes; a function with a derivative of its own by what is inside."""
    if equation.op in WITH_DERIVATIVE:
        body = equation.params[Param.CALL_JAXPR]
        return run_body(body, operands, _computed, lambda known: known)
    return computed(equation, operands)
