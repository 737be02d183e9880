"""Gauss-Hermite rules, and draws from a density that is known at their nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

if TYPE_CHECKING:
    from jaxtyping import Float

_CELLS, _BEYOND = 160, 1.5  # of the table that draws are made from, and how far it goes on
_OFF = 1.0  # nats by which a spline may leave the straight lines between its nodes
_REACH, _LEAST_WIDE = 50.0, 40  # standard deviations; nodes of a rule that goes so far
_NARROWEST = 0.1  # standard deviation, of one before
_DEEP = 600.0  # nats below the largest value, that are as good as none


@dataclass(frozen=True)
class Rule:
    """Nodes x_k and weights w_k with Σ w_k f(x_k) = ∫ f(z) N(z; 0, 1) dz for polynomials f.

    Exact up to the degree 2 · count - 1 (Golub & Welsch 1969, Mathematics of Computation 23).
    """

    count: int

    @property
    def nodes(self) -> Float[np.ndarray, "nodes"]:
        return _golub_welsch(self.count)[0]

    @property
    def log_weights(self) -> Float[np.ndarray, "nodes"]:
        """log(w_k / N(x_k; 0, 1)): what a density at the nodes is multiplied with."""
        nodes, weights = _golub_welsch(self.count)
        return weights + 0.5 * nodes**2 + 0.5 * np.log(2 * np.pi)

    def fitted(self, logs: Float[Array, "nodes levels"]) -> tuple[Array, Array]:
        """Mean and standard deviation of z under a density known at the nodes, [levels] each."""
        logs = jnp.where(jnp.isnan(logs), -jnp.inf, logs)
        nodes = jnp.asarray(self.nodes, logs.dtype)[:, None]
        mean = self.mean(logs, nodes)
        variance = self.mean(logs, jnp.square(nodes - mean))
        return mean, jnp.sqrt(jnp.maximum(variance, _NARROWEST**2))

    def mean(
        self, logs: Float[Array, "nodes levels"], values: Float[Array, "nodes levels"]
    ) -> Float[Array, "levels"]:
        """∫ g f dz / ∫ f dz of log f and g at the nodes."""
        weights = jax.nn.softmax(logs + jnp.asarray(self.log_weights, logs.dtype)[:, None], axis=0)
        return jnp.sum(weights * values, axis=0)

    @cached_property
    def _grid(self) -> Float[np.ndarray, "points"]:
        reach = self.nodes[-1] + _BEYOND
        return np.linspace(-reach, reach, _CELLS + 1)

    @cached_property
    def _between(self) -> tuple[np.ndarray, np.ndarray]:
        """Matrices [points, nodes] by which values at the nodes become those on a grid: of their
        cubic spline, and of straight lines between them."""
        from scipy.interpolate import make_interp_spline

        eye = np.eye(self.count)
        curved = make_interp_spline(self.nodes, eye, k=min(3, self.count - 1))(self._grid)
        straight = np.stack([np.interp(self._grid, self.nodes, row) for row in eye], axis=1)
        return curved, straight

    def table(self, logs: Float[Array, "nodes levels"]) -> Table:
        """A density near the one whose logarithm is known at the nodes."""
        top = logs.max(axis=0)
        # (an array of float64 for JAX to square may be one of float32 in another context's program)
        squares = jnp.asarray(0.5 * np.square(self.nodes), logs.dtype)
        ratio = jnp.maximum(logs - top, -_DEEP) + squares[:, None]
        curved, straight = (jnp.asarray(m, logs.dtype) @ ratio for m in self._between)
        grid = jnp.asarray(self._grid, logs.dtype)
        fine = jnp.clip(curved, straight - _OFF, straight + _OFF) - 0.5 * jnp.square(grid)[:, None]
        return Table(grid, jnp.exp(fine - fine.max(axis=0)))


@dataclass(frozen=True)
class Wide:
    """The trapezoidal rule in x of z = sinh x: close nodes in the middle, and some far away.

    It tells whether an integrand has another peak where a Gauss-Hermite rule has no nodes. Of one
    peak it has as many digits (Takahasi & Mori 1974, Publications of the RIMS 9, for such maps).

    Attributes:
        least: nodes, at least.
    """

    least: int

    @property
    def count(self) -> int:
        """How many nodes it has."""
        return max(self.least, _LEAST_WIDE)

    @property
    def nodes(self) -> Float[np.ndarray, "nodes"]:
        return np.sinh(self._even)

    @property
    def log_weights(self) -> Float[np.ndarray, "nodes"]:
        """What a density at the nodes is multiplied with."""
        return np.log((self._even[1] - self._even[0]) * np.cosh(self._even))

    @cached_property
    def _even(self) -> Float[np.ndarray, "nodes"]:
        reach = np.arcsinh(_REACH)
        return np.linspace(-reach, reach, self.count)


@dataclass(frozen=True)
class AnyRule:
    """The nodes of a rule and no weights up to a number of them: rules of one program."""

    nodes: Array
    log_weights: Array

    @classmethod
    def of(cls, rule: Rule | Wide, size: int) -> AnyRule:
        """A rule in so many places."""
        more = (0, size - rule.count)
        weights = np.pad(rule.log_weights, more, constant_values=-np.inf)
        return cls(jnp.asarray(np.pad(rule.nodes, more)), jnp.asarray(weights))


Nodes: TypeAlias = Rule | Wide | AnyRule


def log_integral(rule: Nodes, logs: Float[Array, "nodes *levels"]) -> Float[Array, "*levels"]:
    """log ∫ f(z) dz of log f at the nodes of a rule."""
    weights = jnp.asarray(rule.log_weights, logs.dtype)
    return logsumexp(logs + weights.reshape(-1, *(1 for _ in logs.shape[1:])), axis=0)


@dataclass(frozen=True)
class Table:
    """A density, linear between points [points], not normalised: [points, levels]."""

    points: Float[Array, "points"]
    density: Float[Array, "points levels"]

    def draw(self, key: Array) -> tuple[Float[Array, "levels"], Float[Array, "levels"]]:
        """A draw for each level, and log of the density there, not normalised."""
        left, right = self.density[:-1], self.density[1:]
        total = jnp.cumsum(0.5 * (left + right), axis=0)
        levels = jnp.arange(total.shape[1])
        u = jax.random.uniform(key, (total.shape[1],), total.dtype) * total[-1]
        cell = jnp.minimum((total < u).sum(axis=0), len(total) - 1)
        a, b = left[cell, levels], right[cell, levels]
        before = jnp.where(cell > 0, total[jnp.maximum(cell - 1, 0), levels], 0.0)
        area = jnp.clip(u - before, 0.0, 0.5 * (a + b))
        # The root of a t + (b - a) t²/2 = area, in the form without cancellation.
        root = jnp.sqrt(jnp.maximum(a * a + 2 * (b - a) * area, 0.0))
        t = jnp.clip(2 * area / jnp.maximum(a + root, jnp.finfo(a.dtype).tiny), 0.0, 1.0)
        width = self.points[1] - self.points[0]
        return self.points[cell] + t * width, jnp.log(a + (b - a) * t)


@lru_cache(maxsize=64)
def _golub_welsch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and logarithms of weights, which underflow in the tails of a large rule."""
    from scipy.linalg import eigh_tridiagonal

    beside = np.sqrt(np.arange(1.0, count))
    values = np.asarray(eigh_tridiagonal(np.zeros(count), beside, eigvals_only=True))
    nodes = 0.5 * (values - values[::-1])
    # w_k = 1 / Σ_n h_n(x_k)², h_n normalised Hermite polynomials, rescaled as they grow.
    before, now = np.zeros(count), np.ones(count)
    total, scale = np.ones(count), np.zeros(count)
    for n in range(1, count):
        before, now = now, (nodes * now - np.sqrt(n - 1.0) * before) / np.sqrt(n)
        total = total + now**2
        size = np.sqrt(total)
        before, now, total, scale = before / size, now / size, np.ones(count), scale + np.log(size)
    return nodes, -(np.log(total) + 2 * scale)


__all__ = ["AnyRule", "Nodes", "Rule", "Table", "Wide", "log_integral"]
