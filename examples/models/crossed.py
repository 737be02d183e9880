"""Subjects crossed with items, each with a correlated random intercept and slope.

Six data sets of the R package bcogsci share this model and differ in likelihood and priors;
`Priors` holds the difference, as in any analysis that is run on several experiments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, log_response_jacobian, sites


@dataclass(frozen=True)
class Priors:
    """The likelihood's family, the scale of each prior, and the name of the items' effects."""

    likelihood: Callable[..., dist.Distribution] = dist.LogNormal
    alpha: float = 10.0
    beta: float = 5.0
    sigma: float = 5.0
    tau: float = 5.0
    items: str = "w"


def fixed_effects(priors: Priors):
    """Intercept, slope, and the scale of the noise."""
    alpha = numpyro.sample("alpha", dist.Normal(0, priors.alpha))
    beta = numpyro.sample("beta", dist.Normal(0, priors.beta))
    sigma = numpyro.sample("sigma", dist.HalfNormal(priors.sigma))
    return alpha, beta, sigma


def correlated(effect: str, scale: float):
    """diag(tau) L, with tau half-normal and L from the LKJ distribution; shape (2, 2)."""
    tau = numpyro.sample(f"tau_{effect}", dist.HalfNormal(scale).expand([2]).to_event(1))
    L = numpyro.sample(f"L_{effect}", dist.LKJCholesky(2))
    return tau[:, None] * L


def plates(subj, item, x, y=None, *, priors: Priors):
    """Random effects in plates, read one component at a time."""
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T_u))
    with numpyro.plate("items", len(np.unique(item))):
        w = numpyro.sample(priors.items, dist.MultivariateNormal(scale_tril=T_w))
    with numpyro.plate("rows", len(x)):
        mean = alpha + u[subj, 0] + w[item, 0] + x * (beta + u[subj, 1] + w[item, 1])
        numpyro.sample("y", priors.likelihood(mean, sigma), obs=y)


def sample_shape(subj, item, x, y=None, *, priors: Priors):
    """Random effects drawn with a sample shape, gathered by row first."""
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    n_u, n_w = len(np.unique(subj)), len(np.unique(item))
    u = numpyro.sample("u", dist.MultivariateNormal(0, scale_tril=T_u), sample_shape=(n_u,))
    w = numpyro.sample(
        priors.items, dist.MultivariateNormal(0, scale_tril=T_w), sample_shape=(n_w,)
    )
    mean = alpha + u[subj][..., 0] + w[item][..., 0]
    slope = beta + u[subj][..., 1] + w[item][..., 1]
    numpyro.sample("y", priors.likelihood(mean + x * slope, sigma), obs=y)


def to_event(subj, item, x, y=None, *, priors: Priors):
    """Random effects as event dimensions, read with ``take``."""
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    n_u, n_w = len(np.unique(subj)), len(np.unique(item))
    normal_u = dist.MultivariateNormal(jnp.zeros(2), scale_tril=T_u)
    normal_w = dist.MultivariateNormal(jnp.zeros(2), scale_tril=T_w)
    u = numpyro.sample("u", normal_u.expand([n_u]).to_event(1))
    w = numpyro.sample(priors.items, normal_w.expand([n_w]).to_event(1))
    of_row = jnp.take(u, subj, axis=0) + jnp.take(w, item, axis=0)
    mean = alpha + of_row[:, 0] + x * (beta + of_row[:, 1])
    numpyro.sample("y", priors.likelihood(mean, sigma).to_event(1), obs=y)


def noncentred(subj, item, x, y=None, *, priors: Priors):
    """Standard normal sites times the factor of their covariance."""
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    n_u, n_w = len(np.unique(subj)), len(np.unique(item))
    z_u = numpyro.sample("z_u", dist.Normal(0, 1).expand([n_u, 2]).to_event(2))
    z_w = numpyro.sample(f"z_{priors.items}", dist.Normal(0, 1).expand([n_w, 2]).to_event(2))
    u, w = z_u @ T_u.T, z_w @ T_w.T
    with numpyro.plate("rows", len(x)):
        mean = alpha + u[subj, 0] + w[item, 0] + x * (beta + u[subj, 1] + w[item, 1])
        numpyro.sample("y", priors.likelihood(mean, sigma), obs=y)


def covariance(subj, item, x, y=None, *, priors: Priors):
    """The random effects' distribution given by its covariance matrix."""
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), T_u @ T_u.T))
    with numpyro.plate("items", len(np.unique(item))):
        w = numpyro.sample(priors.items, dist.MultivariateNormal(jnp.zeros(2), T_w @ T_w.T))
    intercept, slope = (u[subj] + w[item]).T
    with numpyro.plate("rows", len(x)):
        mean = alpha + intercept + x * (beta + slope)
        numpyro.sample("y", priors.likelihood(mean, sigma), obs=y)


