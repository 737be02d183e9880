"""The marginal density of a program by brute force, from the program as NumPyro runs it.

The program is run with its integrated latents u at zero and at each unit vector. A Gaussian site is
then a set of rows x = b + A u + e, e ~ N(0, Λ⁻¹), where Λ and Λ (b + A u) are minus the second and
the first derivative of the site's log_prob at x = 0; all rows together are one dense multivariate
normal. Nothing is used of autmarg but the names of the latents that go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

PROPER = (
    dist.Normal,
    dist.MultivariateNormal,
    dist.LowRankMultivariateNormal,
    dist.MatrixNormal,
    dist.CAR,
    dist.GaussianRandomWalk,
    dist.GaussianStateSpace,
)


@dataclass(frozen=True)
class _Gaussian:
    """A site's Gaussian, masked as the site is, and the transforms from it to the site's value."""

    base: Any
    masks: tuple[Any, ...]
    transforms: tuple[Any, ...]

    def log_prob(self, x: Any) -> Any:
        return self.terms(x).sum()

    def terms(self, x: Any) -> Any:
        """The log-density of each draw in a batch."""
        terms = self.base.log_prob(x)
        for mask in self.masks:
            mask = jnp.asarray(mask)
            terms = jnp.where(mask.reshape(*mask.shape, *(1,) * (terms.ndim - mask.ndim)), terms, 0)
        return terms

    def forward(self, x: Any) -> Any:
        for transform in self.transforms:
            x = transform(x)
        return x

    def inverse(self, value: Any) -> Any:
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return value


def _gaussian(fn: Any, masks: tuple[Any, ...] = ()) -> _Gaussian | None:
    """A distribution through its wrapping; None where there is no Gaussian inside."""
    if isinstance(fn, dist.MaskedDistribution):
        return _gaussian(fn.base_dist, (*masks, jnp.broadcast_to(fn._mask, fn.batch_shape)))
    if isinstance(fn, dist.ExpandedDistribution | dist.Independent):
        return _gaussian(fn.base_dist, masks)
    if isinstance(fn, dist.TransformedDistribution):
        inner = _gaussian(fn.base_dist, masks)
        return inner and _Gaussian(inner.base, inner.masks, (*inner.transforms, *fn.transforms))
    return _Gaussian(fn, masks, ()) if isinstance(fn, PROPER) else None


def _moments(site: _Gaussian, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and precision of a Gaussian of that shape, flat; (0, 0) where a mask takes it out."""
    zero, unravel = ravel_pytree(jnp.zeros(shape))

    def log_prob(x: Any) -> Any:
        return site.log_prob(unravel(x))

    precision = -jax.hessian(log_prob)(zero)
    out = jnp.diag(1.0 * (jnp.diagonal(precision) == 0))
    return jnp.linalg.solve(precision + out, jax.grad(log_prob)(zero)), precision


def prior_draw(model: Callable[..., Any], names: Iterable[str], *args: Any) -> dict[str, Any]:
    """Values of some latents, drawn from the program in one compiled call."""

    def values() -> dict[str, Any]:
        sites = handlers.trace(handlers.seed(model, jax.random.key(1))).get_trace(*args)
        return {name: sites[name]["value"] for name in names}

    return jax.jit(values)()


def marginal(
    model: Callable[..., Any], integrated: Iterable[str], kept: Mapping[str, Any], *args: Any
) -> float:
    """log p(kept, data) of ``model(*args)``, the latents ``integrated`` integrated out."""
    return joint(model, integrated, kept, *args).log_density()


@dataclass(frozen=True)
class Joint:
    """The Gaussian rows of a program as one normal, N(residual; 0, covariance).

    Attributes:
        site, element: of each row, which element of which site it is.
        constant: log-density of what is no Gaussian, and log-Jacobians.
        jacobian: log-Jacobians by site, of its batch shape.
    """

    residual: np.ndarray
    covariance: np.ndarray
    site: np.ndarray
    element: np.ndarray
    constant: float
    jacobian: Mapping[str, np.ndarray]

    def log_density(self, rows: Any = slice(None)) -> float:
        """Of all of it, or of some rows, by number or as a boolean array, and the constant."""
        residual = self.residual[rows]
        if not residual.size:
            return self.constant
        normal = multivariate_normal(np.zeros(len(residual)), self.covariance[rows][:, rows])
        return self.constant + float(normal.logpdf(residual))

    def left_out(self, rows: np.ndarray) -> float:
        """log p(rows | all others)."""
        return self.log_density() - self.log_density(~rows)


