"""How many nodes: doubled until log p(y | θ) no longer changes, at the mode and around it.

A change δ(θ) of the log-density changes the posterior by ∫ p(θ | y) |δ(θ)| dθ in total variation,
to first order. So changes count in full where the posterior has its mass, and less the less likely
a point is. The mode is that of log p(θ, y) by quadrature: where groups have few binary rows,
Laplace's is several standard deviations away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.compat.programs import compiled
from autmarg.quadrature.density import QuadratureMarginal
from autmarg.quadrature.rule import AnyRule, Rule, Wide
from autmarg.whitening.fit import Fit, Mode, inputs_of, uphill

TOLERANCE = 1e-5  # nats of log p(y | θ), all levels together; or so many roundings of it
_ROUNDINGS = 10
_FIRST, _MOST = 8, 256  # nodes of the first rule tried, and of the last, with what checks it
_SOME = 40  # of the one that finds the posterior, and of the last where few nodes are enough
_EVALUATIONS = 4_000_000  # rows times nodes of a density, from which it takes too long
_POINTS, _SPREAD, _FAR = 12, 1.5, 3.0  # random ones, in standard deviations; those on the axes
_AXES = 16  # on which points lie, those of the largest deviations
_LOWER = 3.0  # nats below what the density falls by on average, from where points count less
_DEEP = 25.0  # from where they do not count
_STEP, _WIDEST = 1e-3, 2.0  # of differences; the largest standard deviation of a coordinate
_TURNS, _NEAR = 4, 0.5  # climbs; standard deviations, from where a mode has moved


@dataclass(frozen=True)
class Accuracy:
    """A number of nodes, and by how many nats twice as many change log p(y | θ) where it counts.

    Attributes:
        nodes, error: these.
        mode: θ, unconstrained, where log p(θ, y) has its maximum, and pseudo-data that touch the
            likelihood there.
    """

    nodes: int
    error: float
    mode: Mode


def accuracy(
    fit: Fit, mode: Mode, densities: Sequence[QuadratureMarginal], rows: int
) -> Accuracy | None:
    """The least of some numbers of nodes that is enough; None where it would take too many.

    Args:
        fit: of the surrogate, with its mode.
        densities: with pseudo-data as inputs, for any number of nodes.
        rows: elements of the data.
    """
    depth = max(len(each.members) for each in densities)
    most = _FIRST
    while 2 * most <= _MOST and rows * (2 * most) ** depth <= _EVALUATIONS:
        most *= 2
    posterior = _Posterior(fit, tuple(densities), min(most, _SOME))
    found = None
    for _ in range(_TURNS):
        root = posterior.root_covariance(mode)
        points, weights = _around(posterior, mode, root)
        for last in dict.fromkeys((posterior.some, most)):
            found = _enough(posterior, mode, points, weights, last)
            if found is not None:
                break
        else:
            return None
        theta = uphill(lambda x, at=mode: posterior.slope(x, at), mode.theta, fit.free)
        apart = np.abs(theta - mode.theta) / np.linalg.norm(root, axis=1)
        if apart.max(initial=0.0) < _NEAR:
            break
        pseudo = fit.touching(theta, mode.pseudo)
        if pseudo is None:
            break
        mode = Mode(theta, pseudo)
    return found


def _enough(
    posterior: _Posterior, mode: Mode, points: list[np.ndarray], weights: np.ndarray, most: int
) -> Accuracy | None:
    """The nodes, up to half of ``most``, that are enough at points that count so much."""

    def values(plain: Rule | Wide) -> np.ndarray:
        rule, inputs = AnyRule.of(plain, most), inputs_of(mode.pseudo)
        return np.array([float(posterior.likelihood(x, inputs, rule)) for x in points])

    def change(few: np.ndarray, many: np.ndarray) -> float:
        return float((weights * np.abs(many - few)).max())

    nodes, now = _FIRST, values(Rule(_FIRST))
    rounding = jnp.finfo(jnp.result_type(float)).eps * abs(now[0])
    allowed = max(TOLERANCE, _ROUNDINGS * float(rounding))
    while 2 * nodes <= most:
        then = values(Rule(2 * nodes))
        error = change(now, then)
        if error <= allowed:
            if not change(then, values(Wide(most))) <= allowed:
                return None  # another peak, where the rule has no nodes
            fewer = change(values(Rule(3 * nodes // 4)), then)
            few = fewer <= allowed
            return Accuracy(3 * nodes // 4 if few else nodes, fewer if few else error, mode)
        nodes, now = 2 * nodes, then
    return None


@dataclass(frozen=True, eq=False)
class _Posterior:
    """log p(θ, y) by quadrature; ``some`` nodes tell where it is large."""

    fit: Fit
    densities: tuple[QuadratureMarginal, ...]
    some: int

    @cached_property
    def likelihood(self) -> Callable[..., Array]:
        """(θ, pseudo-data, rule) → log p(y | θ)."""
        run = compiled(lambda *args: self._log_density(*args)[1])
        return lambda theta, inputs, rule: run(theta, inputs, rule.nodes, rule.log_weights)

    @cached_property
    def _slope(self) -> Callable[..., Any]:
        return compiled(jax.value_and_grad(lambda *args: self._log_density(*args)[0]))

    def _log_density(
        self, theta: Array, inputs: dict[str, Array], nodes: Array, log_weights: Array
    ) -> tuple[Array, Array]:
        """log p(θ, y) and log p(y | θ)."""
        kept, prior = self.fit.values(theta)
        values, rule = {**kept, **inputs}, AnyRule(nodes, log_weights)
        each = (density.log_density_by(rule, values) for density in self.densities)
        found = sum(each, jnp.zeros(()))
        return prior + found, found

    def slope(self, theta: np.ndarray, mode: Mode) -> tuple[float, np.ndarray]:
        """log p(θ, y) and its slope, by ``some`` nodes."""
        rule, inputs = AnyRule.of(Rule(self.some), self.some), inputs_of(mode.pseudo)
        value, slope = self._slope(theta, inputs, rule.nodes, rule.log_weights)
        return float(value) if np.isfinite(value) else -np.inf, np.asarray(slope, float)

    def root_covariance(self, mode: Mode) -> np.ndarray:
        """S with S Sᵀ the inverse of the Hessian at a mode, no coordinate spread too far."""
        size = len(mode.theta)
        if not size:
            return np.zeros((0, 0))
        with np.errstate(invalid="ignore"):  # (an infinite slope tells nothing)
            slopes = [
                self.slope(mode.theta + e, mode)[1] - self.slope(mode.theta - e, mode)[1]
                for e in _STEP * np.eye(size)
            ]
        hessian = -np.nan_to_num(np.array(slopes)) / (2 * _STEP)
        values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
        return vectors / np.sqrt(np.maximum(values, _WIDEST**-2))


def _around(
    posterior: _Posterior, mode: Mode, root: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """The mode, and points about it at which the posterior may have draws; how much each counts."""
    rng, deviations = np.random.default_rng(0), np.linalg.norm(root, axis=1)
    axes = np.diag(_FAR * deviations)[np.argsort(-deviations)[:_AXES]]
    points = [mode.theta, *(mode.theta + side * e for e in axes for side in (-1.0, 1.0))]
    points += [mode.theta + _SPREAD * root @ rng.normal(size=len(root)) for _ in range(_POINTS)]
    height = np.array([posterior.slope(point, mode)[0] for point in points])
    lower = np.nan_to_num(height[0] - height, nan=np.inf) - 0.5 * len(root) - _LOWER
    counted = lower < _DEEP
    kept = [point for point, counts in zip(points, counted, strict=True) if counts]
    return kept, np.exp(-np.maximum(lower[counted], 0.0))


__all__ = ["TOLERANCE", "Accuracy", "accuracy"]
