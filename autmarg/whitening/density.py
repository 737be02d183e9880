"""The density of a program whose Gaussian latents u are functions of standard noise z.

A site with log-density ℓ(s), s = A(θ)u + c(θ), has a Gaussian stand-in: pseudo-data ỹ ~ N(s, 1/w)
with known w and ỹ. Stand-ins make a Gaussian model p̃, out of which u is integrated as out of any
other; its conditional p̃(u | ỹ, θ) has exact draws u = T(θ, z) from standard noise z. With

    log |∂u/∂z| = log N(z; 0, I) - log p̃(u | ỹ, θ)

the program's own density, in θ and z instead of θ and u, is

    log p(θ, z, y) = log p(θ) + log N(z; 0, I) + [log p(u, y | θ) - log p̃(u | ỹ, θ)].

It holds for any stand-ins: they shape the geometry that a sampler meets, and nothing else. Where
they are near the likelihood, z is nearly standard normal whatever θ (Osmundsen, Kleppe & Liesenfeld
2021, Journal of Computational and Graphical Statistics 30(2), for state-space models).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.aggregation.density import AddedRows, added_rows
from autmarg.compat.jaxprs import as_data
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.tape import Tape
from autmarg.whitening.predictors import Key
from autmarg.whitening.turn import Turn

_MATRIX = 512  # columns up to which a Jacobian is made as a matrix


@dataclass(frozen=True, eq=False)
class WhitenedMarginal:
    """[log p(u, y | θ) - log p̃(u | ỹ, θ)] and u = T(θ, z).

    Attributes:
        tape: of the sites' expressions.
        members: u.
        others: all other sites whose density reads u, observed or kept.
        gaussian: p̃.
        noise: the name of z.
        keys: of the pseudo-data.
        turn: z → x, where p̃ draws from x: u = T(θ, x) then, and ∂x/∂z is in all of the above.
    """

    tape: Tape
    members: tuple[Sample, ...]
    others: tuple[Sample, ...]
    gaussian: GaussianMarginal
    noise: str
    keys: tuple[Key, ...] = ()
    turn: Turn | None = None

    @property
    def columns(self) -> int:
        """Dimensions of z."""
        return self.gaussian.columns

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of what the density depends on."""
        sites = (*self.members, *self.others)
        own = self.tape.dependencies([v for site in sites for v in site.numbers])
        children = {n.name for n in self.others if not isinstance(n, Observe)}
        own |= children | {self.noise}
        return (own | self.gaussian.inputs) - {m.name for m in self.members}

    def log_density(self, values: Mapping[str, Any]) -> Array:
        """log p(u, y | θ) - log p̃(u | ỹ, θ), a scalar."""
        members, log_q = self.image(values)
        return self.joint({**values, **members}) - log_q

    @cached_property
    def rows(self) -> dict[str, AddedRows]:
        """log p(y | u, θ) of observed sites, added up."""
        found = ((n, added_rows(self.tape, n)) for n in self.others if isinstance(n, Observe))
        return {n.name: rows for n, rows in found if rows is not None}

    def joint(self, values: Mapping[str, Any]) -> Array:
        """log p(u, y | θ) at values of u, too, a scalar."""
        plain = (n for n in self.others if n.name not in self.rows)
        total = self._sum((*self.members, *plain), values)
        return sum((rows.log_density(values) for rows in self.rows.values()), total)

    def image(self, values: Mapping[str, Any]) -> tuple[dict[str, Array], Array]:
        """u = T(θ, z), in the shapes of the members, and log p̃(u | ỹ, θ)."""
        z = values[self.noise]
        if self.turn is None:
            flat, log_q = self.gaussian.image(values, z)
        else:  # (never the squares of x, which may be large, and the same subtracted)
            flat, log_q = self.gaussian.image(values, self.turn(z), z)
            log_q = log_q - self.turn.log_det
        return {m.name: flat[m.name].reshape(m.shape) for m in self.members}, log_q

    def draw(
        self, values: Mapping[str, Any], key: Array, stretch: float = 1.0
    ) -> tuple[dict[str, Array], Array]:
        """u, which z among the values determines, and log |∂z/∂u|."""
        members, _ = self.image(values)
        return members, self.log_conditional(values, members)

    def log_conditional(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Array:
        """log |∂z/∂u| at u = T(θ, z), not from the factors that :meth:`image` has it from.

        It is that of the Jacobian matrix, and the density of what of z makes nothing of u. Where
        the matrix would be large, a mask takes out a part of u, or more of z makes u than u has
        elements (two chains of the same states), it is log p̃(u | ỹ, θ) - log N(z; 0, I) by rows.
        """
        used = self.gaussian.schedule.form.counted
        elements = sum(m.size for m in self.members)
        square = used.sum() == elements or (used.all() and self.columns <= elements)
        if self.columns > _MATRIX or not square:
            return self._by_rows(values, members)
        z = values[self.noise]
        jacobian = jax.jacfwd(lambda z: self._flat({**values, self.noise: z}))(z)
        makes = (jacobian != 0).any(axis=0)
        tall = jacobian if self.columns <= elements else jacobian.T
        triangle = jnp.linalg.qr(tall, mode="r")
        idle = jnp.where(makes, 0.0, 0.5 * jnp.square(z) + 0.5 * np.log(2 * np.pi)).sum()
        found = idle - jnp.log(jnp.abs(jnp.diagonal(triangle))).sum()
        if used.all():
            return found
        return jnp.where(makes.sum() == elements, found, self._by_rows(values, members))

    def _by_rows(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Array:
        """log p̃(u | ỹ, θ) - log N(z; 0, I) by rows.

        The mean of that at z and at -z, in which the rounding of the map's centre cancels to first
        order.
        """
        x, log_det = values[self.noise], 0.0
        mirrored, _ = self.image({**values, self.noise: -x})
        both = (self.gaussian.log_conditional(values, each) for each in (members, mirrored))
        if self.turn is not None:
            x, log_det = self.turn(x), self.turn.log_det
        return 0.5 * sum(both) - _log_normal(x) - log_det

    def _flat(self, values: Mapping[str, Any]) -> Array:
        return jnp.concatenate([x.reshape(-1) for x in self.image(values)[0].values()])

    def moments(self, values: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
        """u and zeros: z among the values determines it."""
        members, _ = self.image(values)
        return {name: (x, jnp.zeros_like(x)) for name, x in members.items()}

    def _sum(self, sites: tuple[Sample, ...], values: Mapping[str, Any]) -> Array:
        """The sum of some sites' log-densities."""
        return sum((log_density(self.tape, site, values) for site in sites), jnp.zeros(()))


def _log_normal(z: Array) -> Array:
    return -0.5 * jnp.vdot(z, z) - 0.5 * len(z) * np.log(2 * np.pi)


def log_density(tape: Tape, site: Sample, values: Mapping[str, Any]) -> Array:
    """The log-density of a site at values of all latents, a scalar."""
    fn = site.distribution.build(tape, values)
    if isinstance(site, Observe):
        value = as_data(tape.evaluate([site.value], values)[0])
    else:
        value = values[site.name]
    terms = fn.log_prob(value)
    if site.scale is not None:
        terms = terms * tape.evaluate([site.scale], values)[0]
    return jnp.sum(terms)
