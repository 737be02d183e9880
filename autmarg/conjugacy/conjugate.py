"""The densities of a conjugacy: the marginal likelihood of the children, and x given them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to

from autmarg.conjugacy.families import Family
from autmarg.conjugacy.language import Rule
from autmarg.conjugacy.marginal_likelihood import aggregates_of, jax_function, marginal_likelihood
from autmarg.conjugacy.reading import BUILDERS
from autmarg.conjugacy.shared import Shared
from autmarg.ir.tape import Tape

_REACH = 15.0  # in unconstrained units: beyond, a float may not hold the distance to a bound


@dataclass(frozen=True, eq=False)
class ChildStatistics:
    """What one child site says of x: tape numbers, evaluated at the kept latents.

    Attributes:
        rule: by which it updates the prior.
        aggregates: of the rule, [R] (or [R, K] for vectors), over the rows of each element of x.
        own: Σ H over all rows, a scalar; where the rule is evaluated at one x, what else there is
            that does not depend on x, and the rows' y and what else they have, [n] or [n, K].
        rows: the element of x that each of those rows reads.
    """

    rule: Rule
    aggregates: tuple[int, ...]
    own: tuple[int, ...]
    rows: np.ndarray

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.aggregates, *self.own)


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """What each row of one child site says of x; the numbers are of a tape.

    Attributes:
        site: its name.
        rule: by which it updates the prior.
        terms: of the rule's aggregates, [n] (or [n, K]).
        own: H of each row, [n]; where the rule is evaluated at one x, what else there is in H,
            and the rows' y and what else they have.
        rows: the element of x that each reads.
        order: places of the rows among all rows of the site, of shape ``shape``.
    """

    site: str
    rule: Rule
    terms: tuple[int, ...]
    own: tuple[int, ...]
    rows: np.ndarray
    order: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ConjugateMarginal:
    """One latent x, all elements of which have children of their own (or none).

    Attributes:
        member: name of x; ``shape`` is its.
        family: of its prior, with ``parameters``, [R] each (or [R, K]).
        children: one for each child site. Each updates the posterior that those before it left.
        tape: on which the numbers are.
        shared: Gaussian marginals that share x, which update it after them; their members are
            drawn given x.
        each: makes the statistics of single rows, and the tape that they are on.
    """

    member: str
    shape: tuple[int, ...]
    family: Family
    parameters: tuple[int, ...]
    children: tuple[ChildStatistics, ...]
    tape: Tape
    shared: tuple[Shared, ...] = ()
    each: Callable[[], tuple[Tape, tuple[RowStatistics, ...]]] | None = None

    @property
    def inputs(self) -> frozenset[str]:
        """Names of what the density depends on."""
        own = self.tape.dependencies(self._numbers)
        return own.union(*(b.density.inputs for b in self.shared)) - {self.member}

    @property
    def flat(self) -> dict[str, Any]:
        """Of members with a flat prior, which elements have it."""
        return {name: f for b in self.shared for name, f in b.density.flat.items()}

    @property
    def _numbers(self) -> list[int]:
        return [*self.parameters, *(v for child in self.children for v in child.numbers)]

    def log_density(self, values: Mapping[str, Any]) -> Any:
        """log p(children | θ), a scalar."""
        return self._updated(values)[1]

    def draw(
        self, values: Mapping[str, Any], key: Any, spread: float = 1.0
    ) -> tuple[dict[str, Any], Any]:
        """A draw of x (then of what shares it), and its log-density.

        Far ones of x are away in unconstrained space.
        """
        posterior = self._posterior(values)
        x = posterior.sample(key)
        if not isinstance(spread, float) or spread != 1.0:  # traced, or far
            other = posterior.sample(jax.random.fold_in(key, 1))
            x = away(posterior.support, x, other, spread)
        drawn, density = {self.member: x}, posterior.log_prob(x).sum()
        for k, each in enumerate(self.shared):
            given = self._at(values, x)
            more, term = each.density.draw(given, jax.random.fold_in(key, 2 + k), spread)
            drawn, density = drawn | more, density + term
        return drawn, density

    def log_conditional(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Any:
        """log p(x | children, θ), and of what shares x given it."""
        posterior = self._posterior(values)
        x = members[self.member].reshape(posterior.batch_shape + posterior.event_shape)
        density = posterior.log_prob(x).sum()
        for each in self.shared:
            own = {name: members[name] for name in each.names}
            density = density + each.density.log_conditional(self._at(values, x), own)
        return density

    def moments(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Conditional mean and variance; the means of what shares x do not depend on it."""
        parameters = self._updated(values)[0]
        posterior = BUILDERS[self.family.name](*parameters)
        found = {self.member: (posterior.mean, posterior.variance)}
        for each in self.shared:
            times = each.variance(self.family.name, parameters)
            given = each.density.moments(self._at(values, jnp.ones(1)))
            found |= {name: (mean, times * at_one) for name, (mean, at_one) in given.items()}
        return found

    def _at(self, values: Mapping[str, Any], x: Any) -> dict[str, Any]:
        """The values with that of x."""
        return {**values, self.member: jnp.reshape(x, self.shape)}

    def _posterior(self, values: Mapping[str, Any]) -> Any:
        """The conditional distribution of x, its elements in a row."""
        return BUILDERS[self.family.name](*self._updated(values)[0])

    def _updated(self, values: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """The parameters of x given its children, and the log marginal likelihood."""
        numbers = iter(self.tape.evaluate(self._numbers, values))
        parameters = [next(numbers) for _ in self.parameters]
        total: Any = 0.0
        for child in self.children:
            aggregates = [next(numbers) for _ in child.aggregates]
            own = [next(numbers) for _ in child.own]
            if self.family.vector:
                aggregates = [jnp.broadcast_to(a, parameters[0].shape) for a in aggregates]
            after = [f(*parameters, *aggregates) for f in updates_of(child.rule)]
            pairs = zip(after, parameters, strict=True)
            after = [jnp.broadcast_to(new, old.shape) for new, old in pairs]
            total = total + self._likelihood(child, parameters, aggregates, after, own)
            parameters = after
        for each in self.shared:
            aggregates, own = each.statistics(self._at(values, jnp.ones(1)))
            after = [f(*parameters, *aggregates) for f in updates_of(each.rule)]
            gain = marginal_likelihood(each.rule).parameters(*parameters, *aggregates)
            total, parameters = total + jnp.sum(gain) + own, after
        return parameters, total

    def _likelihood(
        self, child: ChildStatistics, before: Any, aggregates: Any, after: Any, own: list[Any]
    ) -> Any:
        formula = marginal_likelihood(child.rule)
        if not formula.at_one_x:
            return jnp.sum(formula.parameters(*before, *aggregates)) + own[0]
        posterior = BUILDERS[self.family.name](*after)
        x = biject_to(posterior.support)(jnp.zeros(before[0].shape))
        if self.family.vector:
            x = jnp.full(before[0].shape, 1.0 / before[0].shape[-1])
        gain = jnp.sum(formula.parameters(x, *before, *aggregates))
        return own[0] + gain + summed(formula.child(x[child.rows], *own[1:]), own[1])


def away(support: Any, x: Any, other: Any, spread: Any) -> Any:
    """A point ``spread`` times as far from a draw ``other`` as x is, in unconstrained space; x
    itself at a ``spread`` of one."""
    to_support = biject_to(support)
    here, there = to_support.inv(x), to_support.inv(other)
    step = spread * (here - there)
    return jnp.where(spread == 1.0, x, to_support(there + _REACH * jnp.tanh(step / _REACH)))


def summed(terms: Any, like: Any) -> Any:
    """The sum of one term for each row of ``like`` (also where the terms are one number)."""
    count = like.shape[0]
    terms = jnp.asarray(terms, jnp.result_type(float))
    return jnp.sum(terms) if terms.shape[:1] == (count,) else count * jnp.sum(terms)


@cache
def updates_of(rule: Rule) -> tuple[Callable[..., Any], ...]:
    """New parameters as functions of the old ones and of the aggregates."""
    symbols = aggregates_of(rule)
    arguments = (*rule.prior.arguments, *symbols.values())
    return tuple(jax_function(arguments, update.xreplace(symbols)) for update in rule.updates)
