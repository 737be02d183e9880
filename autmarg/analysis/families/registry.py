"""The families that autmarg knows, and how it looks through a distribution's wrapping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from autmarg.analysis.families.base import Family, Gaussian, NotGaussian, Unread
from autmarg.analysis.families.car import car
from autmarg.analysis.families.improper import improper_uniform
from autmarg.analysis.families.low_rank import low_rank
from autmarg.analysis.families.matrix_normal import matrix_normal
from autmarg.analysis.families.multivariate_normal import multivariate_normal
from autmarg.analysis.families.normal import normal
from autmarg.analysis.families.registered import check_registration, read_registered
from autmarg.analysis.families.state_space import gaussian_random_walk
from autmarg.analysis.families.transformed import transformed
from autmarg.compat.numpyro import unwrapped
from autmarg.errors import ModelError

# One line a family. The key is the exact class: a subclass may override log_prob.
FAMILIES: dict[type, Family] = {
    dist.Normal: normal,
    dist.MultivariateNormal: multivariate_normal,
    dist.LowRankMultivariateNormal: low_rank,
    dist.MatrixNormal: matrix_normal,
    dist.CAR: car,
    dist.GaussianRandomWalk: gaussian_random_walk,
    dist.ImproperUniform: improper_uniform,
}
TRANSFORMED = (
    dist.TransformedDistribution,
    dist.LogNormal,
    dist.ZeroSumNormal,
    dist.CirculantNormal,
    dist.GaussianStateSpace,
)


BUILT_IN = frozenset((*FAMILIES, *TRANSFORMED))


def register_gaussian(distribution: type, family: Family, *, replace: bool = False) -> None:
    """Teach autmarg that ``distribution`` is Gaussian.

    Args:
        distribution: a NumPyro distribution class (exactly that class, not its subclasses). Its
            ``log_prob`` must be the density of what ``family`` returns; ``autmarg.verify`` on a
            model that uses it checks that.
        family: ``family(d) -> Gaussian`` in jax.numpy, for an instance ``d``. It is traced, and it
            may raise :class:`NotGaussian` with a reason in words.
        replace: register ``family`` in place of the one that was registered for the class before
            (a cell of a notebook that runs twice).

    Raises:
        ModelError: the class is registered already and ``replace`` is false, it is one that autmarg
            itself reads, it is not a class, or ``family`` is not a function. When a model meets the
            class: ``family`` returned what cannot be its Gaussian, by its type or its shapes.
    """
    check_registration(distribution, family)
    name = distribution.__name__
    if distribution in BUILT_IN:
        raise ModelError(
            f"{name} is registered already, by autmarg itself; expected a class of your own (a "
            "subclass is one)"
        )
    if distribution in FAMILIES and not replace:
        raise ModelError(
            f"{name} is registered already; expected a new class, or replace=True to register "
            "another family for it"
        )
    FAMILIES[distribution] = family


def as_gaussian(d: Any) -> Gaussian:
    """Read a distribution, through its wrapping, as a Gaussian.

    Raises:
        NotGaussian: no family reads it.
    """
    found = unwrapped(d)
    inner = _bare(found.base)
    for mask, axes in reversed(found.effective_masks):
        inner = _masked(inner, mask, axes)
    return inner


def _bare(d: Any) -> Gaussian:
    """A distribution without wrapping as a Gaussian."""
    if type(d) in FAMILIES:
        family = FAMILIES[type(d)]
        return family(d) if type(d) in BUILT_IN else read_registered(d, family)
    if type(d) in TRANSFORMED:
        return transformed(d, as_gaussian(d.base_dist))
    own = type(d).__module__.startswith("numpyro.")  # another class may be Gaussian for all we know
    raise (NotGaussian if own else Unread)(type(d).__name__)


def _masked(inner: Gaussian, mask: Any, axes: int) -> Gaussian:
    """A Gaussian under a mask, which ``axes`` of a value follow."""
    mask = jnp.asarray(mask)
    mask = mask.reshape(*mask.shape, *(1,) * axes)
    return replace(inner, mask=mask if inner.mask is None else mask & inner.mask)
