"""Location-scale families: how a draw is an affine image of standard noise.

One line a family in :data:`LOCATION_SCALE`. Unlike the Gaussian families these serve one purpose
only, to re-express a latent that stays sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from autmarg.analysis.naming import a
from autmarg.compat.numpyro import unwrapped


@dataclass(frozen=True, eq=False)
class LocationScale:
    """x = bijection(loc + scale · z), or x = bijection(loc + scale_tril z) along the last axis.

    Attributes:
        standard: the distribution of each entry of z, independent of the others.
        loc: array that broadcasts against the value.
        scale: array that broadcasts against the value, or None.
        scale_tril: [..., d, d] lower-triangular, or None.
        bijection: elementwise transforms from loc + scale · z to the value, innermost first.
    """

    standard: Any
    loc: Any
    scale: Any = None
    scale_tril: Any = None
    bijection: tuple[Any, ...] = ()

    def image(self, z: Any) -> tuple[Any, Any]:
        """x for z, both of the site's shape, and log |det dx/dz|, a scalar.

        The logarithm is NaN where a scale is below zero: so is the density of x.
        """
        if self.scale_tril is None:
            slope, moved = self.scale, self.scale * z
        else:
            slope = jnp.diagonal(self.scale_tril, axis1=-2, axis2=-1)
            moved = (self.scale_tril @ z[..., None])[..., 0]
        x = self.loc + moved
        logs = jnp.broadcast_to(jnp.log(slope), z.shape)
        for transform in self.bijection:
            before, x = x, transform(x)
            logs = logs + transform.log_abs_det_jacobian(before, x)
        return x, jnp.sum(logs)


class NotLocationScale(Exception):
    """A distribution that no entry reads; the message names it in words."""


def _normal(d: Any) -> LocationScale:
    return LocationScale(dist.Normal(0.0, 1.0), d.loc, d.scale)


def _multivariate_normal(d: Any) -> LocationScale:
    return LocationScale(dist.Normal(0.0, 1.0), d.loc, scale_tril=d.scale_tril)


def _student_t(d: Any) -> LocationScale:
    return LocationScale(dist.StudentT(d.df, 0.0, 1.0), d.loc, d.scale)


def _by_class(d: Any) -> LocationScale:
    return LocationScale(type(d)(0.0, 1.0), d.loc, d.scale)


# The key is the exact class: a subclass may override log_prob.
LOCATION_SCALE: dict[type, Callable[[Any], LocationScale]] = {
    dist.Normal: _normal,
    dist.MultivariateNormal: _multivariate_normal,
    dist.StudentT: _student_t,
    dist.Cauchy: _by_class,
    dist.Laplace: _by_class,
    dist.Logistic: _by_class,
    dist.Gumbel: _by_class,
}


def as_location_scale(d: Any) -> LocationScale:
    """Read a distribution, through expansion, independence and elementwise transforms.

    Raises:
        NotLocationScale: no entry reads it, or a mask is over it.
    """
    d = unwrapped(d, masks_too=False).base
    if type(d) in LOCATION_SCALE:
        return LOCATION_SCALE[type(d)](d)
    if type(d) is dist.TransformedDistribution or type(d) is dist.LogNormal:
        if any(t.domain.event_dim or t.codomain.event_dim for t in d.transforms):
            raise NotLocationScale("a transform that is not elementwise")
        inner = as_location_scale(d.base_dist)
        return replace(inner, bijection=(*inner.bijection, *d.transforms))
    raise NotLocationScale(a(type(d).__name__))