def design_matrix(subj, item, x, y=None, *, priors: Priors):
    """Fixed effects as ``X @ beta``; the same rows of X weigh the random effects."""
    X = np.column_stack([np.ones(len(x)), x])
    scale = np.array([priors.alpha, priors.beta])
    beta = numpyro.sample("beta", dist.Normal(0, scale).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(priors.sigma))
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T_u))
    with numpyro.plate("items", len(np.unique(item))):
        w = numpyro.sample(priors.items, dist.MultivariateNormal(scale_tril=T_w))
    with numpyro.plate("rows", len(x)):
        mean = X @ beta + jnp.sum(X * (u[subj] + w[item]), axis=-1)
        numpyro.sample("y", priors.likelihood(mean, sigma), obs=y)


def indicators(subj, item, x, y=None, *, priors: Priors):
    """Random effects as ``Z @ u`` with indicator columns."""
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    Z_u = jax.nn.one_hot(subj, len(np.unique(subj)))
    Z_w = jax.nn.one_hot(item, len(np.unique(item)))
    with numpyro.plate("subjects", Z_u.shape[1]):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T_u))
    with numpyro.plate("items", Z_w.shape[1]):
        w = numpyro.sample(priors.items, dist.MultivariateNormal(scale_tril=T_w))
    of_row = Z_u @ u + Z_w @ w
    with numpyro.plate("rows", len(x)):
        mean = alpha + of_row[:, 0] + x * (beta + of_row[:, 1])
        numpyro.sample("y", priors.likelihood(mean, sigma), obs=y)


def log_response(subj, item, x, y=None, *, priors: Priors):
    """A normal model of log y, where the others have a log-normal model of y."""
    log_y = None if y is None else jnp.log(y)
    alpha, beta, sigma = fixed_effects(priors)
    T_u, T_w = correlated("u", priors.tau), correlated(priors.items, priors.tau)
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T_u))
    with numpyro.plate("items", len(np.unique(item))):
        w = numpyro.sample(priors.items, dist.MultivariateNormal(scale_tril=T_w))
    with numpyro.plate("rows", len(x)):
        mean = alpha + u[subj, 0] + w[item, 0] + x * (beta + u[subj, 1] + w[item, 1])
        numpyro.sample("y", dist.Normal(mean, sigma), obs=log_y)


def arguments(name: str, x: str, y: str) -> tuple[np.ndarray, ...]:
    """Subject, item, covariate and response of one data set."""
    data = load(name)
    return data["subj"], data["item"], data[x], data[y]


def reference(name: str, x: str, y: str, priors: Priors, indicator_columns: bool = True):
    """One data set's reference; indicator columns only where they fit in memory."""
    models = {
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "noncentred": noncentred,
        "covariance": covariance,
        "design_matrix": design_matrix,
    }
    if indicator_columns:
        models["indicators"] = indicators
    on_log_scale = priors.likelihood is dist.LogNormal
    if on_log_scale:
        models["log_response"] = log_response
    integrated = {spelling: sites(f"u {priors.items} alpha beta") for spelling in models}
    integrated["noncentred"] = sites(f"z_u z_{priors.items} alpha beta")
    integrated["design_matrix"] = sites(f"u {priors.items} beta")
    return Reference(
        name=name,
        arguments=partial(arguments, name, x, y),
        spellings={spelling: partial(model, priors=priors) for spelling, model in models.items()},
        integrated=integrated,
        log_jacobian={"log_response": log_response_jacobian} if on_log_scale else {},
    )


_NORMAL = Priors(dist.Normal, tau=1.0, items="v")
_EEG = Priors(dist.Normal, alpha=10.0, beta=10.0, sigma=50.0, tau=20.0)

DILLON = reference("dillonE1", "interference", "rt", Priors())
DUTCH = reference("dutch", "condition", "y", _NORMAL)
ENGLISH = reference("english", "condition", "y", _NORMAL)
EEG = reference("eeg", "cloze", "n400", _EEG, indicator_columns=False)
MANDARIN = reference("mandarin", "type", "rt", Priors())
MANDARIN2 = reference("mandarin2", "condition", "rt", Priors())
