"""The mode of a density of few dimensions, and its curvature there, from values alone.

A gradient would have to be compiled; differences are values that the sampler's own executable gives
many at a time. From several starts, damped Newton steps in NumPyro's unconstrained space (where a
scale has a mode however little the data know of it): the Hessian's eigenvalues are made positive
(Dauphin et al. 2014), and of steps of several lengths the best is taken. All starts but the first
take their steps together, so that a call has many points.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Array = np.ndarray
Density = Callable[[Array], Array]
# Asks for log-densities [n] at points [n, p], again and again.
Asking = Generator[Array, Array, T]

# Points that each start is the best of: of many to be near the top, of few to be anywhere.
_CLOUDS = (96, 96, 32, 8, 4, 2, 1, 1)
_RADII = (1.0, 3.0, 8.0)  # of the boxes that they are drawn from
_REAL = (1.0, 8.0, 60.0)  # the same of coordinates that are no logarithm or the like
_STEPS, _NEAR = 60, 0.02  # most of Newton's; nats of improvement at which they end
_LENGTHS = np.array([1.0, 2.0, 0.5, 0.2, 0.05, 0.01, 0.001])
_FARTHEST = 3.0  # a step, in each coordinate but those of _REAL
_FLAT = 1e-2  # least curvature, as of a coordinate known to within ten


@dataclass(frozen=True, eq=False)
class Mode:
    """A local maximum.

    Attributes:
        point: where, [p].
        log_density: there.
        covariance: the inverse of the negative Hessian, made positive, [p, p].
    """

    point: Array
    log_density: float
    covariance: Array

    @property
    def log_mass(self) -> float:
        """Laplace's approximation of the log of the mass around it, up to a constant."""
        return self.log_density + 0.5 * float(np.linalg.slogdet(self.covariance)[1])

    def distance(self, point: Array) -> float:
        """Of a point, in standard deviations."""
        return float(
            np.sqrt((apart := point - self.point) @ np.linalg.solve(self.covariance, apart))
        )

    def holds(self, point: Array, value: float) -> bool:
        """Whether a point of this log-density is within one standard deviation, and as dense."""
        return value > self.log_density - 1.0 and self.distance(point) < 1.0


def modes(density: Density, real: Array, random: np.random.Generator, reach: float) -> list[Mode]:
    """Local maxima found from several starts, the one of most mass first.

    Args:
        density: log-densities [n] of points [n, p].
        real: which coordinates are those of sites over all reals, of any scale, [p].
        random: of the starts.
        reach: by how many standard deviations points differ whose densities make a Hessian; more
            where densities have few digits.

    Returns:
        None of them where no start has a finite density.
    """
    radii = np.where(real, np.array(_REAL)[:, None], np.array(_RADII)[:, None])
    radius = radii[random.integers(len(radii), size=sum(_CLOUDS))]
    cloud = random.uniform(-radius, radius)
    cloud[0] = 0.0
    values = density(cloud)
    first = np.cumsum(_CLOUDS) - _CLOUDS
    sets = [range(k, k + size) for k, size in zip(first, _CLOUDS, strict=True)]
    order = np.array([max(own, key=values.__getitem__) for own in sets])
    farthest = np.where(real, np.inf, _FARTHEST)
    found: list[Mode] = []
    climbs = [
        _climb(cloud[start], float(values[start]), reach, farthest, found)
        for start in order[np.isfinite(values[order])]
    ]
    # (most of the others end soon, where the first one did)
    for some in (climbs[:1], climbs[1:]):
        for mode in _answered(density, some):
            if mode is not None and all(mode.distance(other.point) > 1.0 for other in found):
                found.append(mode)
    return sorted(found, key=lambda mode: -mode.log_mass)


def _answered(density: Density, each: Sequence[Asking[T]]) -> Iterator[T]:
    """What each returns, as it ends; what they ask for at the same time is one call."""
    asked = [(one, next(one)) for one in each]
    while asked:
        values = density(np.concatenate([points for _, points in asked]))
        ends = np.cumsum([len(points) for _, points in asked])
        answers, waiting, asked = np.split(values, ends[:-1]), asked, []
        for (one, _), answer in zip(waiting, answers, strict=True):
            try:
                asked.append((one, one.send(answer)))
            except StopIteration as end:
                yield end.value


def _climb(
    point: Array, value: float, reach: float, farthest: Array, known: Sequence[Mode]
) -> Asking[Mode | None]:
    """The maximum above a point, by steps that go no farther than so in each coordinate.

    None where the way leads to one of the ``known`` ones: the last steps cost the most Hessians.
    """
    steps = np.full(len(point), 1e-2)
    for _ in range(_STEPS):
        gradient, hessian = yield from _derivatives(point, value, steps)
        covariance, size = _positive(hessian)
        steps = np.clip(reach * size, 1e-7, 1.0)
        step = covariance @ gradient
        step *= (farthest / np.maximum(np.abs(step), 1e-300)).min(initial=1.0)
        tried = point + _LENGTHS[:, None] * step
        values = yield tried
        best = int(np.argmax(values))
        gain = values[best] - value
        if gain > 0:
            point, value = tried[best], float(values[best])
        if any(mode.holds(point, value) for mode in known):
            return None
        if gain < _NEAR:
            break
    _, hessian = yield from _derivatives(point, value, steps)
    return Mode(point, value, _positive(hessian)[0])


def _derivatives(point: Array, value: float, steps: Array) -> Asking[tuple[Array, Array]]:
    """Gradient and Hessian by central differences; NaN and -∞ beside the point count as flat."""
    size = len(point)
    unit = np.diag(steps)
    pairs = list(combinations(range(size), 2))
    both = [unit[i] + unit[j] for i, j in pairs]
    moved = [*unit, *-unit, *both, *(-b for b in both)]
    values = yield point + np.array(moved).reshape(-1, size)
    values = np.where(np.isfinite(values), values, value)
    up, down = values[:size], values[size : 2 * size]
    more, less = np.split(values[2 * size :], 2)
    gradient = (up - down) / (2 * steps)
    second = up + down - 2 * value
    hessian = np.diag(second / steps**2)
    for k, (i, j) in enumerate(pairs):
        mixed = 0.5 * (more[k] + less[k] - 2 * value - second[i] - second[j])
        hessian[i, j] = hessian[j, i] = mixed / (steps[i] * steps[j])
    return gradient, hessian


def _positive(hessian: Array) -> tuple[Array, Array]:
    """The inverse of -H with positive eigenvalues, and the standard deviations of conditionals."""
    size = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), _FLAT))
    scaled = -hessian * size * size[:, None]
    values, vectors = np.linalg.eigh(scaled)
    values = np.maximum(np.abs(values), 1e-3)
    inverse = (vectors / values) @ vectors.T
    return inverse * size * size[:, None], size


__all__ = ["Mode", "modes"]
