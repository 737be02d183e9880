"""The density of what is sampled, as a function of points in a real space, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.compat.jaxprs import largest
from autmarg.compat.numpyro import around
from autmarg.compat.programs import mapped, traced_once, without_axes
from autmarg.plan.plan import Plan
from autmarg.sampling.coordinates import Kind, Model
from autmarg.sampling.space import Space
from autmarg.sampling.steps import Stepper

K = TypeVar("K")
V = TypeVar("V")

_CALL = 512  # points of one call
# Points worked on side by side on a processor, at most: so many, and as many as together have no
# array of more numbers than its cache holds.
_SIDE, _CACHED = 16, 2**16
_KEPT = 4  # densities of one model


class Target(Space):
    """log p(x, y) over the coordinates x [p] of what a model samples.

    Args:
        model: a NumPyro model.
        args, kwargs: what it is called with.

    Attributes:
        positive: which of the coordinates are those of positive sites, [p].
        real: which are those of sites over all reals, [p].
        evaluations: how many densities were asked for.
        lost: at how many points the density was NaN.
    """

    def __init__(self, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__(model, args, kwargs)
        self.positive, self.real = self.of_kind(Kind.POSITIVE), self.of_kind(Kind.REAL)
        self.evaluations = self.lost = 0
        self._at = traced_once(self.at)
        self._run = mapped(self._at, _rows, _point)

    def unconstrained(self, point: Array) -> dict[str, Array]:
        """NumPyro's unconstrained values by site, of coordinates [p]."""
        return {c.name: c.kind.unconstrained(own) for c, own in self.split(point)}

    def at(self, point: Array) -> Array:
        """log p(x, y) at one point [p]: -∞ where a positive site's coordinate is below zero."""
        slope = sum(c.kind.log_slope(own) for c, own in self.split(point))
        below = (jnp.asarray(self.positive) & (point < 0)).any()
        return jnp.where(below, -jnp.inf, slope - self.energy(point))

    @cached_property
    def side(self) -> int:
        """Points that are worked on side by side, a power of two."""
        if jax.default_backend() != "cpu":
            return _CALL
        point = jax.ShapeDtypeStruct((self.size,), jnp.result_type(float))
        most = _CACHED // max(1, largest(jax.make_jaxpr(self._at)(point).jaxpr))
        return min(_SIDE, 1 << max(0, most.bit_length() - 1))

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """log p(x, y) at points [n, p], in one executable for any n; NaN counts as no density."""
        points = np.asarray(points, float)
        found = [self._some(points[k : k + _CALL]) for k in range(0, len(points), _CALL)]
        values = np.concatenate(found)
        self.evaluations += len(points)
        self.lost += int(np.isnan(values).sum())
        return np.where(np.isnan(values), -np.inf, values)

    def _some(self, points: np.ndarray) -> np.ndarray:
        rows = np.asarray(-(-len(points) // self.side), jnp.result_type(int))
        padded = np.ones((_CALL, self.size), jnp.result_type(float))
        padded[: len(points)] = points
        found = self._run(padded.reshape(-1, self.side, self.size), rows)
        return np.asarray(found, float).reshape(-1)[: len(points)]


class Targets:
    """The densities that one transformed model was sampled from, with their programs, by plan."""

    def __init__(self) -> None:
        self._known: dict[Plan, Target] = {}
        self._steppers: dict[tuple[Plan, Any], Stepper] = {}

    def of(
        self, plan: Plan, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Target:
        """The density of a model with this plan for some arguments, its counts at zero.

        What is traced from now on reads these arguments: those of before may have been changed in
        place.
        """
        target = _kept(self._known, plan, lambda: Target(model, args, kwargs))
        target.take(args, kwargs)
        found = copy(target)
        found.evaluations = found.lost = 0
        return found

    def stepper(
        self, plan: Plan, options: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any],
        make: Callable[[], Stepper],
    ) -> Stepper:  # fmt: skip
        """What takes NUTS' steps on the same, made with some options, in the same way."""
        found = _kept(self._steppers, (plan, options), make)
        found.space.take(args, kwargs)
        return found


def _kept(known: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """What is known by a key, of the last few.

    Handlers around would be part of the programs, so that under them it is made anew.
    """
    if any(True for _ in around()):
        return make()
    if key not in known:
        while len(known) >= _KEPT:
            known.pop(next(iter(known)))
        known[key] = make()
    return known[key]


def _rows(at: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """Densities [rows, side] of points [rows, side, p], of the first ``count`` rows."""

    def run(points: Array, count: Array) -> Array:
        def row(k: Array, out: Array) -> Array:
            return out.at[k].set(jax.vmap(at)(points[k]))

        start = jnp.full(points.shape[:2], -jnp.inf, points.dtype)
        return jax.lax.fori_loop(0, count, row, start)

    return run


def _point(points: Any, count: Any) -> tuple[Any, ...]:
    """The shape of one point."""
    return (without_axes(points, 2),)


__all__ = ["Target", "Targets"]
