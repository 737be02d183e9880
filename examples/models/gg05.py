"""Relative clauses (Grodner and Gibson 2005): subjects, items and experiments, all crossed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, log_response_jacobian, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Subject, item, experiment, treatment, and the reading times."""
    data = load("gg05")
    return tuple(data[c] for c in ("subj", "item", "experiment", "treatment", "rt"))


def fixed_effects():
    """Intercept, slope, and the scale of the noise."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 10))
    beta = numpyro.sample("beta", dist.Normal(0, 5))
    return alpha, beta, numpyro.sample("sigma", dist.HalfNormal(5))


def correlated(effect: str):
    """diag(tau) L, with tau half-normal and L from the LKJ distribution; shape (2, 2)."""
    tau = numpyro.sample(f"tau_{effect}", dist.HalfNormal(5).expand([2]).to_event(1))
    L = numpyro.sample(f"L_{effect}", dist.LKJCholesky(2))
    return tau[:, None] * L


def random_effects(subj, item, experiment):
    """The three grouping factors' intercepts and slopes, each in its plate."""
    T_u, T_w, T_v = correlated("u"), correlated("w"), correlated("v")
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T_u))
    with numpyro.plate("items", len(np.unique(item))):
        w = numpyro.sample("w", dist.MultivariateNormal(scale_tril=T_w))
    with numpyro.plate("experiments", len(np.unique(experiment))):
        v = numpyro.sample("v", dist.MultivariateNormal(scale_tril=T_v))
    return u, w, v


def plates(subj, item, experiment, x, rt=None):
    """Random effects in plates, read one component at a time."""
    alpha, beta, sigma = fixed_effects()
    u, w, v = random_effects(subj, item, experiment)
    intercept = alpha + u[subj, 0] + w[item, 0] + v[experiment, 0]
    slope = beta + u[subj, 1] + w[item, 1] + v[experiment, 1]
    with numpyro.plate("rows", len(x)):
        numpyro.sample("rt", dist.LogNormal(intercept + x * slope, sigma), obs=rt)


def sample_shape(subj, item, experiment, x, rt=None):
    """Random effects drawn with a sample shape, gathered by row first."""
    alpha, beta, sigma = fixed_effects()
    effects = {}
    for name, codes in {"u": subj, "w": item, "v": experiment}.items():
        normal = dist.MultivariateNormal(jnp.zeros(2), scale_tril=correlated(name))
        effects[name] = numpyro.sample(name, normal, sample_shape=(len(np.unique(codes)),))
    u, w, v = effects["u"][subj], effects["w"][item], effects["v"][experiment]
    intercept = alpha + u[..., 0] + w[..., 0] + v[..., 0]
    slope = beta + u[..., 1] + w[..., 1] + v[..., 1]
    numpyro.sample("rt", dist.LogNormal(intercept + x * slope, sigma), obs=rt)


def to_event(subj, item, experiment, x, rt=None):
    """Random effects as event dimensions, read with ``take``."""
    alpha, beta, sigma = fixed_effects()
    intercept, slope = alpha, beta
    for name, codes in {"u": subj, "w": item, "v": experiment}.items():
        normal = dist.MultivariateNormal(jnp.zeros(2), scale_tril=correlated(name))
        effect = numpyro.sample(name, normal.expand([len(np.unique(codes))]).to_event(1))
        of_row = jnp.take(effect, codes, axis=0)
        intercept, slope = intercept + of_row[:, 0], slope + of_row[:, 1]
    numpyro.sample("rt", dist.LogNormal(intercept + x * slope, sigma).to_event(1), obs=rt)


def noncentred(subj, item, experiment, x, rt=None):
    """Standard normal sites times the factor of their covariance."""
    alpha, beta, sigma = fixed_effects()
    intercept, slope = alpha, beta
    for name, codes in {"u": subj, "w": item, "v": experiment}.items():
        T = correlated(name)
        with numpyro.plate(f"levels_{name}", len(np.unique(codes))):
            z = numpyro.sample(f"z_{name}", dist.Normal(0, 1).expand([2]).to_event(1))
        effect = jnp.einsum("ij,nj->ni", T, z)
        intercept, slope = intercept + effect[codes, 0], slope + effect[codes, 1]
    with numpyro.plate("rows", len(x)):
        numpyro.sample("rt", dist.LogNormal(intercept + x * slope, sigma), obs=rt)


def design_matrix(subj, item, experiment, x, rt=None):
    """Fixed effects as ``X @ beta``, random effects through indicator columns."""
    X = np.column_stack([np.ones(len(x)), x])
    beta = numpyro.sample("beta", dist.Normal(0, np.array([10.0, 5.0])).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5))
    u, w, v = random_effects(subj, item, experiment)
    of_row = jax.nn.one_hot(subj, len(u)) @ u + jax.nn.one_hot(item, len(w)) @ w
    of_row = of_row + jax.nn.one_hot(experiment, len(v)) @ v
    with numpyro.plate("rows", len(x)):
        mean = X @ beta + (X * of_row).sum(-1)
        numpyro.sample("rt", dist.LogNormal(mean, sigma), obs=rt)


def log_response(subj, item, experiment, x, rt=None):
    """A normal model of log reading times."""
    log_rt = None if rt is None else jnp.log(rt)
    alpha, beta, sigma = fixed_effects()
    u, w, v = random_effects(subj, item, experiment)
    of_row = u[subj] + w[item] + v[experiment]
    with numpyro.plate("rows", len(x)):
        mean = alpha + of_row[:, 0] + x * (beta + of_row[:, 1])
        numpyro.sample("rt", dist.Normal(mean, sigma), obs=log_rt)


GG05 = Reference(
    name="gg05",
    arguments=arguments,
    spellings={
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "noncentred": noncentred,
        "design_matrix": design_matrix,
        "log_response": log_response,
    },
    integrated={
        "plates": sites("u w v alpha beta"),
        "sample_shape": sites("u w v alpha beta"),
        "to_event": sites("u w v alpha beta"),
        "noncentred": sites("z_u z_w z_v alpha beta"),
        "design_matrix": sites("u w v beta"),
        "log_response": sites("u w v alpha beta"),
    },
    log_jacobian={"log_response": log_response_jacobian},
)
