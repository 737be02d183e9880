"""Levels integrated out one by one, by quadrature.

Latents u_0, u_1, … are nested: each element of u_0, a level, is independent of the others given an
element of u_1 and what is kept. Every element of a log-density reads at most one level of each. So

    p(y | θ) = ∏ ∫ p(u_1 | θ) p(y_1 | u_1, θ) [∏ ∫ p(u_0 | u_1, θ) p(y_0 | u_0, u_1, θ) du_0] du_1

is a product over levels of one-dimensional integrals. A Gaussian surrogate
(:mod:`autmarg.whitening`) says about where they are and how wide: u = T(θ, z), affine in standard
noise z, and u_0 reads z_0 and z_1. In z each integral is a Gauss-Hermite sum, moved and stretched
to the mean and the standard deviation of its integrand (Naylor & Smith 1982, Applied Statistics
31), which a small rule tells. It is a number near the integral, nearer with more nodes. Where the
nodes are does not matter to the integral, so that derivatives do not go through them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.compat.programs import traced_once
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Observe, Sample
from autmarg.quadrature.rule import Nodes, Rule, Wide, log_integral
from autmarg.quadrature.separable import Layers
from autmarg.quadrature.sums import total

_FIRST = Rule(5)  # by which integrands are found
_FAR, _WIDER, _MOVES = 1.0, 2.5, 40  # deviations, times as wide: a place so far off; steps to one
_STEPS = 2  # of Metropolis after a draw from a table: what is wrong with it goes with their power
Values = Mapping[str, Any]
_Place = tuple[Array, Array]  # centre and width, [levels] each


@dataclass(frozen=True, eq=False)
class QuadratureMarginal:
    """log p(y | θ) and p(u | y, θ) of nested latents, by quadrature.

    Attributes:
        members: u_0, u_1, …, each nested in the next.
        others: all other sites whose density reads one, observed or kept.
        gaussian: the surrogate.
        layers: the log-densities' elements, by what they read.
        rule: of each integral.
    """

    members: tuple[Sample, ...]
    others: tuple[Sample, ...]
    gaussian: GaussianMarginal
    layers: Layers
    rule: Rule

    @property
    def columns(self) -> int:
        """Number of levels integrated out."""
        return sum(m.size for m in self.members)

    @property
    def nodes(self) -> int:
        """Of each integral."""
        return self.rule.count

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of what the density depends on."""
        own = self.layers.tape.dependencies(self.layers.terms)
        own |= {n.name for n in self.others if not isinstance(n, Observe)}
        return (own | self.gaussian.inputs) - {m.name for m in self.members}

    def log_density(self, values: Values) -> Array:
        """log p(y | θ), a scalar."""
        return self._compiled(self._given(values))

    # NumPyro calls it on numbers while it initialises, where each operation would be compiled.
    @cached_property
    def _compiled(self) -> Callable[[dict[str, Any]], Array]:
        return traced_once(lambda values: self.log_density_by(self.rule, values))

    def _given(self, values: Values) -> dict[str, Any]:
        return {name: values[name] for name in self.inputs}

    def log_density_by(self, rule: Nodes, values: Values) -> Array:
        """The same by another rule."""
        given = self._at(values, rule)
        return given.logs(len(self.members) - 1, {}).sum() + given.rest()

    @property
    def work(self) -> int:
        """How many elements of log-densities are evaluated."""
        elements = sum(site.size for site in (*self.members, *self.others))
        return elements * self.rule.count ** len(self.members)

    def change(self, values: Values) -> Array:
        """By how many nats more nodes over a wider range change :meth:`log_density`."""
        wide = Wide(2 * self.rule.count)
        return self.log_density_by(wide, values) - self.log_density_by(self.rule, values)

    def log_conditional(self, values: Values, members: Values) -> Array:
        """log p(u | y, θ) at any values of the members."""
        given = self._at(values)
        z = given.noise({m.name: jnp.reshape(members[m.name], -1) for m in self.members})
        return self._log_conditional(given, z)

    def _log_conditional(self, given: _Given, z: Mapping[int, Array]) -> Array:
        found = jnp.zeros(())
        for i in range(len(self.members)):
            found += given.joint(i, z[i], z).sum() - given.logs(i, z).sum()
        return found

    def draw(
        self, values: Values, key: Array, stretch: float = 1.0
    ) -> tuple[dict[str, Array], Array]:
        """A draw of the members, and its log-density; ``stretch`` multiplies its noise."""
        given, z = self._at(values), {}
        for i in reversed(range(len(self.members))):
            z[i] = given.drawn(i, z, jax.random.fold_in(key, i))
        z = {i: stretch * x for i, x in z.items()}
        return given.members(z), self._log_conditional(given, z)

    def moments(self, values: Values) -> dict[str, tuple[Array, Array]]:
        """Conditional mean and variance of each member, flattened."""
        given = self._at(values)
        return given.moments(len(self.members) - 1, {})

    def _at(self, values: Values, rule: Nodes | None = None) -> _Given:
        """What does not depend on the members."""
        base, slopes = jax.lax.stop_gradient(self._affine(values))
        rule = self.rule if rule is None else rule
        return _Given(self, rule, self._given(values), base, slopes)

    def _affine(self, values: Values) -> tuple[list[Array], dict[tuple[int, int], Array]]:
        """u_i at z = 0, and how it moves with z_i and the outer ones: (i, l) → [levels of i]."""
        offsets = {m.name: m.offset for m in self.gaussian.schedule.form.members}
        ones = np.zeros((len(self.members) + 1, self.gaussian.columns))
        for row, m in enumerate(self.members):
            ones[row, offsets[m.name] : offsets[m.name] + m.size] = 1.0
        flat, _ = jax.vmap(lambda z: self.gaussian.image(values, z))(jnp.asarray(ones))
        images = [flat[m.name] for m in self.members]
        base = [x[-1] for x in images]
        count = len(self.members)
        pairs = ((i, j) for i in range(count) for j in range(i, count))
        return base, {(i, j): images[i][j] - images[i][-1] for i, j in pairs}


