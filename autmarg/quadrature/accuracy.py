"""How many nodes: doubled until log p(y | θ) no longer changes, at the mode and around it.

A change δ(θ) of the log-density changes the posterior by ∫ p(θ | y) |δ(θ)| dθ in total variation,
to first order. So changes count in full where the posterior has its mass, and less the less likely
a point is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.compat.programs import compiled
from autmarg.quadrature.density import QuadratureMarginal
from autmarg.quadrature.rule import AnyRule, Rule
from autmarg.whitening.fit import Fit, Mode, inputs_of

TOLERANCE = 1e-5  # nats of log p(y | θ), all levels together; or so many roundings of it
_ROUNDINGS = 10
_FIRST, _MOST = 8, 128  # nodes of the first rule tried, and of the last, with what checks it
_EVALUATIONS = 4_000_000  # rows times nodes of a density, from which it takes too long
_POINTS, _SPREAD, _FAR = 12, 1.5, 3.0  # random ones, in standard deviations; those on the axes
_AXES = 16  # on which points lie, those of the largest deviations
_LOWER = 3.0  # nats below what the density falls by on average, from where points count less
_DEEP = 25.0  # from where they do not count
_STEP, _WIDEST = 1e-3, 2.0  # of differences; the largest standard deviation of a coordinate


@dataclass(frozen=True)
class Accuracy:
    """A number of nodes, and by how many nats twice as many change log p(y | θ) where it counts."""

    nodes: int
    error: float


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
    points, weights = _around(fit, mode)

    most = _FIRST
    while 2 * most <= _MOST and rows * (2 * most) ** depth <= _EVALUATIONS:
        most *= 2
    evaluate = _evaluated(fit, mode, densities)

    def values(nodes: int) -> np.ndarray:
        rule = AnyRule.of(Rule(nodes), most)
        return np.array([float(evaluate(point, rule.nodes, rule.log_weights)) for point in points])

    def change(few: np.ndarray, many: np.ndarray) -> float:
        return float((weights * np.abs(many - few)).max())

    nodes, now = _FIRST, values(_FIRST)
    rounding = jnp.finfo(jnp.result_type(float)).eps * abs(now[0])
    allowed = max(TOLERANCE, _ROUNDINGS * float(rounding))
    while 2 * nodes <= most:
        then = values(2 * nodes)
        error = change(now, then)
        if error <= allowed:
            fewer = change(values(3 * nodes // 4), then)
            enough = fewer <= allowed
            return Accuracy(3 * nodes // 4, fewer) if enough else Accuracy(nodes, error)
        nodes, now = 2 * nodes, then
    return None


def _evaluated(
    fit: Fit, mode: Mode, densities: Sequence[QuadratureMarginal]
) -> Callable[[np.ndarray, Array, Array], Array]:
    """(θ, nodes, log weights) → log p(y | θ), for comparison with other rules."""
    inputs = inputs_of(mode.pseudo)

    def log_density(theta: Array, nodes: Array, log_weights: Array) -> Array:
        values, rule = {**fit.values(theta)[0], **inputs}, AnyRule(nodes, log_weights)
        return sum((each.log_density_by(rule, values) for each in densities), jnp.zeros(()))

    return compiled(log_density)


def _around(fit: Fit, mode: Mode) -> tuple[list[np.ndarray], np.ndarray]:
    """The mode, and points about it at which the posterior may have draws; how much each counts."""
    root, rng = _root_covariance(fit, mode), np.random.default_rng(0)
    deviations = np.linalg.norm(root, axis=1)
    axes = np.diag(_FAR * deviations)[np.argsort(-deviations)[:_AXES]]
    points = [mode.theta, *(mode.theta + side * e for e in axes for side in (-1.0, 1.0))]
    points += [mode.theta + _SPREAD * root @ rng.normal(size=len(root)) for _ in range(_POINTS)]
    height = np.array([fit.at(point, mode.pseudo).value for point in points])
    lower = height[0] - height - 0.5 * len(root) - _LOWER
    counted = lower < _DEEP
    kept = [point for point, counts in zip(points, counted, strict=True) if counts]
    return kept, np.exp(-np.maximum(lower[counted], 0.0))


def _root_covariance(fit: Fit, mode: Mode) -> np.ndarray:
    """S with S Sᵀ the inverse of the Hessian at the mode, no coordinate spread too far."""
    size = len(mode.theta)
    if not size:
        return np.zeros((0, 0))
    with np.errstate(invalid="ignore"):  # (an infinite slope tells nothing)
        slopes = [
            (fit.at(mode.theta + e, mode.pseudo).slope - fit.at(mode.theta - e, mode.pseudo).slope)
            for e in _STEP * np.eye(size)
        ]
    hessian = -np.nan_to_num(np.array(slopes)) / (2 * _STEP)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return vectors / np.sqrt(np.maximum(values, _WIDEST**-2))


__all__ = ["TOLERANCE", "Accuracy", "accuracy"]
