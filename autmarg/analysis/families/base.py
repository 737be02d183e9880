"""The registry of Gaussian families and the wrappers around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import transforms

from autmarg.errors import ModelError


@dataclass(frozen=True, eq=False)
class Gaussian:
    """x = bijection(loc + scale · ε), or x = bijection(loc + scale_tril ε) along the last axis.

    Attributes:
        loc: array that broadcasts against the value.
        scale: array that broadcasts against the value, or None.
        scale_tril: [..., d, d] lower-triangular (any matrix with L Lᵀ the covariance), or None.
        bijection: transforms from the Gaussian to the value, innermost first.
        mask: boolean array over the batch, or None.
    """

    loc: Any
    scale: Any = None
    scale_tril: Any = None
    bijection: tuple[Any, ...] = ()
    mask: Any = None


class NotGaussian(Exception):
    """A distribution that no family reads; the message names it in words."""


Family = Callable[[Any], Gaussian]


def _normal(d: Any) -> Gaussian:
    return Gaussian(d.loc, scale=d.scale)


def _multivariate_normal(d: Any) -> Gaussian:
    return Gaussian(d.loc, scale_tril=d.scale_tril)


# One line a family. The key is the exact class: a subclass may override log_prob.
FAMILIES: dict[type, Family] = {
    dist.Normal: _normal,
    dist.MultivariateNormal: _multivariate_normal,
}


def register_gaussian(distribution: type, family: Family) -> None:
    """Teach autmarg that ``distribution`` is Gaussian.

    Args:
        distribution: a NumPyro distribution class (exactly that class, not its subclasses).
        family: ``family(d) -> Gaussian`` in jax.numpy, for an instance ``d``.

    Raises:
        ModelError: the class is registered already.
    """
    if distribution in FAMILIES:
        raise ModelError(f"{distribution.__name__} is registered already; expected a new class")
    FAMILIES[distribution] = family


def as_gaussian(d: Any) -> Gaussian:
    """Read a distribution, through its wrapping, as a Gaussian.

    Raises:
        NotGaussian: no family reads it.
    """
    if isinstance(d, dist.MaskedDistribution):
        inner = as_gaussian(d.base_dist)
        if d._mask is True:
            return inner
        mask = jnp.broadcast_to(jnp.asarray(d._mask), d.batch_shape)
        return replace(inner, mask=mask if inner.mask is None else mask & inner.mask)
    if isinstance(d, dist.ExpandedDistribution | dist.Independent):
        return as_gaussian(d.base_dist)
    if type(d) in FAMILIES:
        return FAMILIES[type(d)](d)
    if type(d) is dist.TransformedDistribution or type(d) is dist.LogNormal:
        return _transformed(d)
    raise NotGaussian(_name(d))


def _transformed(d: Any) -> Gaussian:
    inner = as_gaussian(d.base_dist)
    for transform in d.transforms:
        if isinstance(transform, transforms.AffineTransform) and not inner.bijection:
            if inner.scale is None:
                raise NotGaussian(f"an affine transform of {_name(d.base_dist)}")
            loc = transform.loc + transform.scale * inner.loc
            inner = replace(inner, loc=loc, scale=jnp.abs(transform.scale) * inner.scale)
        elif transform.domain.event_dim or transform.codomain.event_dim:
            raise NotGaussian(f"a {type(transform).__name__} of {_name(d.base_dist)}")
        else:
            inner = replace(inner, bijection=(*inner.bijection, transform))
    return inner


def _name(d: Any) -> str:
    return type(d).__name__
