"""A variance (or precision) that a whole Gaussian marginal shares: normal-inverse-gamma.

Let every standard deviation in the marginal, of priors and of noise, be c · xᵖ with c free of x,
and let nothing else in it read x. Then its n rows are

    y | x, θ ~ N(m, x²ᵖ Σ),    log p(y | x, θ) = K - n p log x - Q / (2 x²ᵖ),

K and Q being the log-normaliser and the sum of squares at x = 1. Whitened by Σ the rows are n
children N(0, xᵖ) whose squares add up to Q, so the rule of a single normal child applies (O'Hagan &
Forster 2004, Kendall's Advanced Theory of Statistics 2B, section 11.4, for one such marginal).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import sympy

from autmarg.analysis.naming import located
from autmarg.analysis.sites import GaussianSite
from autmarg.conjugacy.child import inputs_of
from autmarg.conjugacy.families import POSITIVE
from autmarg.conjugacy.language import Rule, SumOver
from autmarg.conjugacy.marginal_likelihood import marginal_likelihood
from autmarg.conjugacy.monomial import Monomial, NoMatch
from autmarg.conjugacy.monomial_interpreter import MonomialInterpreter
from autmarg.conjugacy.pattern import ArgumentPattern, patterns, shown
from autmarg.conjugacy.reading import BUILDERS
from autmarg.gaussian.marginal import Eliminated, GaussianMarginal
from autmarg.ir.nodes import Observe, Sample, StandIn
from autmarg.ir.tape import Tape

_POWERS = {Fraction(1, 2): "square root", Fraction(-1, 2): "inverse square root"}
_RECIPROCAL = {"Gamma": "InverseGamma", "InverseGamma": "Gamma"}  # of 1 / x, same parameters


class GaussianGroup(Eliminated, Protocol):
    """Sites of one Gaussian marginal: those integrated out, and those that read them."""

    @property
    def name(self) -> str: ...

    @property
    def members(self) -> tuple[Sample, ...]: ...

    @property
    def children(self) -> tuple[Sample, ...]: ...

    @property
    def observed(self) -> tuple[Observe, ...]: ...

    @property
    def stand_ins(self) -> tuple[StandIn, ...]: ...

    @property
    def sites(self) -> tuple[Sample, ...]:
        """All whose density it has."""
        ...

    @property
    def structure(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Shared:
    """A Gaussian marginal as children of x.

    Attributes:
        rule: by which it updates the prior.
        group: the sites of the marginal.
        rows: of the marginal, n.
        aggregates: (a, b) for each of the rule's, whose value is a + b Q.
        power: 2p, 1 for a variance and -1 for a precision.
    """

    rule: Rule
    group: GaussianGroup
    rows: int
    aggregates: tuple[tuple[float, float], ...]
    power: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of the marginal's members."""
        return tuple(member.name for member in self.group.members)

    def statistics(self, squares: Any) -> list[Any]:
        """The aggregates, [1] each, for a sum of squares Q at x = 1."""
        return [jnp.reshape(a + b * squares, 1) for a, b in self.aggregates]

    def variance(self, family: str, parameters: list[Any]) -> Any:
        """E x²ᵖ under x ~ family(parameters): what the members' variances at x = 1 are times."""
        name = family if self.power == 1 else _RECIPROCAL[family]
        return BUILDERS[name](*parameters).mean.reshape(())


