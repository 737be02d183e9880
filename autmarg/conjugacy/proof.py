"""The proof of a rule: that its posterior is the posterior, for any number of children.

With η the parameters of the prior, η' = U(η, y) those after one child,

1. *posterior*: D(x) = log p(x | η) + log p(y | x) - log p(x | η') does not depend on x;
2. *many children*: U(U(η, S), T) = U(η, S and T together), so that the update for any number of
   children is that of one after the other, and none leave η as it is. With 1, D for n children is a
   sum of n such differences, and so depends on x as little as one of them;
3. *parameters*: η' may be parameters of the prior, and the child's parameters are in their sets for
   every x of the prior's support;
4. *support*: a child's value is possible for exactly those x that the posterior holds possible.

Then D is the log marginal likelihood (both densities of x integrate to one: the families' own
normalisation is a fact about :mod:`~autmarg.conjugacy.families`, which the tests check).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import sympy

from autmarg.conjugacy.families import (
    BINARY,
    COUNT,
    NONNEGATIVE,
    POSITIVE,
    REAL,
    UNIT,
    Expr,
    Total,
    onehot,
)
from autmarg.conjugacy.language import TOGETHER, Aggregate, Rule
from autmarg.errors import UnprovedRuleError, WrongRuleError

POINTS = 24  # at which an identity is checked numerically where simplification gives up
DIGITS = 50
_COORDINATES = 3  # of a vector, then


@dataclass(frozen=True)
class Proof:
    """What was shown of a rule, and how: by sympy, or numerically."""

    rule: Rule
    steps: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = (f"  {claim}: {how}" for claim, how in self.steps)
        return "\n".join([f"{self.rule.name}: proved", *lines])


@cache
def prove(rule: Rule) -> Proof:
    """Prove a rule.

    Raises:
        WrongRuleError: it is refuted; shows what is left over.
        UnprovedRuleError: it could be neither proved nor refuted.
    """
    return Proof(rule, tuple(_steps(rule)))


def _steps(rule: Rule) -> Iterator[tuple[str, str]]:
    yield "posterior", _posterior(rule)
    yield "many children", _many(rule)
    yield "parameters", _parameters(rule)
    yield "support", _support(rule)


def _wrong(rule: Rule, what: str, residual: object) -> WrongRuleError:
    return WrongRuleError(f"rule '{rule.name}' is wrong: {what}: found {residual}")


def _unproved(rule: Rule, what: str, residual: object, why: str) -> UnprovedRuleError:
    return UnprovedRuleError(
        f"rule '{rule.name}' could be neither proved nor refuted: {what}: left over is {residual}, "
        f"which {why}; write the update in simpler terms, or the child without what is not needed"
    )


# 1. The posterior.


def after_one(rule: Rule) -> tuple[Expr, ...]:
    """The parameters of x given one child."""
    return tuple(u.replace(lambda e: isinstance(e, Aggregate), _only) for u in rule.updates)


def _only(aggregate: Aggregate) -> Expr:
    return aggregate.args[0]


def difference(rule: Rule) -> Expr:
    """D(x) for one child."""
    prior = rule.prior
    after = prior.family.log_density(prior.variable, after_one(rule))
    return prior.log_density + rule.child.log_density - after


def _posterior(rule: Rule) -> str:
    x, d = rule.prior.variable, difference(rule)
    derivative = sympy.simplify(sympy.diff(d, x))
    if derivative == 0:
        return "sympy (the derivative in x is 0)"
    if rule.child.family.support in (COUNT, BINARY):
        # Gamma functions of integers: the ratio of the densities at two values of x.
        other = sympy.Dummy("x_0", **x.assumptions0)
        ratio = sympy.simplify(sympy.combsimp(sympy.exp(d - d.xreplace({x: other}))))
        if ratio == 1:
            return "sympy (the ratio at two values of x is 1)"
    words = f"the derivative in {x} of log p(x) + log p(y | x) - log p(x | y) should be 0"
    return _numerically(rule, [(derivative, words)])


# 2. Any number of children.


def _many(rule: Rule) -> str:
    parameters = rule.prior.arguments
    some, more, both, none = {}, {}, {}, {}
    for k, aggregate in enumerate(rule.aggregates):
        first, second = (sympy.Dummy(f"{n}_{k}", real=True) for n in "st")
        together, identity = TOGETHER[type(aggregate)]
        some[aggregate], more[aggregate] = first, second
        both[aggregate], none[aggregate] = together(first, second), identity
    middle = dict(zip(parameters, (u.xreplace(some) for u in rule.updates), strict=True))
    claims = []
    for parameter, update in zip(parameters, rule.updates, strict=True):
        twice = update.xreplace(more).xreplace(middle)
        words = f"{parameter} after some children and then others, less {parameter} after all"
        claims.append((twice - update.xreplace(both), f"{words} should be 0"))
        words = f"{parameter} after no children, less {parameter}, should be 0"
        claims.append((update.xreplace(none) - parameter, words))
    left = [(s, words) for e, words in claims if (s := sympy.simplify(e)) != 0]
    if not left:
        return "sympy (updates compose)"
    return _numerically(rule, left)


# 3. Parameters.


def _parameters(rule: Rule) -> str:
    how, prior, child = [], rule.prior.family, rule.child.family
    if prior.vector != child.vector:
        raise _wrong(rule, "prior and child should be about vectors, or neither", child.name)
    for family, arguments in ((prior, after_one(rule)), (child, rule.child.arguments)):
        for (name, kind), argument in zip(family.parameters, arguments, strict=True):
            what = f"{family.name}'s {name} should be {kind} for every x"
            if kind == COUNT and not (argument.is_integer and argument.is_nonnegative):
                raise _wrong(rule, what, argument)
            if family is child and name in family.vectors and argument != rule.prior.variable:
                raise _wrong(rule, f"{family.name}'s {name} should be x itself", argument)
            for part in _positive_parts(kind, argument):
                how.append(_positive(rule, part, kind == NONNEGATIVE, what))
        low, high = family.limits(sympy.Dummy("x"), arguments)
        if low is not None and high is not None:
            how.append(_positive(rule, high - low, False, f"{family.name} should have a length"))
    return max(how, key=lambda h: h != _BY_SYMPY, default=_BY_SYMPY)


_BY_SYMPY = "sympy"


def _positive_parts(kind: str, argument: Expr) -> tuple[Expr, ...]:
    """What must be positive for an argument to be of its kind."""
    if kind in (POSITIVE, NONNEGATIVE):
        return (argument,)
    if kind == UNIT:
        return (argument, 1 - argument)
    return ()


def _positive(rule: Rule, expression: Expr, or_zero: bool, words: str) -> str:
    for case in _cases(rule):
        free = expression.subs(case, simultaneous=True)
        if not any(_is_positive(form, or_zero) for form in (free, sympy.factor(free))):
            break
    else:
        return _BY_SYMPY
    for value in (_at(expression, point) for point in _points(rule)):
        if not value.is_finite:
            raise _unproved(rule, words, expression, f"has the value {value} at some points")
        if not (value.is_comparable and (value > 0 or (or_zero and value == 0))):
            raise _wrong(rule, words, expression)
    return f"numerically, at {POINTS} points"


def _is_positive(expression: Expr, or_zero: bool) -> bool:
    return bool(expression.is_positive or (or_zero and expression.is_nonnegative))


def _cases(rule: Rule) -> Iterator[dict[Expr, Expr]]:
    """Every symbol in terms of symbols that are free but for their sign: what sympy can reason by.

    One for each value of a binary y.
    """
    prior, child = rule.prior, rule.child
    free: dict[Expr, Expr] = {}
    for symbol, kind in _kinds(rule).items():
        u = sympy.Dummy(f"u_{symbol}", positive=True)
        free[symbol] = u / (1 + u) if kind == UNIT else symbol
    x, y, u = prior.variable, child.variable, sympy.Dummy("u", positive=True)
    low, _ = prior.family.limits(x, prior.arguments)
    if low is not None:
        free[x] = low + u
    low, high = child.family.limits(y, child.arguments)
    if child.family.support == BINARY:
        yield from ({**free, y: sympy.Integer(value)} for value in (0, 1))
        return
    if isinstance(high, sympy.Symbol) and low is None:  # y = 0, …, n
        free[high] = y + sympy.Dummy("u", integer=True, nonnegative=True)
    elif low is not None and high is not None:
        inside = (low + u * high) / (1 + u)
        free[y] = inside.subs(free, simultaneous=True)
    yield free


# 4. Support.


def _support(rule: Rule) -> str:
    """The possible x, from the prior's limits and from what the child's value says of them."""
    prior, child = rule.prior, rule.child
    x, y = prior.variable, child.variable
    low, high = prior.family.limits(x, prior.arguments)
    lows, highs = ([b] if b is not None else [] for b in (low, high))
    for bound, above in zip(child.family.limits(y, child.arguments), (False, True), strict=True):
        if bound is None or x not in bound.free_symbols:
            continue
        # y < bound(x), or y > bound(x), solved for x.
        try:
            solutions = sympy.solve(bound - y, x)
        except NotImplementedError:  # sympy has no method for it
            solutions = []
        slope = sympy.diff(bound, x).subs(next(_cases(rule)), simultaneous=True)
        if len(solutions) != 1 or slope.is_positive is None:
            words = f"the {x} that allow {y} should be those of the posterior"
            raise _unproved(rule, words, bound, f"cannot be solved for {x}")
        (lows if slope.is_positive == above else highs).append(solutions[0])
    for (bounds, join), own in zip(
        ((lows, sympy.Max), (highs, sympy.Min)),
        prior.family.limits(x, after_one(rule)),
        strict=True,
    ):
        possible = join(*bounds) if bounds else None
        if possible is None and own is None:
            continue
        if possible is None or own is None or sympy.simplify(possible - own) != 0:
            words = f"the {x} that children allow have the bound {possible}"
            raise _wrong(rule, f"{words}, the posterior's should be the same", own)
    return _BY_SYMPY


# Numbers.


def _kinds(rule: Rule) -> dict[Expr, str]:
    kinds = dict(zip(rule.prior.arguments, (k for _, k in rule.prior.family.parameters),
                     strict=True))  # fmt: skip
    kinds[rule.prior.variable] = rule.prior.family.support
    kinds[rule.child.variable] = rule.child.family.support
    return {**kinds, **dict(rule.others)}


def _points(rule: Rule) -> Iterator[dict[Expr, Expr]]:
    """Exact points that respect all conditions."""
    rng = random.Random(0)
    for _ in range(POINTS):
        point = {s: _number(rng, kind) for s, kind in _kinds(rule).items()}
        x, y, child = rule.prior.variable, rule.child.variable, rule.child
        low, _high = rule.prior.family.limits(x, rule.prior.arguments)
        if low is not None:
            point[x] = low.subs(point) + _number(rng, POSITIVE)
        low, high = (b if b is None else b.subs(point) for b in child.family.limits(
            y, child.arguments))  # fmt: skip
        if low is None and isinstance(high, sympy.Integer):
            point[y] = sympy.Integer(rng.randint(0, int(high)))
        elif low is not None and high is not None:
            point[y] = low + (high - low) * _number(rng, UNIT)
        yield point


def _number(rng: random.Random, kind: str) -> Expr:
    if kind in (COUNT, BINARY):
        return sympy.Integer(rng.randint(0, 1 if kind == BINARY else 9))
    unit = sympy.Rational(rng.randint(1, 999), 1000)
    return {UNIT: unit, REAL: 8 * unit - 4}.get(kind, 5 * unit)


def _numerically(rule: Rule, claims: list[tuple[Expr, str]]) -> str:
    """That expressions are zero at random points, or an error."""
    rng = random.Random(1)
    for residual, words in claims:
        for point in _points(rule):
            rest = {s: _number(rng, REAL) for s in residual.free_symbols - set(point)}
            value = _at(_coordinates(residual), {**point, **rest})
            if not value.is_finite:
                raise _unproved(rule, words, residual, f"has the value {value} at some points")
            if not abs(value) < sympy.Float(10) ** (10 - DIGITS):
                raise _wrong(rule, words, residual)
    return f"numerically, to {DIGITS - 10} digits at {POINTS} points"


def _at(expression: Expr, point: dict[Expr, Expr]) -> Expr:
    """The number that an expression is at a point; an indicator is 0 or 1 by its label's parity."""
    value = expression.subs(point)
    indicators = {e: sympy.floor(e.args[0]) % 2 for e in value.atoms(onehot)}
    return sympy.N(value.xreplace(indicators), DIGITS)


def _coordinates(expression: Expr) -> Expr:
    """Totals written out over coordinates, of which the first has the symbols' own values."""

    def written(total: Expr) -> Expr:
        (term,) = total.args
        scaled = ({s: s * sympy.Rational(1, k + 1) for s in term.free_symbols}
                  for k in range(_COORDINATES))  # fmt: skip
        return sympy.Add(*(term.subs(s, simultaneous=True) for s in scaled))

    return expression.replace(lambda e: isinstance(e, Total), written)
