"""The density of what is sampled, as a function of points in a real space, many at a time.

Sites are met in NumPyro's unconstrained space, but for positive ones: a scale τ that the data know
badly has most of its mass near zero, where log τ has a long tail to the left and τ has none. A
positive site has the coordinate x with |x| = τ - lower bound, and the density is that of x > 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions import biject_to, transforms
from numpyro.infer import init_to_uniform
from numpyro.infer.util import constrain_fn, potential_energy

from autmarg.compat.programs import compiled
from autmarg.errors import RequestError

Model = Callable[..., Any]

_SIDE = 16  # points worked on side by side: what they need should stay in a processor's cache
_ROWS = 32  # of them one after the other, at most, in one call


@dataclass(frozen=True)
class Coordinate:
    """A sampled site in the real space.

    Attributes:
        name: of the site.
        shape: of its unconstrained value.
        positive: whether its elements are met as |x|, not as log |x|.
        bijection: from its unconstrained values; None where that depends on other sites.
        real: whether these are its values.
    """

    name: str
    shape: tuple[int, ...]
    positive: bool
    bijection: Any = None
    real: bool = False

    @property
    def size(self) -> int:
        """Its dimensions."""
        return int(np.prod(self.shape, dtype=int))


def coordinates_of(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Coordinate, ...]:
    """The sampled sites of a model, in program order.

    Raises:
        RequestError: a sampled site is discrete.
    """
    found: list[Coordinate] = []

    def trace(key: Array) -> None:
        start = handlers.substitute(handlers.seed(model, key), substitute_fn=init_to_uniform)
        for site in handlers.trace(start).get_trace(*args, **kwargs).values():
            if site["type"] == "sample" and not site["is_observed"]:
                found.append(_coordinate(site))

    with handlers.block():
        jax.eval_shape(trace, jax.random.key(0))
    return tuple(found)


def _coordinate(site: Mapping[str, Any]) -> Coordinate:
    fn = site["fn"]
    if fn.support.is_discrete:
        raise RequestError(
            f"the sampled site '{site['name']}' is discrete: expected continuous sites where "
            "proposals are drawn from a density; use method='nuts' with numpyro's enumeration"
        )
    transform = biject_to(fn.support)
    shape = transform.inverse_shape(jnp.shape(site["value"]))
    known = not any(isinstance(x, Tracer) for x in jax.tree.leaves(transform))
    return Coordinate(
        site["name"], tuple(shape), _exponential(transform), transform if known else None,
        _identity(transform),
    )  # fmt: skip


def _identity(transform: Any) -> bool:
    if isinstance(transform, transforms.IndependentTransform):
        return _identity(transform.base_transform)
    return isinstance(transform, transforms.IdentityTransform)


def _exponential(transform: Any) -> bool:
    """Whether a bijection from the reals is x ↦ lower bound + exp x, element by element."""
    if isinstance(transform, transforms.IndependentTransform):
        return _exponential(transform.base_transform)
    if isinstance(transform, transforms.ComposeTransform):
        first, *rest = transform.parts
        moved = all(isinstance(t, transforms.AffineTransform) for t in rest)
        return moved and type(first) is transforms.ExpTransform and all(_unit(t) for t in rest)
    return type(transform) is transforms.ExpTransform


def _unit(transform: Any) -> bool:
    """Whether an affine transform has the slope one (a lower bound has, an upper one has not)."""
    return isinstance(transform.scale, int | float) and transform.scale == 1


class Target:
    """log p(x, y) over the coordinates x [p] of what a model samples.

    Args:
        model: a NumPyro model; all of its sampled sites are continuous.
        args, kwargs: what it is called with.

    Attributes:
        coordinates: its sampled sites.
        positive: which of the coordinates are those of positive sites, [p].
        real: which are those of sites over all reals, [p].
        evaluations: how many densities were asked for.
        lost: at how many points the density was NaN.
    """

    def __init__(self, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.coordinates = coordinates_of(model, args, kwargs)
        each = [np.full(c.size, c.positive) for c in self.coordinates]
        self.positive = np.concatenate([*each, np.zeros(0, bool)])
        each = [np.full(c.size, c.real) for c in self.coordinates]
        self.real = np.concatenate([*each, np.zeros(0, bool)])
        self.evaluations = self.lost = 0
        # (sites that draw keys of their own, which their density does not read)
        self._model = handlers.seed(model, jax.random.key(0))
        self._args, self._kwargs = args, dict(kwargs)
        self._run = compiled(self._rows)

    @property
    def size(self) -> int:
        """Dimensions p."""
        return len(self.positive)

    @property
    def digits(self) -> int:
        """Decimal digits of its densities."""
        return int(np.finfo(jnp.zeros(0).dtype).precision)

    def unconstrained(self, point: Array) -> dict[str, Array]:
        """NumPyro's unconstrained values by site, of coordinates [p]."""
        found, start = {}, 0
        for c in self.coordinates:
            own = point[start : start + c.size].reshape(c.shape)
            found[c.name] = jnp.log(jnp.abs(own)) if c.positive else own
            start += c.size
        return found

    def at(self, point: Array) -> Array:
        """log p(x, y) at one point [p]: -∞ where the coordinate of a positive site is below zero.

        With z = log |x| of a positive site, NumPyro's density of z is that of x times |x|.
        """
        positive = jnp.asarray(self.positive)
        energy = potential_energy(self._model, self._args, self._kwargs, self.unconstrained(point))
        jacobian = jnp.where(positive, jnp.log(jnp.abs(point)), 0.0).sum()
        return jnp.where((positive & (point < 0)).any(), -jnp.inf, -energy - jacobian)

    def sites(self, points: np.ndarray, deterministic: bool) -> dict[str, Array]:
        """Values of the sampled sites, [*lead, *shape], at points [*lead, p].

        ``deterministic`` asks for the deterministic sites, too, for which the model is run.
        """
        lead = points.shape[:-1]
        rows = points.reshape(-1, self.size)
        if deterministic or any(c.bijection is None for c in self.coordinates):
            each = compiled(lambda x: jax.lax.map(self._constrained, x))(rows)
        else:
            each = compiled(jax.vmap(self._moved))(rows)
        return {n: jnp.asarray(np.asarray(x).reshape(*lead, *x.shape[1:])) for n, x in each.items()}

    def _constrained(self, point: Array) -> dict[str, Array]:
        found = constrain_fn(
            self._model, self._args, self._kwargs, self.unconstrained(point),
            return_deterministic=True,
        )  # fmt: skip
        return dict(found)

    def _moved(self, point: Array) -> dict[str, Array]:
        own = self.unconstrained(point)
        return {c.name: c.bijection(own[c.name]) for c in self.coordinates}

    def _rows(self, points: Array, count: Array) -> Array:
        """Densities [rows, side] of points [rows, side, p], of the first ``count`` rows."""

        def row(k: Array, out: Array) -> Array:
            return out.at[k].set(jax.vmap(self.at)(points[k]))

        start = jnp.full(points.shape[:2], -jnp.inf, points.dtype)
        return jax.lax.fori_loop(0, count, row, start)

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """log p(x, y) at points [n, p], in one executable for any n; NaN counts as no density."""
        count, most = len(points), _SIDE * _ROWS
        points = np.asarray(points, float)
        found = [self._some(points[k : k + most]) for k in range(0, count, most)]
        values = np.concatenate(found)
        self.evaluations += count
        self.lost += int(np.isnan(values).sum())
        return np.where(np.isnan(values), -np.inf, values)

    def _some(self, points: np.ndarray) -> np.ndarray:
        rows = -(-len(points) // _SIDE)
        padded = np.ones((_ROWS * _SIDE, self.size))
        padded[: len(points)] = points
        found = self._run(jnp.asarray(padded.reshape(_ROWS, _SIDE, -1)), jnp.asarray(rows))
        return np.asarray(found, float).reshape(-1)[: len(points)]


__all__ = ["Coordinate", "Target", "coordinates_of"]
