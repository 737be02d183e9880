"""The marginal likelihood of children, derived from a proved rule.

D = log p(x | η) + Σ log p(y_i | x) - log p(x | η') is the same for every x. Where the terms with x
in them cancel symbol for symbol, it is

    D = -ΔA + Σ H(y_i),    ΔA = A(η') - A(η)

with A and H what is left of the log-densities without those terms: that is evaluated. ΔA is written
in η and in its increments, since in floats A(η') - A(η) is nothing but rounding for large η: log Γ
of 10¹⁷ has an error of hundreds. Elsewhere D is evaluated as it stands, at one x that the posterior
holds possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import sympy
from jax.scipy.special import gammaln

from autmarg.conjugacy.families import Expr, Total
from autmarg.conjugacy.language import Rule
from autmarg.conjugacy.proof import after_one

Function = Callable[..., Any]
_STIRLING = 50.0  # from which three terms of the series of log Γ are exact to the last digit


def log_rising(a: Any, s: Any) -> Any:
    """log Γ(a + s) - log Γ(a), without cancellation for large a."""
    large = jnp.minimum(a, a + s) > _STIRLING
    # Each branch sees numbers of its own, so that no gradient is taken where it is not defined.
    big, more = jnp.where(large, a, _STIRLING), jnp.where(large, s, 0.0)
    series = (big + more - 0.5) * jnp.log1p(more / big) + more * (jnp.log(big) - 1)
    series = series + _remainder(big + more) - _remainder(big)
    small, above = jnp.where(large, 1.0, a), jnp.where(large, 1.0, a + s)
    return jnp.where(large, series, gammaln(above) - gammaln(small))


def _remainder(x: Any) -> Any:
    """Of Stirling's formula for log Γ(x)."""
    square = 1 / (x * x)
    return (1 / 12 - square * (1 / 360 - square / 1260)) / x


_LOG1P, _LOG_RISING = sympy.Function("log1p"), sympy.Function("log_rising")
_JAX = {
    "log1p": jnp.log1p, "log_rising": log_rising,
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
        parameters: -ΔA, a function of the prior's parameters and of the rule's aggregates.
        child: H, a function of y and of what else the child has, in the order of ``rule.others``.
        at_one_x: whether they are those of the whole log p(x | η) and log p(y | x), functions of
            an x as well, first.
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
    one = _expanded(kernel + likelihood - after) != 0
    moved = dict(zip(prior.arguments, _increments(rule), strict=True))
    gain = -_change(prior.log_density if one else before, moved)
    point = (x,) if one else ()
    return MarginalLikelihood(
        jax_function((*point, *prior.arguments, *aggregates_of(rule).values()), gain),
        jax_function((*point, y, *rest), log_density if one else own),
        one,
    )


@cache
def aggregates_of(rule: Rule) -> dict[Expr, Expr]:
    """A symbol for each aggregate, which no name in a rule can be."""
    return {a: sympy.Dummy(f"s_{k}", real=True) for k, a in enumerate(rule.aggregates)}


def _increments(rule: Rule) -> list[Expr]:
    """What the updates add to the parameters."""
    symbols, pairs = aggregates_of(rule), zip(rule.updates, rule.prior.arguments, strict=True)
    return [sympy.expand(update.xreplace(symbols) - old) for update, old in pairs]


def _change(f: Expr, moved: dict[Expr, Expr]) -> Expr:
    """f(η + δ) - f(η) for η → δ in ``moved``, so that small changes of large numbers stay exact."""
    if not f.free_symbols & set(moved):
        return sympy.Integer(0)
    if f in moved:
        return moved[f]
    if f.is_Add:
        return sympy.Add(*(_change(term, moved) for term in f.args))
    if f.is_Mul:
        first, rest = f.as_two_terms()
        return _change(first, moved) * rest + _after(first, moved) * _change(rest, moved)
    if isinstance(f, Total):
        return Total(sympy.expand(_change(f.args[0], moved)))
    if isinstance(f, sympy.log):
        return _LOG1P(_change(f.args[0], moved) / f.args[0])
    if isinstance(f, sympy.loggamma):
        return _LOG_RISING(f.args[0], _change(f.args[0], moved))
    return _after(f, moved) - f


def _after(f: Expr, moved: dict[Expr, Expr]) -> Expr:
    return f.subs({old: old + more for old, more in moved.items()}, simultaneous=True)


def jax_function(arguments: Sequence[Expr], expression: Expr) -> Function:
    """A sympy expression as a function of arrays."""
    return sympy.lambdify(arguments, expression, modules=[_JAX])


def _split(expression: Expr, x: Expr) -> tuple[Expr, Expr]:
    """The terms of a sum without x, and those with it."""
    return _expanded(expression).as_independent(x, as_Add=True)


def _expanded(expression: Expr) -> Expr:
    """A sum, the logarithms of products written out."""
    return sympy.expand(sympy.expand_log(expression, force=True))
