"""The densities of a conjugacy: the marginal likelihood of the children, and x given them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to

from autmarg.conjugacy.language import Rule
from autmarg.conjugacy.marginal_likelihood import aggregates_of, jax_function, marginal_likelihood
from autmarg.conjugacy.reading import BUILDERS
from autmarg.conjugacy.update import ChildStatistics, ConjugateUpdate
from autmarg.gaussian.marginal import GaussianMarginal

_REACH = 15.0  # in unconstrained units: beyond, a float may not hold the distance to a bound


@dataclass(frozen=True, eq=False)
class ConjugateMarginal:
    """The marginal of a latent's children, and the latent given them.

    Members of Gaussian marginals that share the latent are drawn given it.
    """

    update: ConjugateUpdate

    @cached_property
    def gaussians(self) -> tuple[GaussianMarginal, ...]:
        """Densities of the Gaussian marginals that share the latent."""
        return tuple(GaussianMarginal.of(each.group) for each in self.update.shared)

    @property
    def inputs(self) -> frozenset[str]:
        """Names of what the density depends on."""
        own = self.update.tape.dependencies(self.update.numbers)
        return own.union(*(each.inputs for each in self.gaussians)) - {self.update.member}

    def log_density(self, values: Mapping[str, Any]) -> Any:
        """log p(children | θ), a scalar."""
        return self._updated(values)[1]

    def draw(
        self, values: Mapping[str, Any], key: Any, stretch: float = 1.0
    ) -> tuple[dict[str, Any], Any]:
        """A draw of x (then of what shares it), and its log-density.

        Far ones of x are away in unconstrained space.
        """
        posterior = self._posterior(values)
        x = posterior.sample(key)
        if not isinstance(stretch, float) or stretch != 1.0:  # traced, or far
            other = posterior.sample(jax.random.fold_in(key, 1))
            x = away(posterior.support, x, other, stretch)
        drawn, density = {self.update.member: x}, posterior.log_prob(x).sum()
        for k, each in enumerate(self.gaussians):
            given = self._at(values, x)
            more, term = each.draw(given, jax.random.fold_in(key, 2 + k), stretch)
            drawn, density = drawn | more, density + term
        return drawn, density

    def log_conditional(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Any:
        """log p(x | children, θ), and of what shares x given it."""
        posterior = self._posterior(values)
        x = members[self.update.member].reshape(posterior.batch_shape + posterior.event_shape)
        density = posterior.log_prob(x).sum()
        for shared, each in zip(self.update.shared, self.gaussians, strict=True):
            own = {name: members[name] for name in shared.names}
            density = density + each.log_conditional(self._at(values, x), own)
        return density

    def moments(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Conditional mean and variance; the means of what shares x do not depend on it."""
        parameters = self._updated(values)[0]
        family = self.update.family.name
        posterior = BUILDERS[family](*parameters)
        found = {self.update.member: (posterior.mean, posterior.variance)}
        for shared, each in zip(self.update.shared, self.gaussians, strict=True):
            times = shared.variance(family, parameters)
            given = each.moments(self._at(values, jnp.ones(1)))
            found |= {name: (mean, times * at_one) for name, (mean, at_one) in given.items()}
        return found

    def _at(self, values: Mapping[str, Any], x: Any) -> dict[str, Any]:
        """The values with that of x."""
        return {**values, self.update.member: jnp.reshape(x, self.update.shape)}

    def _posterior(self, values: Mapping[str, Any]) -> Any:
        """The conditional distribution of x, its elements in a row."""
        return BUILDERS[self.update.family.name](*self._updated(values)[0])

    def _updated(self, values: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """The parameters of x given its children, and the log marginal likelihood."""
        update = self.update
        numbers = iter(update.tape.evaluate(update.numbers, values))
        parameters = [next(numbers) for _ in update.parameters]
        total: Any = 0.0
        for child in update.children:
            aggregates = [next(numbers) for _ in child.aggregates]
            own = [next(numbers) for _ in child.own]
            if update.family.vector:
                aggregates = [jnp.broadcast_to(a, parameters[0].shape) for a in aggregates]
            after = [f(*parameters, *aggregates) for f in updates_of(child.rule)]
            pairs = zip(after, parameters, strict=True)
            after = [jnp.broadcast_to(new, old.shape) for new, old in pairs]
            total = total + self._likelihood(child, parameters, aggregates, after, own)
            parameters = after
        for shared, each in zip(update.shared, self.gaussians, strict=True):
            constant, squares = each.parts(self._at(values, jnp.ones(1)))
            aggregates = shared.statistics(squares)
            after = [f(*parameters, *aggregates) for f in updates_of(shared.rule)]
            gain = marginal_likelihood(shared.rule).parameters(*parameters, *aggregates)
            total, parameters = total + jnp.sum(gain) + constant, after
        return parameters, total

    def _likelihood(
        self, child: ChildStatistics, before: Any, aggregates: Any, after: Any, own: list[Any]
    ) -> Any:
        formula = marginal_likelihood(child.rule)
        if not formula.at_one_x:
            return jnp.sum(formula.parameters(*before, *aggregates)) + own[0]
        posterior = BUILDERS[self.update.family.name](*after)
        x = biject_to(posterior.support)(jnp.zeros(before[0].shape))
        if self.update.family.vector:
            x = jnp.full(before[0].shape, 1.0 / before[0].shape[-1])
        gain = jnp.sum(formula.parameters(x, *before, *aggregates))
        return own[0] + gain + summed(formula.child(x[child.rows], *own[1:]), own[1])


def away(support: Any, x: Any, other: Any, stretch: Any) -> Any:
    """A point ``stretch`` times as far from a draw ``other`` as x is, in unconstrained space; x
    itself at a ``stretch`` of one."""
    to_support = biject_to(support)
    here, there = to_support.inv(x), to_support.inv(other)
    step = stretch * (here - there)
    return jnp.where(stretch == 1.0, x, to_support(there + _REACH * jnp.tanh(step / _REACH)))


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
