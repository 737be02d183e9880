"""The families that autmarg knows, and how it looks through a distribution's wrapping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from autmarg.analysis.families.base import Family, Gaussian, NotGaussian, Unread
from autmarg.analysis.families.car import car
from autmarg.analysis.families.low_rank import low_rank
from autmarg.analysis.families.matrix_normal import matrix_normal
from autmarg.analysis.families.multivariate_normal import multivariate_normal
from autmarg.analysis.families.normal import normal
from autmarg.analysis.families.state_space import gaussian_random_walk
from autmarg.analysis.families.transformed import transformed
from autmarg.errors import ModelError

# One line a family. The key is the exact class: a subclass may override log_prob.
FAMILIES: dict[type, Family] = {
    dist.Normal: normal,
    dist.MultivariateNormal: multivariate_normal,
    dist.LowRankMultivariateNormal: low_rank,
    dist.MatrixNormal: matrix_normal,
    dist.CAR: car,
    dist.GaussianRandomWalk: gaussian_random_walk,
}
TRANSFORMED = (
    dist.TransformedDistribution,
    dist.LogNormal,
    dist.ZeroSumNormal,
    dist.CirculantNormal,
    dist.GaussianStateSpace,
)


def register_gaussian(distribution: type, family: Family) -> None:
    """Teach autmarg that ``distribution`` is Gaussian.

    Args:
        distribution: a NumPyro distribution class (exactly that class, not its subclasses). Its
            ``log_prob`` must be the density of what ``family`` returns; ``autmarg.verify`` on a
            model that uses it checks that.
        family: ``family(d) -> Gaussian`` in jax.numpy, for an instance ``d``. It is traced, and it
            may raise :class:`NotGaussian` with a reason in words.

    Raises:
        ModelError: the class is registered already.
    """
    if distribution in FAMILIES or distribution in TRANSFORMED:
        raise ModelError(f"{distribution.__name__} is registered already; expected a new class")
    FAMILIES[distribution] = family


def as_gaussian(d: Any) -> Gaussian:
    """Read a distribution, through its wrapping, as a Gaussian.

    Raises:
        NotGaussian: no family reads it.
    """
    if isinstance(d, dist.MaskedDistribution):
        return _masked(as_gaussian(d.base_dist), d)
    if isinstance(d, dist.ExpandedDistribution | dist.Independent):
        return as_gaussian(d.base_dist)
    if type(d) in FAMILIES:
        return FAMILIES[type(d)](d)
    if type(d) in TRANSFORMED:
        return transformed(d, as_gaussian(d.base_dist))
    own = type(d).__module__.startswith("numpyro.")  # another class may be Gaussian for all we know
    raise (NotGaussian if own else Unread)(type(d).__name__)


def _masked(inner: Gaussian, d: Any) -> Gaussian:
    if d._mask is True:
        return inner
    mask = jnp.broadcast_to(jnp.asarray(d._mask), d.batch_shape)
    mask = mask.reshape(*mask.shape, *(1,) * d.event_dim)
    return replace(inner, mask=mask if inner.mask is None else mask & inner.mask)
