"""TransformedDistribution: affine and linear transforms are folded in, others are bijections.

ZeroSumNormal and CirculantNormal are of this kind, a Normal through a known linear map, and so is
GaussianStateSpace, through a recursion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import transforms

from autmarg.analysis.families.base import Gaussian, NotGaussian, Unread
from autmarg.analysis.families.state_space import recursive
from autmarg.compat.numpyro import base_of

# Known linear maps (and their inverses), applied to an identity matrix to find their basis.
LINEAR = (
    transforms.DiscreteCosineTransform,
    transforms.HaarTransform,
    transforms.PackRealFastFourierCoefficientsTransform,
    transforms.PermuteTransform,
    transforms.RealFastFourierTransform,
    transforms.ZeroSumTransform,
)


def transformed(d: Any, inner: Gaussian) -> Gaussian:
    """A TransformedDistribution ``d`` whose base is ``inner``.

    Raises:
        NotGaussian: the transforms, or the mask inside, leave the Gaussian form.
    """
    if inner.mask is not None:
        raise Unread("transform of a masked distribution")
    kind, shape = type(base_of(d.base_dist)).__name__, d.base_dist.shape()
    for linear, run in itertools.groupby(_parts(d.transforms), _is_linear):
        parts = list(run)
        if linear and not inner.bijection and inner.past is None and inner.scale_tril is None:
            inner = _linear(transforms.ComposeTransform(parts), inner, shape, kind)
            continue
        for part in parts:
            inner = _step(part, inner, kind)
    return inner


def _parts(chain: Iterable[Any]) -> Iterator[Any]:
    """Transforms in order, compositions and event reinterpretations taken apart."""
    for transform in chain:
        if isinstance(transform, transforms.ComposeTransform):
            yield from _parts(transform.parts)
        elif isinstance(transform, transforms.IndependentTransform):
            yield from _parts([transform.base_transform])
        elif not isinstance(transform, transforms.IdentityTransform):
            yield transform


def _is_linear(transform: Any) -> bool:
    return isinstance(transform, LINEAR) or isinstance(transform.inv, LINEAR)


def _step(part: Any, inner: Gaussian, kind: str) -> Gaussian:
    if isinstance(part, transforms.AbsTransform):
        raise NotGaussian(f"AbsTransform of {kind}")
    if not inner.bijection and isinstance(part, transforms.AffineTransform):
        return _affine(part, inner, kind)
    if not inner.bijection and isinstance(part, transforms.LowerCholeskyAffine):
        return _triangular(part, inner, kind)
    if not inner.bijection and isinstance(part, transforms.PermuteTransform):
        return _permuted(part, inner, kind)
    if not inner.bijection and isinstance(part, transforms.RecursiveLinearTransform):
        return recursive(part, inner, kind)
    return replace(inner, bijection=(*inner.bijection, part))


def _affine(part: Any, inner: Gaussian, kind: str) -> Gaussian:
    """loc' + scale' x, element by element."""
    loc, one = part.loc + part.scale * inner.loc, jnp.ndim(part.scale) == 0
    if inner.past is not None:
        inner = replace(inner, past=_moved(inner.past, part))
    if inner.basis is not None:
        d, k = inner.basis.shape[-2:]
        if d == k and one:
            return replace(inner, loc=loc, scale=jnp.abs(part.scale) * inner.scale)
    elif inner.scale is not None:
        return replace(inner, loc=loc, scale=jnp.abs(part.scale) * inner.scale)
    elif one or inner.event_dim == 1:
        # (columns change their signs with the rows, which leaves those of the diagonal)
        factor = jnp.asarray(part.scale) if one else jnp.asarray(part.scale)[..., None]
        signs = jnp.sign(factor if one else jnp.swapaxes(factor, -1, -2))
        return replace(inner, loc=loc, scale_tril=factor * inner.scale_tril * signs)
    raise Unread(f"AffineTransform of {kind}")


def _moved(past: Callable[[Any], Any], part: Any) -> Callable[[Any], Any]:
    """What the past of x adds to the mean of loc' + scale' x, as a function of the latter."""
    return lambda value: part.scale * past((value - part.loc) / part.scale)


def _triangular(part: Any, inner: Gaussian, kind: str) -> Gaussian:
    """loc' + T x along the last axis."""
    matrix = jnp.tril(part.scale_tril)
    if inner.basis is not None or inner.event_dim > 1 or inner.past is not None:
        raise Unread(f"LowerCholeskyAffine of {kind}")
    if inner.scale_tril is not None:
        factor = matrix @ jnp.tril(inner.scale_tril)
    else:
        scale = inner.scale if jnp.ndim(inner.scale) == 0 else inner.scale[..., None, :]
        factor = matrix * scale
    column = jnp.asarray(inner.loc)[..., None] if jnp.ndim(inner.loc) else inner.loc
    column = jnp.broadcast_to(column, (*jnp.shape(column)[:-2], matrix.shape[-1], 1))
    loc = part.loc + (matrix @ column)[..., 0]
    return replace(inner, loc=loc, scale=None, scale_tril=factor, event_dim=1)


def _permuted(part: Any, inner: Gaussian, kind: str) -> Gaussian:
    """A vector with a triangular factor, its elements in another order.

    With P S = (Q R)ᵀ the factor of the covariance P S Sᵀ Pᵀ is Rᵀ, its diagonal made positive.
    """
    if inner.scale_tril is None or inner.event_dim != 1 or inner.past is not None:
        raise Unread(f"PermuteTransform of {kind}")
    rows = jnp.tril(inner.scale_tril)[..., part.permutation, :]
    upper = jnp.linalg.qr(jnp.swapaxes(rows, -1, -2), mode="r")
    sign = jnp.sign(jnp.diagonal(upper, axis1=-2, axis2=-1))
    factor = jnp.swapaxes(sign[..., :, None] * upper, -1, -2)
    loc = jnp.broadcast_to(inner.loc, (*jnp.shape(inner.loc)[:-1], factor.shape[-1]))
    return replace(inner, loc=loc[..., part.permutation], scale_tril=factor)


def _linear(
    transform: transforms.ComposeTransform, inner: Gaussian, shape: tuple[int, ...], kind: str
) -> Gaussian:
    """T x for a known linear map T of the last axes: the images of unit vectors are its basis."""
    n = transform.domain.event_dim
    if inner.scale is None or inner.basis is not None:
        raise Unread(f"{type(transform.parts[0]).__name__} of {kind}")
    batch, event = shape[: len(shape) - n], shape[len(shape) - n :]
    k = math.prod(event)
    if not k:
        raise Unread(f"{type(transform.parts[0]).__name__} of a {kind} without elements")
    images: Any = transform(jnp.eye(k).reshape(k, *event))
    return Gaussian(
        transform(jnp.broadcast_to(jnp.asarray(inner.loc, float), shape)),
        scale=jnp.broadcast_to(inner.scale, shape).reshape(*batch, k),
        basis=images.reshape(k, -1).T,
        event_dim=images.ndim - 1,
    )
