"""Where NUTS chains start: near the mode, in coordinates in which the density is round there.

Each chain starts its search at its own random point. If there are several modes, the chains
disagree. Where effects are sampled, the joint mode is no place to start at: of a non-centred form
their scale is too large there, of a centred one it is zero. But the way to it passes good places,
and Laplace's approximation, which takes each effect by its curvature, tells which is the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autmarg.compat.kernels import Place
from autmarg.sampling.metric import Frame
from autmarg.sampling.steps import Stepper

_RADIUS, _TRIES = 2.0, 10  # of NumPyro's uniform points, and how many sets of them are tried
_POINTS = 16  # of which the deepest is taken
_ITERATIONS = 200  # of a search, at most
_COMPARED = 24  # places on its way
_ENDED = 0.5  # nats above the mode at which a search has found it
_FLAT = 0.25  # least curvature of a logarithm and the like: their priors are hardly wider than two
_NONE = 1e-12  # curvature of a real coordinate that is none
_PROBES = 8


@dataclass(frozen=True, eq=False)
class Start:
    """Where a chain starts.

    Attributes:
        place: in the frame.
        frame: about a point, with the scales of the density there.
        unfit: why that is a random point; "" where it is near the mode.
    """

    place: Place
    frame: Frame
    unfit: str = ""


def start(stepper: Stepper, random: np.random.Generator, dense: int) -> Start | None:
    """The start of a chain, or None where no random point has a finite density.

    Args:
        stepper: knows energies and gradients.
        random: of the start.
        dense: over how many coordinates the metric is a block: all but the effects.
    """
    first = _random_place(stepper, random)
    if first is None:
        return None
    surface = _Surface(stepper, dense)
    best, is_end = surface.best(_way_down(stepper, first))
    frame = surface.frame(best)
    left = 0.5 * float(np.sum(np.square(frame.pulled(best.gradient))))
    if not np.isfinite(left) or (is_end and left > max(_ENDED, 0.05 * stepper.size)):
        origin = Frame.at(np.asarray(first.point), dense)
        unfit = f"the search of a mode ended {left:,.1g} nats away from one"
        return Start(first._replace(point=np.zeros(stepper.size)), origin, unfit)
    return Start(_drawn(stepper, best, frame, random.normal(size=stepper.size)), frame)


def _random_place(stepper: Stepper, random: np.random.Generator) -> Place | None:
    """The deepest of some uniform points; None where none has a finite energy."""
    for _ in range(_TRIES):
        found = stepper.places(random.uniform(-_RADIUS, _RADIUS, (_POINTS, stepper.size)))
        sound = np.isfinite(found.energy) & np.isfinite(found.gradient).all(1)
        if sound.any():
            best = int(np.argmin(np.where(sound, found.energy, np.inf)))
            return Place(*(x[best] for x in found))
    return None


def _way_down(stepper: Stepper, first: Place) -> list[Place]:
    """Points of a search of the mode, each deeper than those before."""
    from scipy.optimize import minimize

    way = [first]

    def energy(point: np.ndarray) -> tuple[float, np.ndarray]:
        place = stepper.place(point)
        if not (np.isfinite(place.energy) and np.isfinite(place.gradient).all()):
            return 1e10 + abs(float(first.energy)), np.zeros_like(point)
        if place.energy < way[-1].energy:
            way.append(place)
        return float(place.energy), np.asarray(place.gradient)

    options = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "ftol": 1e-8, "maxcor": 20}
    minimize(energy, first.point, jac=True, method="L-BFGS-B", options=options)
    return way


class _Surface:
    """What differences of gradients tell of the energy about a point."""

    def __init__(self, stepper: Stepper, dense: int) -> None:
        self.stepper, self.dense = stepper, dense
        count = _PROBES if stepper.size > dense else 0
        self.signs = np.random.default_rng(0).choice([-1.0, 1.0], (count, stepper.size))
        self.signs[:, :dense] = 0.0

    def best(self, way: list[Place]) -> tuple[Place, bool]:
        """The place of most mass by Laplace's approximation, and whether it is the last one."""
        if self.stepper.size == self.dense:
            return way[-1], True
        ranks = np.unique(np.linspace(0, len(way) - 1, _COMPARED).astype(int))
        found = [self._relaxed(way[k]) for k in ranks]
        k = int(np.nanargmin([depth for _, depth in found]))
        return found[k][0], k == len(found) - 1

    def _relaxed(self, place: Place) -> tuple[Place, float]:
        """The place with each effect at its mean, and -log of the mass over the effects there."""
        curvature = self._effects(place)
        point, slope = np.array(place.point), np.asarray(place.gradient)[self.dense :]
        point[self.dense :] -= slope / curvature
        moved = self.stepper.place(point)
        better = moved if moved.energy < place.energy else place
        return better, float(better.energy + 0.5 * np.log(curvature).sum())

    def _effects(self, place: Place) -> np.ndarray:
        """Second derivatives in the effects, [p - k], by random differences."""
        reach = self._reach(place)
        moved = self._differences(place, self.signs * reach)
        found = (moved * self.signs / reach).mean(0)[self.dense :]
        return np.where(found > 0, found, 1.0)

    def _reach(self, place: Place) -> np.ndarray:
        return self.stepper.reach * np.maximum(1.0, np.abs(place.point))

    def _differences(self, place: Place, moves: np.ndarray) -> np.ndarray:
        """The Hessian times each of some moves, [n, p]."""
        both = self.stepper.places(np.concatenate([place.point + moves, place.point - moves]))
        gradients = np.asarray(both.gradient)
        return 0.5 * (gradients[: len(moves)] - gradients[len(moves) :])

    def frame(self, place: Place) -> Frame:
        """Coordinates about a place in which the energy is round there.

        The block is the inverse of the Hessian with the effects at their best for each value of the
        block, as if they did not depend on each other.
        """
        dense, reach = self.dense, self._reach(place)
        effects = self._effects(place) if len(self.signs) else np.zeros(0)
        rows = self._differences(place, np.eye(dense, self.stepper.size) * reach)
        rows /= reach[:dense, None]
        own = 0.5 * (rows[:, :dense] + rows[:, :dense].T)
        both = rows[:, dense:] / np.sqrt(effects)
        block = _triangle(own, own - both @ both.T, self.stepper.real[:dense])
        return Frame.at(np.asarray(place.point), dense).stretched(block, 1 / np.sqrt(effects))


