"""Why a mean is not affine in a latent, in words that are true.

JAX's own derivative rules tell "nonlinear" from "affine, but there is no rule for it yet": a
function is affine where its tangent, once dead code is removed, does not read the primal value.
That is wrong only where a derivative is zero, or cut, by definition; those primitives are named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from autmarg.analysis.rules import call_for
from autmarg.analysis.wording import located, spelled
from autmarg.errors import Refusal
from autmarg.ir.nodes import Node
from autmarg.ir.tape import Equation, Tape, body_tape

_ROUNDING = ("floor", "ceil", "round", "sign", "rem", "nextafter")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "argmax", "argmin")
_ORDERINGS = ("sort", "top_k")  # of which only the order is read, where the mean is affine


def refusal(
    tape: Tape, name: str, child: Node, mean: int, equation: Equation, what: str = "mean"
) -> Refusal:
    """The refusal to integrate ``name`` out of the mean of ``child``, which ``equation`` spoils.

    ``what`` says which value that is: the "mean", or the "observed value".
    """
    primitive = equation.primitive.name
    place = equation.place or child.place
    affine = functools.partial(is_affine_mean, tape, mean, name)
    rule, remedy = f"nonlinear {what}", ""
    value = f"the {what} of {located(child)}"
    through = f"through {spelled(primitive)}"
    if equation.place and str(equation.place) != str(child.place):
        through = f"{through} ({equation.place})"
    reason = f"'{name}' enters {value} {through}, which is not linear"
    if primitive == "stop_gradient":
        rule = "derivative cut"
        reason = f"'{name}' enters {value} through 'stop_gradient', which hides it from gradients"
        remedy = "remove stop_gradient"
    elif primitive == "convert_element_type":
        new = np.dtype(equation.params["new_dtype"])
        reason = f"'{name}' is rounded to {new} in {value}"
        remedy = f"compute the {what} in the latent's own float type"
    elif primitive in _COMPARISONS or (primitive in _ORDERINGS and affine()):
        rule = "choice by a latent"
        reason = f"'{name}' decides a condition, an index or a number of steps {through} in {value}"
    elif primitive not in _ROUNDING:
        known = affine()
        unruled = f"{through}, for which autmarg has no rule"
        if known:
            rule = "no rule yet"
            reason = f"'{name}' enters {value} linearly, but {unruled} yet"
            remedy = "write it with other array operations, such as a product with a matrix"
        elif known is None:
            rule = "no derivative"
            reason = f"'{name}' enters {value} {unruled} and JAX no derivative"
    return Refusal(name, rule, reason, place, remedy, culprit=primitive)


def is_affine_mean(tape: Tape, number: int, name: str) -> bool | None:
    """Whether value ``number`` is affine in the input ``name`` by JAX's derivative rules.

    None where JAX has no derivative of it.
    """
    avals = {n: tape.avals[tape.inputs[n]] for n in tape.dependencies([number])}
    others = {n: aval for n, aval in avals.items() if n != name}

    def of(x: Any, rest: Mapping[str, Any]) -> Any:
        env = {**tape.constants, **{tape.inputs[n]: v for n, v in rest.items()}}
        env[tape.inputs[name]] = x
        return _evaluate(tape.slice([number]), env)[number]

    return is_affine(of, avals[name], others)


def is_affine(function: Callable[[Any, Any], Any], aval: Any, rest: Any) -> bool | None:
    """Whether ``function(x, rest)`` is affine in the arrays ``x`` by JAX's derivative rules.

    None where JAX has no derivative of it.
    """

    def tangent(x: Any, dx: Any, rest: Any) -> Any:
        return jax.jvp(lambda x: function(x, rest), (x,), (dx,))[1]

    try:
        closed = jax.make_jaxpr(tangent)(aval, aval, rest)
    except (NotImplementedError, TypeError, ValueError):  # primitives, custom_vjp; callbacks
        return None
    _, used = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return not any(used[: len(jax.tree.leaves(aval))])


def _evaluate(equations: Iterable[Equation], env: dict[int, Any]) -> dict[int, Any]:
    """Evaluate equations, and functions with derivatives of their own by what they compute."""
    for equation in equations:
        values = [env[v] for v in equation.inputs]
        if call_for(equation.primitive.name) and "call_jaxpr" in equation.params:
            tape, outputs = body_tape(equation.params["call_jaxpr"])
            inner = dict(zip(tape.inputs.values(), values, strict=True))
            inner = _evaluate(tape.slice(outputs), {**tape.constants, **inner})
            results = [inner[v] for v in outputs]
        else:
            results = equation.bind(*values)
        env.update(zip(equation.outputs, results, strict=True))
    return env
