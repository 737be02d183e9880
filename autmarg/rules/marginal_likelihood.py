"""The marginal likelihood of children, derived from a proved rule.

D = log p(x | η) + Σ log p(y_i | x) - log p(x | η') is the same for every x. Where the terms with x
in them cancel symbol for symbol, it is

    D = A(η) - A(η') + Σ H(y_i)

with A and H what is left of the log-densities without those terms: that is evaluated. Elsewhere D
is evaluated as it stands, at one x that the posterior holds possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import sympy
from jax.scipy.special import gammaln

from autmarg.rules.families import Expr
from autmarg.rules.language import Rule
from autmarg.rules.proof import after_one

Function = Callable[..., Any]
_JAX = {
    "loggamma": gammaln, "log": jnp.log, "exp": jnp.exp, "sqrt": jnp.sqrt,
    "onehot": lambda v: v,
    "Max": lambda *a: _reduced(jnp.maximum, a), "Min": lambda *a: _reduced(jnp.minimum, a),
    "Total": lambda a: jnp.sum(a, axis=-1, keepdims=True), "pi": jnp.pi,
}  # fmt: skip


def _reduced(operation: Function, values: Sequence[Any]) -> Any:
    out = values[0]
    for value in values[1:]:
        out = operation(out, value)
    return out


@dataclass(frozen=True)
class MarginalLikelihood:
    """D of a rule in JAX; the coordinates of vectors are the last axis.

    Attributes:
        parameters: A, a function of the prior's parameters.
        child: H, a function of y and of what else the child has, in the order of ``rule.others``.
        at_one_x: whether A and H are functions of x as well, first.
    """

    parameters: Function
    child: Function
    at_one_x: bool


@cache
def marginal_likelihood(rule: Rule) -> MarginalLikelihood:
    """Derive it."""
    x, prior = rule.prior.variable, rule.prior
    others = tuple(symbol for symbol, _ in rule.others)
    # sympy writes the log-gamma function of an integer as the logarithm of one that overflows.
    plain = {s: sympy.Symbol(s.name, real=True) for s in (rule.child.variable, *others)}
    y, *rest = plain.values()
    arguments = tuple(a.xreplace(plain) for a in rule.child.arguments)
    log_density = rule.child.family.log_density(y, arguments)
    before, kernel = _split(prior.log_density, x)
    own, likelihood = _split(log_density, x)
    updated = (u.xreplace(plain) for u in after_one(rule))
    after = kernel.subs(dict(zip(prior.arguments, updated, strict=True)), simultaneous=True)
    if _expanded(kernel + likelihood - after) == 0:
        return MarginalLikelihood(
            jax_function(prior.arguments, before), jax_function((y, *rest), own), False
        )
    return MarginalLikelihood(
        jax_function((x, *prior.arguments), prior.log_density),
        jax_function((x, y, *rest), log_density),
        True,
    )


def jax_function(arguments: Sequence[Expr], expression: Expr) -> Function:
    """A sympy expression as a function of arrays."""
    return sympy.lambdify(arguments, expression, modules=[_JAX])


def _split(expression: Expr, x: Expr) -> tuple[Expr, Expr]:
    """The terms of a sum without x, and those with it."""
    return _expanded(expression).as_independent(x, as_Add=True)


def _expanded(expression: Expr) -> Expr:
    """A sum, the logarithms of products written out."""
    return sympy.expand(sympy.expand_log(expression, force=True))
