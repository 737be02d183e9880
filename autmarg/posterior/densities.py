"""Marginal posterior densities of effects as mixtures of their exact conditionals.

Given θ and the data an integrated Gaussian element is normal, with a mean and a variance that the
elimination gives. So with draws θ_s of the posterior

    p(x | y) ≈ (1/S) Σ_s N(x; m(θ_s, y), v(θ_s, y)),

which is smooth without a kernel and has less Monte Carlo error than any estimate from draws of x
(Rao–Blackwell; Gelfand & Smith 1990).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.errors import RequestError, did_you_mean
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Recover
from autmarg.ir.program import Program
from autmarg.posterior.inference_data import WholeFit, whole_fit

if TYPE_CHECKING:
    from xarray import Dataset

    from autmarg.posterior.after_fit import AfterFit

_POINTS = 201
_REACH = 4.0  # standard deviations of the mixture to each side of its mean


def densities(
    marg: AfterFit,
    mcmc_or_samples: Any,
    site: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    grid: Any,
    **options: Any,
) -> Dataset:
    """See :meth:`autmarg.MarginalizedModel.densities`."""
    fit = whole_fit(marg, mcmc_or_samples, args, kwargs, method="densities", **options)
    _check(marg.compiled(*fit.args, **fit.kwargs)[0].program, fit, site)
    moments = marg.recover(
        fit.key, fit.posterior, *fit.args, moments=True, other_data=True, **fit.kwargs
    )[site]
    mean, variance = (np.asarray(moments[name]) for name in ("mean", "var"))
    count = mean.shape[0] * mean.shape[1]
    mean, variance = (x.reshape(count, *x.shape[2:]) for x in (mean, variance))
    if not np.all(variance > 0):
        raise RequestError(
            f"'{site}' has no density at {int((~(variance > 0)).any(axis=0).sum())} elements: at "
            "some draws its variance given the data is zero or unknown. Use draws of it from "
            "marg.recover"
        )
    points = _grid(grid, mean, variance)
    density = np.asarray(_mixture(jnp.asarray(points), jnp.asarray(mean), jnp.asarray(variance)))
    return _dataset(fit, site, points, density)


def _check(program: Program, fit: WholeFit, site: str) -> None:
    """Raise unless an integrated site is Gaussian given the rest."""
    nodes = [n for n in program.nodes if isinstance(n, Recover)]
    members = {m.name: node for node in nodes for m in node.members}
    normal = sorted(n for n, node in members.items() if isinstance(node.density, GaussianMarginal))
    if site in normal:
        return
    has = f"expected one of {normal}" if normal else "the plan has no such site"
    if site in members:
        raise RequestError(
            f"'{site}' was integrated out, but not as Gaussian ({members[site].rule}): given the "
            "data it is not normal, so that its moments are no density. Use draws of it from "
            f"marg.recover; for exact densities {has}"
        )
    known = [n.name for n in fit.program.latents]
    what = "is sampled" if site in known else f"is no latent{did_you_mean(site, known)}"
    raise RequestError(
        f"'{site}' {what}: exact densities are those of sites that were integrated out as "
        f"Gaussian, {has}"
    )


def _grid(grid: Any, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Points [*shape, points]: the user's, or four standard deviations about the mean."""
    if grid is not None and not isinstance(grid, int):
        points = np.asarray(grid, mean.dtype)
        if points.ndim != 1 or not points.size:
            raise RequestError(
                f"densities was given a grid of shape {points.shape}: expected a number of points "
                "or an array [points]"
            )
        return np.broadcast_to(points, (*mean.shape[1:], points.size))
    centre = mean.mean(0)
    deviation = np.sqrt(variance.mean(0) + mean.var(0))
    steps = np.linspace(-_REACH, _REACH, _POINTS if grid is None else grid)
    return centre[..., None] + deviation[..., None] * steps


@jax.jit
def _mixture(points: Any, mean: Any, variance: Any) -> Any:
    """Density [*shape, points] of equal parts N(mean[s], variance[s]), one s at a time."""

    def add(total: Any, moments: Any) -> tuple[Any, None]:
        m, v = (x[..., None] for x in moments)
        own = jnp.exp(-0.5 * (points - m) ** 2 / v) / jnp.sqrt(2 * math.pi * v)
        return total + own, None

    total, _ = jax.lax.scan(add, jnp.zeros_like(points), (mean, variance))
    return total / mean.shape[0]


def _dataset(fit: WholeFit, site: str, points: np.ndarray, density: np.ndarray) -> Dataset:
    """``x`` and ``density``, each [*shape, points], with the site's dimensions and labels."""
    own = fit.dataset([site])[site]
    dims = [d for d in own.dims if d not in ("chain", "draw")]
    template = own.isel(chain=0, draw=0, drop=True)
    made = template.to_dataset(name="x").drop_vars("x")
    names = [*dims, "point"]
    made = made.assign(x=(names, points), density=(names, density))
    return made.assign_attrs(site=site, about="density of the site's marginal posterior at x")