def _triangle(own: np.ndarray, profile: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The triangle L with LLᵀ the inverse of a Hessian, made positive.

    Args:
        own: the Hessian with the effects fixed, whose diagonal has the scales [k, k].
        profile: the Hessian with the effects at their best, [k, k].
        real: which coordinates are of sites over all reals, of any scale.
    """
    curvature = np.abs(np.diag(own))
    curvature = np.where(
        real, np.where(curvature > _NONE, curvature, 1.0), np.maximum(curvature, _FLAT)
    )
    size = 1 / np.sqrt(np.where(np.isfinite(curvature), curvature, 1.0))
    scaled = np.nan_to_num(profile * size * size[:, None], posinf=0.0, neginf=0.0)
    values, vectors = np.linalg.eigh(scaled)
    inverse = (vectors / np.maximum(np.abs(values), 1e-2)) @ vectors.T
    return np.linalg.cholesky(inverse * size * size[:, None])


def _drawn(stepper: Stepper, mode: Place, frame: Frame, noise: np.ndarray) -> Place:
    """A place in the frame as far from the mode as this noise, or nearer, where that is no draw."""
    for shorter in (1.0, 0.5, 0.25, 0.0):
        point = shorter * noise
        found = stepper.place(np.asarray(frame.z(point)))
        if found.energy < mode.energy + 2 * len(noise) + 5 and np.isfinite(found.gradient).all():
            break
    return Place(point, found.energy, frame.pulled(found.gradient))
