"""The real coordinates in which sites are proposed.

Proposals fit where a posterior is nearly normal. NumPyro's unconstrained values z are not always:

* A scale τ that the data know badly has most of its mass near zero, where log τ has a long tail to
  the left and τ has none. A positive site is met as x > 0 with |x| = τ - lower bound, z = log |x|.
* A uniform share has a logistic z, with tails that no normal density has; a correlation likewise.
  A bounded site is met as x with Φ(x) = σ(z), Φ the normal distribution function: a uniform one is
  normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import log_ndtr
from numpyro import handlers
from numpyro.distributions import biject_to, transforms
from numpyro.infer import init_to_uniform

from autmarg.compat.correlations import PairTransform
from autmarg.compat.jaxprs import is_traced
from autmarg.compat.numpyro import subsample_of
from autmarg.errors import RequestError

Model = Callable[..., Any]


class Kind(Enum):
    """How the coordinates x of a site are related to NumPyro's unconstrained values z."""

    POSITIVE = "z = log |x|, x > 0"
    SHARE = "z = logit Φ(x)"
    CORRELATION = "z = logit Φ(x) / 2"
    REAL = "z = x, the site's values"
    OTHER = "z = x"
    DISCRETE = "no density to propose from"

    def unconstrained(self, x: Array) -> Array:
        """z."""
        if self is Kind.POSITIVE:
            return jnp.log(jnp.abs(x))
        if self in (Kind.SHARE, Kind.CORRELATION):
            return (log_ndtr(x) - log_ndtr(-x)) / (2 if self is Kind.CORRELATION else 1)
        return x

    def log_slope(self, x: Array) -> Array:
        """log |dz/dx|, summed."""
        if self is Kind.POSITIVE:
            return -jnp.log(jnp.abs(x)).sum()
        if self in (Kind.SHARE, Kind.CORRELATION):
            normal = -0.5 * jnp.square(x) - 0.5 * math.log(2 * math.pi)
            half = math.log(2) if self is Kind.CORRELATION else 0.0
            return (normal - log_ndtr(x) - log_ndtr(-x) - half).sum()
        return jnp.zeros(())


@dataclass(frozen=True)
class Coordinate:
    """A sampled site in the real space.

    Attributes:
        name: of the site.
        shape: of its unconstrained value.
        kind: how its coordinates are related to it.
        bijection: from its unconstrained values; None where that depends on other sites.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    bijection: Any = None

    @property
    def size(self) -> int:
        """Its dimensions."""
        return int(np.prod(self.shape, dtype=int))


def coordinates_of(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Coordinate, ...]:
    """The sampled sites of a model, in program order.

    Raises:
        RequestError: a plate is subsampled: a run would see one draw of its rows all along.
    """
    found: list[Coordinate] = []

    def trace(key: Array) -> None:
        start = handlers.substitute(handlers.seed(model, key), substitute_fn=init_to_uniform)
        for site in handlers.trace(start).get_trace(*args, **kwargs).values():
            if site["type"] == "plate":
                _check_whole(site)
            if site["type"] == "sample" and not site["is_observed"]:
                found.append(_coordinate(site))

    with handlers.block():
        jax.eval_shape(trace, jax.random.key(0))
    return tuple(found)


def _check_whole(plate: dict[str, Any]) -> None:
    if (some := subsample_of(plate)) is not None:
        raise RequestError(
            f"plate '{plate['name']}' is subsampled ({some[0]} of {some[1]}), so that a sampler "
            "would see one draw of its rows all along: expected the model without subsample_size"
        )


def _coordinate(site: Mapping[str, Any]) -> Coordinate:
    fn = site["fn"]
    if fn.support.is_discrete:
        return Coordinate(site["name"], jnp.shape(site["value"]), Kind.DISCRETE)
    transform = biject_to(fn.support)
    shape = transform.inverse_shape(jnp.shape(site["value"]))
    known = not is_traced(transform)
    return Coordinate(site["name"], tuple(shape), kind_of(transform), transform if known else None)


def kind_of(transform: Any) -> Kind:
    """The kind of a bijection from the reals."""
    if isinstance(transform, transforms.IndependentTransform):
        return kind_of(transform.base_transform)
    if isinstance(transform, transforms.ComposeTransform):
        first, *rest = transform.parts
        kind = kind_of(first)
        affine = [t for t in rest if isinstance(t, transforms.AffineTransform)]
        moved = len(affine) == len(rest)
        if kind is Kind.POSITIVE:  # a lower bound has the slope one, an upper one has not
            moved = moved and all(isinstance(t.scale, int | float) and t.scale == 1 for t in affine)
        return kind if moved and kind in (Kind.POSITIVE, Kind.SHARE) else Kind.OTHER
    kinds = {
        transforms.ExpTransform: Kind.POSITIVE,
        transforms.SigmoidTransform: Kind.SHARE,
        transforms.StickBreakingTransform: Kind.SHARE,
        transforms.CorrCholeskyTransform: Kind.CORRELATION,
        PairTransform: Kind.CORRELATION,
        transforms.IdentityTransform: Kind.REAL,
    }
    return kinds.get(type(transform), Kind.OTHER)


__all__ = ["Coordinate", "Kind", "Model", "coordinates_of", "kind_of"]
