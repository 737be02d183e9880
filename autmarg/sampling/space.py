"""What a model samples as one vector of NumPyro's unconstrained values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy

from autmarg.compat.programs import mapped, without_axes
from autmarg.ir.nodes import Deterministic, NonCentred
from autmarg.plan.plan import Plan
from autmarg.sampling.coordinates import Coordinate, Kind, Model, coordinates_of


class Space:
    """The sampled sites of a model, one after the other in a real vector z [p].

    Args:
        model: a NumPyro model.
        args, kwargs: what it is called with.
        first: sites that come before the others.

    Attributes:
        coordinates: the sites.
    """

    def __init__(
        self,
        model: Model,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        first: Collection[str] = (),
    ) -> None:
        found = coordinates_of(model, args, kwargs)
        self.coordinates = tuple(sorted(found, key=lambda c: c.name not in first))
        # Some sites draw random keys themselves. No density reads these, so any seed will do.
        self._model = handlers.seed(model, jax.random.key(0))
        self.take(args, kwargs)
        self._run_at = mapped(self._constrained, _one_by_one, _point)
        self._moved_at = mapped(self._moved, _side_by_side, _point)

    def take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Call the model with other arguments of the same content."""
        self._args, self._kwargs = args, dict(kwargs)

    @property
    def size(self) -> int:
        """Dimensions p."""
        return sum(c.size for c in self.coordinates)

    def of_kind(self, kind: Kind) -> np.ndarray:
        """Which dimensions are those of sites of a kind, [p]."""
        return np.array([c.kind is kind for c in self.coordinates for _ in range(c.size)], bool)

    @property
    def digits(self) -> int:
        """Decimal digits of its densities."""
        return int(jnp.finfo(jnp.result_type(float)).precision)

    def split(self, point: Array) -> Iterator[tuple[Coordinate, Array]]:
        """Each site with its part of a point [p]."""
        ends = np.cumsum([c.size for c in self.coordinates]).tolist()
        for c, end in zip(self.coordinates, ends, strict=True):
            yield c, point[end - c.size : end].reshape(c.shape)

    def unconstrained(self, point: Array) -> dict[str, Array]:
        """NumPyro's unconstrained values by site, of a point [p]."""
        return {c.name: own for c, own in self.split(point)}

    def energy(self, point: Array) -> Array:
        """-log p(z, y) of NumPyro's unconstrained values at one point [p]."""
        values = self.unconstrained(point)
        return jnp.asarray(potential_energy(self._model, self._args, self._kwargs, values))

    def sites(self, points: np.ndarray, deterministic: bool) -> dict[str, Array]:
        """Values of the sampled sites, [*lead, *shape], at points [*lead, p].

        ``deterministic`` asks for the deterministic sites, too, for which the model is run.
        """
        lead = points.shape[:-1]
        rows = points.reshape(-1, self.size)
        run = deterministic or any(c.bijection is None for c in self.coordinates)
        each = (self._run_at if run else self._moved_at)(rows)
        return {
            n: jax.device_put(np.asarray(x).reshape(*lead, *x.shape[1:])) for n, x in each.items()
        }

    def _constrained(self, point: Array) -> dict[str, Array]:
        found = constrain_fn(
            self._model, self._args, self._kwargs, self.unconstrained(point),
            return_deterministic=True,
        )  # fmt: skip
        return dict(found)

    def _moved(self, point: Array) -> dict[str, Array]:
        own = self.unconstrained(point)
        return {c.name: c.bijection(own[c.name]) for c in self.coordinates}


def _one_by_one(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    return lambda points: jax.lax.map(function, points)


def _side_by_side(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    return jax.vmap(function)


def _point(points: Any) -> tuple[Any, ...]:
    """The shape of one of some points."""
    return (without_axes(points, 1),)


def generator_of(rng_key: Any) -> np.random.Generator:
    """NumPy's random numbers, from a JAX random key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).reshape(-1).tolist())


def has_computed_sites(plan: Plan) -> bool:
    """Whether a model has sites that are functions of the sampled ones."""
    program = plan.rewritten or plan.program
    return any(isinstance(n, Deterministic | NonCentred) for n in program.nodes)


__all__ = ["Space", "generator_of", "has_computed_sites"]
