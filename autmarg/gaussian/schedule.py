"""A schedule of stages: log-density, conditional means, exact draws and their density.

    log p(y | θ) = -½ [n log 2π - log|W| + log|G| + min_z (rᵀW r + zᵀz)],   r = c - A L z,

the minimum being where the conditional mean z* = G⁻¹h is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.affine import AffineForm, Point
from autmarg.gaussian.quadratic import Assembly, QuadraticForm, log_scale, scale, unscale
from autmarg.gaussian.residual import Residual


@dataclass(frozen=True, eq=False)
class Schedule:
    """An assembled system with its elimination order."""

    form: AffineForm
    assembly: Assembly
    residual: Residual
    stages: tuple[Any, ...]

    def _eliminate(self, point: Point) -> tuple[list[Any], QuadraticForm, Any]:
        quadratic, constant = self.assembly(point)
        factors = []
        for stage in self.stages:
            factor, quadratic = stage.eliminate(quadratic)
            factors.append(factor)
        return factors, quadratic, constant + point.constant

    def log_density(self, point: Point) -> Any:
        """log p(y | θ), a scalar."""
        factors, quadratic, constant = self._eliminate(point)
        z = self._back(factors, jnp.zeros_like(quadratic.h))
        v = self._centred(point, z)
        squares = self.residual(point.omega, v) + self.assembly.squares(point, v) + jnp.vdot(z, z)
        return constant - 0.5 * (quadratic.log_det + squares)

    def draw(self, point: Point, noise: Any) -> tuple[dict[str, Any], Any]:
        """Members' values given standard normal ``noise`` [columns], and their log-density.

        With noise zero the values are the conditional means.
        """
        factors, _, _ = self._eliminate(point)
        z = self._back(factors, noise)
        return self._values(point, z), self._density(point, factors, noise)

    def log_conditional(self, point: Point, values: dict[str, Any]) -> Any:
        """log p(members | y, θ) at any values of the members, each flattened."""
        factors, _, _ = self._eliminate(point)
        z = self._scaled(point, values)
        noise = sum(
            (s.noise(f, z) for s, f in zip(self.stages, factors, strict=True)), jnp.zeros_like(z)
        )
        return self._density(point, factors, noise)

    def _back(self, factors: list[Any], noise: Any) -> Any:
        z = jnp.zeros_like(noise)
        for stage, factor in zip(reversed(self.stages), reversed(factors), strict=True):
            z = stage.back(factor, z, noise)
        return z

    def _density(self, point: Point, factors: list[Any], noise: Any) -> Any:
        log_det = sum(s.log_det(f) for s, f in zip(self.stages, factors, strict=True))
        for member, prior in zip(self.form.members, point.priors, strict=True):
            log_det = log_det - log_scale(member, prior)
        return log_det - 0.5 * jnp.vdot(noise, noise) - 0.5 * noise.size * np.log(2 * np.pi)

    def _centred(self, point: Point, z: Any) -> Any:
        """v = (δ, 1) with δ = L z."""
        parts = [
            scale(m, prior, z[m.offset : m.offset + m.blocks * m.size])
            for m, prior in zip(self.form.members, point.priors, strict=True)
        ]
        return jnp.concatenate([*parts, jnp.ones(1, z.dtype)])

    def _values(self, point: Point, z: Any) -> dict[str, Any]:
        """x = m + L z, each member flattened."""
        v = self._centred(point, z)
        return {
            m.name: m.spread(v[m.offset : m.offset + m.blocks * m.size])
            + rows.evaluate(point.omega, v)
            for m, rows in zip(self.form.members, self.form.means, strict=True)
        }

    def _scaled(self, point: Point, values: dict[str, Any]) -> Any:
        """z of given values; members come parents first, so their δ are known in that order."""
        v = jnp.zeros(self.form.columns + 1, point.omega.dtype).at[-1].set(1.0)
        z = v[:-1]
        members = zip(self.form.members, self.form.means, point.priors, strict=True)
        for member, rows, prior in members:
            mean = rows.evaluate(point.omega, v)
            delta = member.project(values[member.name].reshape(-1) - mean)
            v = v.at[member.offset : member.offset + delta.size].set(delta)
            scaled = unscale(member, prior, delta)
            z = z.at[member.offset : member.offset + delta.size].set(scaled)
        return z