def joint(
    model: Callable[..., Any], integrated: Iterable[str], kept: Mapping[str, Any], *args: Any
) -> Joint:
    """The rows of ``model(*args)`` at values of the latents that are kept."""
    members = sorted(integrated)
    shapes = jax.eval_shape(lambda: prior_draw(model, members, *args))
    zero, unravel = ravel_pytree({name: np.zeros(x.shape) for name, x in shapes.items()})

    def rows(u: Any) -> dict[str, Any]:
        given = handlers.substitute(
            handlers.seed(model, jax.random.key(0)), data={**kept, **unravel(u)}
        )
        sites = handlers.trace(given).get_trace(*args)
        return {
            name: _rows(site["fn"], site["value"], name in members)
            for name, site in sites.items()
            if site["type"] == "sample"
        }

    at = jax.jit(jax.vmap(rows))(jnp.concatenate([zero[None], jnp.eye(len(zero))]))
    return _joint(jax.tree.map(np.asarray, at), members)


def _rows(fn: Any, value: Any, member: bool) -> Any:
    """Of a member: mean and covariance. Of others: mean, precision, value, log-Jacobians.

    Of what is no Gaussian: its log-density.
    """
    gaussian = _gaussian(fn)
    if gaussian is None:
        return fn.log_prob(value).sum()
    if not member:
        x = gaussian.inverse(value)
        mean, precision = _moments(gaussian, jnp.shape(x))
        whole, terms = fn.log_prob(value), gaussian.terms(x)
        terms = terms.sum(axis=tuple(range(whole.ndim, terms.ndim)))
        return mean, precision, jnp.ravel(x), whole - terms
    shape = jax.eval_shape(gaussian.inverse, value).shape
    mean, precision = _moments(gaussian, shape)
    push = jax.jacobian(lambda x: jnp.ravel(gaussian.forward(x.reshape(shape))))(mean)
    out = jnp.diag(1.0 * (jnp.diagonal(precision) == 0))
    covariance = push @ jnp.linalg.solve(precision + out, push.T)
    return jnp.ravel(gaussian.forward(mean.reshape(shape))), covariance


def _joint(at: Mapping[str, Any], members: list[str]) -> Joint:
    """Add up what no member touches, and make one normal of all rows."""
    d = sum(at[name][0].shape[1] for name in members)
    offset = np.concatenate([at[name][0][0] for name in members] or [np.zeros(0)])
    design = np.concatenate([_slopes(at[name][0]) for name in members] or [np.zeros((0, 0))])
    spread = np.linalg.inv(np.eye(d) - design)
    mean = spread @ offset
    own = block_diag(np.zeros((0, 0)), *(at[name][1][0] for name in members))
    covariance = spread @ own @ spread.T
    total, parts, jacobians = 0.0, [], {}
    for name in sorted(at.keys() - set(members)):
        if not isinstance(at[name], tuple):
            total += float(at[name][0])
            continue
        loc, precision, x, jacobian = at[name]
        seen = np.flatnonzero(np.diagonal(precision[0]))
        slopes, noise = _slopes(loc)[seen], np.linalg.inv(precision[0][np.ix_(seen, seen)])
        names = np.full(len(seen), name)
        parts.append((x[0][seen] - loc[0][seen] - slopes @ mean, slopes, names, seen, noise))
        total += float(jacobian[0].sum())
        jacobians[name] = jacobian[0]
    none = (np.zeros(0), np.zeros((0, d)), np.zeros(0, str), np.zeros(0, np.int64))
    residual, slopes, site, element = (
        np.concatenate([none[i], *(p[i] for p in parts)]) for i in range(4)
    )
    noise = block_diag(np.zeros((0, 0)), *(p[4] for p in parts))
    return Joint(residual, slopes @ covariance @ slopes.T + noise, site, element, total, jacobians)


def _slopes(values: np.ndarray) -> np.ndarray:
    """The slopes of an affine function from its values at zero and at unit vectors."""
    return (values[1:] - values[0]).T
