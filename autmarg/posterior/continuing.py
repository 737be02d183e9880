"""Elements of a site beyond the known ones, drawn given these.

Elements along batch dimensions are independent given the site's parents. A distribution that
couples its elements has independent innovations z, whose first elements determine the first
elements of x: x = m + L z with L lower triangular, a random walk, a linear recursion. The known
elements fix their innovations, and the other innovations are fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import transforms

from autmarg.compat.numpyro import base_of

Array = jax.Array
Distribution = dist.Distribution
_ORDERED = (
    transforms.AffineTransform,
    transforms.LowerCholeskyAffine,
    transforms.RecursiveLinearTransform,
)


class CannotContinue(Exception):
    """A distribution couples known and new elements, and no rule says how."""


@dataclass(frozen=True, eq=False)
class Innovations:
    """Independent noise behind a vector, element by element in its order.

    Attributes:
        whiten: x → z, the first elements of z from those of x.
        colour: z → x.
        noise: the distribution of z; None where z is standard normal.
    """

    whiten: Callable[[Array], Array]
    colour: Callable[[Array], Array]
    noise: Distribution | None = None


def innovations(fn: Distribution) -> Innovations:
    """The innovations of a distribution without expansion, independence and masks.

    Raises:
        CannotContinue: there is no rule for it.
    """
    if isinstance(fn, dist.MultivariateNormal):
        return _triangular(jnp.asarray(fn.loc), jnp.asarray(fn.scale_tril))
    if isinstance(fn, dist.LowRankMultivariateNormal):
        return _triangular(jnp.asarray(fn.loc), jnp.linalg.cholesky(fn.covariance_matrix))
    if isinstance(fn, dist.GaussianRandomWalk):
        return _walk(jnp.asarray(fn.scale)[..., None])
    if isinstance(fn, dist.TransformedDistribution) and all(map(_keeps_order, fn.transforms)):
        return _transformed(fn)
    raise CannotContinue


def _triangular(loc: Array, factor: Array) -> Innovations:
    """x = loc + L z; ``loc`` [..., n], ``factor`` [..., n, n]."""

    def whiten(x: Array) -> Array:
        centred = (x - loc)[..., None]
        wide = jnp.broadcast_to(factor, (*centred.shape[:-2], *factor.shape[-2:]))
        return solve_triangular(wide, centred, lower=True)[..., 0]

    return Innovations(whiten, lambda z: loc + (factor @ z[..., None])[..., 0])


def _walk(scale: Array) -> Innovations:
    """x_t = x_{t-1} + scale · z_t from x_{-1} = 0."""
    return Innovations(
        lambda x: jnp.diff(x, prepend=jnp.zeros_like(x[..., :1])) / scale,
        lambda z: jnp.cumsum(scale * z, axis=-1),
    )


def _transformed(fn: dist.TransformedDistribution) -> Innovations:
    def whiten(x: Array) -> Array:
        for transform in reversed(fn.transforms):
            x = jnp.asarray(transform.inv(x))
        return x

    def colour(z: Array) -> Array:
        for transform in fn.transforms:
            z = jnp.asarray(transform(z))
        return z

    return Innovations(whiten, colour, fn.base_dist)


def _keeps_order(transform: transforms.Transform[Any]) -> bool:
    """Whether the first elements of an image are those of the first elements."""
    if isinstance(transform, _ORDERED):
        return True
    return transform.domain.event_dim == 0 and transform.codomain.event_dim == 0


def is_coupled(fn: Distribution, grown: frozenset[int]) -> bool:
    """Whether ``grown`` axes (negative, from the end) are inside one event of the distribution."""
    return any(axis >= -len(base_of(fn).event_shape) for axis in grown)


def continued(
    fn: Distribution, fresh: Array, known: Array, mask: Array, grown: frozenset[int]
) -> Array:
    """A draw of a site given its known elements.

    Args:
        fn: the site's distribution.
        fresh: an unconditional draw, [*shape].
        known: [*shape]; read where ``mask`` is true.
        mask: [*shape], true in a leading part along the ``grown`` axes.
        grown: axes (negative, from the end) along which some elements are new.

    Raises:
        CannotContinue: it couples known and new elements, and no rule says how.
    """
    known = jnp.where(mask, known, fresh)
    if not is_coupled(fn, grown):
        return known
    found = innovations(base_of(fn))
    new, old = found.whiten(fresh), found.whiten(known)
    if found.noise is None:
        noise = jnp.where(mask, old, new)
    else:
        noise = continued(found.noise, new, old, mask, grown)
    return jnp.where(mask, known, found.colour(noise))


def prior_of_known(
    fn: Distribution, value: Array, shape: tuple[int, ...], grown: frozenset[int]
) -> Array:
    """Numbers that tell the prior of the known elements: log-densities, or their innovations.

    Args:
        fn: the site's distribution.
        value: all elements.
        shape: of the leading part that is known.
        grown: as for :func:`continued`.
    """
    if is_coupled(fn, grown):
        found = innovations(base_of(fn))
        noise = found.whiten(value)
        if found.noise is not None:
            return prior_of_known(found.noise, noise, shape, grown)
        return noise[tuple(map(slice, shape))]
    terms = log_density(fn, value)
    return terms[tuple(map(slice, shape[: terms.ndim]))]


def log_density(fn: Distribution, value: Array) -> Array:
    """log-densities of a distribution's independent parts."""
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return jnp.asarray(fn.log_prob(value))


__all__ = ["CannotContinue", "continued", "is_coupled", "log_density", "prior_of_known"]