@dataclass(frozen=True, eq=False)
class _Given:
    """A marginal at values of all that is kept.

    Everything about u_i reads z_l of the layers l > i outside it, [levels of l] each.
    """

    of: QuadratureMarginal
    rule: Nodes
    values: dict[str, Any]
    base: list[Array]
    slopes: dict[tuple[int, int], Array]

    def member(self, i: int, z: Mapping[int, Array]) -> Array:
        """u_i [levels], of z_i and the outer ones."""
        u = self.base[i] + self.slopes[i, i] * z[i]
        for j in range(i + 1, len(self.base)):
            u += self.slopes[i, j] * z[j][self.of.layers.within(i, j)]
        return u

    def members(self, z: Mapping[int, Array]) -> dict[str, Array]:
        """All members, flattened."""
        return {m.name: self.member(i, z) for i, m in enumerate(self.of.members)}

    def noise(self, members: Values) -> dict[int, Array]:
        """z of values of the members."""
        z: dict[int, Array] = {}
        for i in reversed(range(len(self.base))):
            at_zero = self.member(i, {**z, i: jnp.zeros_like(self.base[i])})
            z[i] = (members[self.of.members[i].name] - at_zero) / self.slopes[i, i]
        return z

    def terms(self, z: Mapping[int, Array]) -> list[Array]:
        """All log-densities, element by element, with z = 0 inside of what is given."""
        whole = {i: z.get(i, jnp.zeros_like(x)) for i, x in enumerate(self.base)}
        shaped = {
            m.name: self.member(i, whole).reshape(m.shape) for i, m in enumerate(self.of.members)
        }
        layers = self.of.layers
        return layers.tape.evaluate(layers.terms, {**self.values, **shaped})

    def rest(self) -> Array:
        """The log-density of what reads no level."""
        return total(self.of.layers.outside, self.terms({}), 1)[0]

    def joint(self, i: int, own: Array, outer: Mapping[int, Array]) -> Array:
        """log of what is integrated over z_i, but for |du_i/dz_i|, at z_i = ``own``, [levels]."""
        z = {**{j: x for j, x in outer.items() if j > i}, i: own}
        found = total(self.of.layers.sums[i], self.terms(z), len(own))
        if i:
            found += self.of.layers.up[i - 1](self.logs(i - 1, z))
        return found

    def placed(self, i: int, outer: Mapping[int, Array]) -> tuple[Array, Array]:
        """Mean and standard deviation of z_i given the outer ones, nearly, [levels] each.

        From where the surrogate says, in one step; far from the mode of θ its place may be many
        deviations off, and more steps follow. NaN where they do not come to an end.
        """
        given, own = jax.lax.stop_gradient((self.values, dict(outer)))
        fixed = replace(self, values=given)
        start = jnp.zeros_like(self.base[i]), jnp.ones_like(self.base[i])

        def step(found: tuple[Array, _Place, Array]) -> tuple[Array, _Place, Array]:
            count, place, _ = found
            moved = _FIRST.fitted(fixed._joint_at(_FIRST, i, own, place))
            return count + 1, *_moved(place, *moved)

        def goes_on(found: tuple[Array, _Place, Array]) -> Array:
            return (found[0] < _MOVES) & found[2].any()

        first = step((jnp.zeros((), int), start, jnp.zeros_like(start[0], bool)))
        _, (centre, width), lost = jax.lax.while_loop(goes_on, step, first)
        return jnp.where(lost, jnp.nan, centre), width

    def _joint_at(
        self, rule: Nodes, i: int, outer: Mapping[int, Array], place: tuple[Array, Array]
    ) -> Array:
        """:meth:`joint` at the nodes of a rule, moved and stretched, [nodes, levels]."""
        centre, width = place
        nodes = jnp.asarray(rule.nodes, centre.dtype)
        return jax.vmap(lambda x: self.joint(i, centre + width * x, outer))(nodes)

    def logs(self, i: int, outer: Mapping[int, Array]) -> Array:
        """log of the integral over u_i and all inside it, [levels]."""
        place = self.placed(i, outer)
        scale = jnp.log(jnp.abs(self.slopes[i, i]) * place[1])
        return scale + log_integral(self.rule, self._joint_at(self.rule, i, outer, place))

    def drawn(self, i: int, outer: Mapping[int, Array], key: Array) -> Array:
        """z_i given the outer ones.

        From a table of the density that its values at the nodes make; then independence Metropolis
        with the table as its proposal, whose error is a small number to the power of its steps.
        """
        centre, width = place = self.placed(i, outer)
        table = self.of.rule.table(self._joint_at(self.of.rule, i, outer, place))

        def proposed(key: Array) -> tuple[Array, Array, Array]:
            x, log_q = table.draw(key)
            z = centre + width * x
            return z, log_q, self.joint(i, z, outer)

        z, log_q, log_p = proposed(key)
        for step in range(_STEPS):
            first, second = jax.random.split(jax.random.fold_in(key, step))
            new, new_q, new_p = proposed(first)
            u = jax.random.uniform(second, z.shape, z.dtype)
            moved = jnp.log(u) < new_p - new_q - log_p + log_q
            z, log_q, log_p = (
                jnp.where(moved, a, b) for a, b in ((new, z), (new_q, log_q), (new_p, log_p))
            )
        return z

    def moments(self, i: int, outer: Mapping[int, Array]) -> dict[str, tuple[Array, Array]]:
        """Mean and variance of u_i, given the outer ones, and of all inside it."""
        rule = self.of.rule
        centre, width = place = self.placed(i, outer)
        logs = self._joint_at(rule, i, outer, place)

        def at(x: Array) -> tuple[Array, dict[str, tuple[Array, Array]]]:
            z = {**outer, i: centre + width * x}
            return self.member(i, z), self.moments(i - 1, z) if i else {}

        values, inside = jax.vmap(at)(jnp.asarray(rule.nodes, centre.dtype))
        mean = rule.mean(logs, values)
        found = {self.of.members[i].name: (mean, rule.mean(logs, jnp.square(values - mean)))}
        for j in range(i):  # the law of total variance, over what each level is within
            name, owner = self.of.members[j].name, self.of.layers.within(j, i)
            means, variances = inside[name]
            mean = rule.mean(logs[:, owner], means)
            found[name] = mean, rule.mean(logs[:, owner], variances + jnp.square(means - mean))
        return found


def _moved(place: _Place, mean: Array, deviation: Array) -> tuple[_Place, Array]:
    """A place moved to a mean and deviation in its units, and where that was far, [levels].

    Where the mean is outside, the integrand may be farther away yet: the place grows instead.
    """
    (centre, width), away = place, jnp.abs(mean)
    outside = away > _FAR
    grown = jnp.where(away > 2 * _FAR, 2.0, 1.0)
    lost = outside | (deviation > _WIDER) | (deviation < 1 / _WIDER)
    return (centre + width * mean, width * jnp.where(outside, grown, deviation)), lost


__all__ = ["QuadratureMarginal"]