def shared(
    tape: Tape, latent: Sample, group: GaussianGroup, sites: Mapping[str, GaussianSite], rule: Rule
) -> Shared:
    """A Gaussian marginal under a rule, proved to share ``latent``'s scale.

    Raises:
        NoMatch: it does not; ``near`` where some scale has the latent to the right power.
    """
    scale, power = _scale(rule)
    if group.stand_ins:
        raise NoMatch("the marginal is a surrogate of one that is not Gaussian")
    unread: list[NoMatch] = []
    density = GaussianMarginal.of(group)
    flat = {n for n, whole in density.flat.items() if whole.all()}
    nodes = tuple(n for n in (*group.members, *group.observed) if n.name not in flat)
    for node in nodes:
        site = sites[node.name]
        deviation = site.scale if site.scale is not None else site.scale_tril
        assert deviation is not None
        if node.name in density.flat:
            words = f"a mask takes out a part of the density of {located(node)}"
            raise NoMatch(words, place=node.place, near=True)
        if site.power is not None:
            words = f"{located(node)} is under handlers.scale"
            raise NoMatch(words, place=node.place, near=True)
        free = (site.loc, site.value, site.basis, site.log_jacobian, site.mask)
        if latent.name in tape.dependencies(v for v in free if v is not None):
            words = f"it enters more of {located(node)} than its scale"
            near = latent.name in tape.dependencies([deviation])
            raise NoMatch(words, place=node.place, near=near)
        try:
            _check_power(tape, latent, deviation, scale)
        except NoMatch as mismatch:
            words = f"the scale of {located(node)} {mismatch}"
            found = NoMatch(words, mismatch.equation, node.place, mismatch.near)
            if not mismatch.near:
                raise found from mismatch
            unread.append(found)
    if unread:
        unread[0].near = len(unread) < len(nodes)
        raise unread[0]
    if latent.size != 1:
        words = f"it has {latent.size} elements, where a Gaussian marginal can share one"
        raise NoMatch(words, near=True)
    if group.children:
        child = group.children[0]
        raise NoMatch(f"{located(child)} is sampled, not observed", place=child.place, near=True)
    return Shared(rule, group, density.rows, _aggregates(rule, density.rows, scale), power)


def _scale(rule: Rule) -> tuple[ArgumentPattern, int]:
    """The pattern of a normal child's scale, and 2p.

    Raises:
        NoMatch: the rule has no child N(m, e xᵖ) of a variance or a precision x.
    """
    words = f"the {rule.title} rule has no child with a scale of its own"
    prior, child = rule.prior.family, rule.child.family
    if child.name != "Normal" or prior.support != POSITIVE:
        raise NoMatch(words)
    loc, scale = patterns(rule)
    plain = loc.number == scale.number == loc.r == 1 and loc.other and scale.other
    if not plain or loc.of_x or scale.q or abs(2 * scale.p) != 1:
        raise NoMatch(words)
    if marginal_likelihood(rule).at_one_x:
        raise NoMatch(f"the {rule.title} rule's marginal likelihood is evaluated at a value of x")
    if scale.p < 0 and prior.name not in _RECIPROCAL:
        raise NoMatch(f"the law of 1 / x is not known for x ~ {prior.name}")
    return scale, int(2 * scale.p)


def _check_power(tape: Tape, latent: Sample, number: int, scale: ArgumentPattern) -> None:
    """A value is c · xᵖ in all its entries, c possibly zero.

    Raises:
        NoMatch: it is not.
    """
    names = inputs_of(tape, [number], latent.name)

    def look(*arrays: Any) -> None:
        values = dict(zip(names, arrays, strict=True))
        value = MonomialInterpreter(tape, latent.name, values, True, False, zeros=True).read(number)
        if not isinstance(value, Monomial):
            words = f"is not a multiple of the {_POWERS[scale.p]} of '{latent.name}'"
            raise NoMatch(f"{words}, which a rule needs for all sites of the marginal", near=True)
        if value.log or value.powers != (scale.p, 0):
            raise NoMatch(f"is {shown(value)}, but the rule needs {scale.text}")

    jax.eval_shape(look, *(tape.avals[tape.inputs[n]] for n in names))


def _aggregates(rule: Rule, n: int, scale: ArgumentPattern) -> tuple[tuple[float, float], ...]:
    """The rule's aggregates of n children with m = 0, e = 1, as functions a + b Q of Σ y² = Q.

    Raises:
        NoMatch: one is another function of the children.
    """
    y, standard = rule.child.variable, {patterns(rule)[0].other: 0, scale.other: 1}
    found = []
    for aggregate in rule.aggregates:
        each = sympy.expand(aggregate.args[0].xreplace(standard))
        powers = sympy.Poly(each, y).as_dict() if each.is_polynomial(y) else {(1,): 1}
        numbers = all(value.is_number for value in map(sympy.sympify, powers.values()))
        if not isinstance(aggregate, SumOver) or set(powers) - {(0,), (2,)} or not numbers:
            raise NoMatch(f"the {rule.title} rule reads more of its children than a sum of squares")
        found.append((n * float(powers.get((0,), 0)), float(powers.get((2,), 0))))
    return tuple(found)
