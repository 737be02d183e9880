"""Pupil size under attentional load: an intercept and a slope for each subject."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Subject, load, and pupil size."""
    data = load("pupil")
    return data["subj"], data["load"], data["p_size"]


def fixed_effects():
    """Intercept and slope."""
    alpha = numpyro.sample("alpha", dist.Normal(1000, 500))
    return alpha, numpyro.sample("beta", dist.Normal(0, 100))


def scales():
    """The noise's scale, and the factor diag(tau) L of the random effects' covariance."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(1000))
    tau_u = numpyro.sample("tau_u", dist.HalfNormal(1000).expand([2]).to_event(1))
    L_u = numpyro.sample("L_u", dist.LKJCholesky(2))
    return sigma, tau_u[:, None] * L_u


def plates(subj, load, p_size=None):
    """Subjects in a plate, read one component at a time."""
    alpha, beta = fixed_effects()
    sigma, T = scales()
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
    with numpyro.plate("trials", len(load)):
        mean = alpha + u[subj, 0] + load * (beta + u[subj, 1])
        numpyro.sample("p_size", dist.Normal(mean, sigma), obs=p_size)


def sample_shape(subj, load, p_size=None):
    """Subjects drawn with a sample shape."""
    alpha, beta = fixed_effects()
    sigma, T = scales()
    n = len(np.unique(subj))
    u = numpyro.sample("u", dist.MultivariateNormal(0, scale_tril=T), sample_shape=(n,))
    mean = alpha + u[subj][..., 0] + load * (beta + u[subj][..., 1])
    numpyro.sample("p_size", dist.Normal(mean, sigma), obs=p_size)


def to_event(subj, load, p_size=None):
    """Subjects as an event dimension, read with ``take``; the fixed effects are its mean."""
    alpha, beta = fixed_effects()
    sigma, T = scales()
    normal = dist.MultivariateNormal(jnp.stack([alpha, beta]), scale_tril=T)
    u = numpyro.sample("u", normal.expand([len(np.unique(subj))]).to_event(1))
    of_trial = jnp.take(u, subj, axis=0)
    mean = of_trial[:, 0] + load * of_trial[:, 1]
    numpyro.sample("p_size", dist.Normal(mean, sigma).to_event(1), obs=p_size)


def noncentred(subj, load, p_size=None):
    """Standard normal sites times the factor of their covariance."""
    alpha, beta = fixed_effects()
    sigma, T = scales()
    with numpyro.plate("subjects", len(np.unique(subj))):
        z_u = numpyro.sample("z_u", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
        u = z_u @ T.T
    with numpyro.plate("trials", len(load)):
        mean = alpha + u[subj, 0] + load * (beta + u[subj, 1])
        numpyro.sample("p_size", dist.Normal(mean, sigma), obs=p_size)


def design_matrix(subj, load, p_size=None):
    """One design matrix for all random effects, ``X @ beta + Z @ u``."""
    n = len(np.unique(subj))
    X = np.column_stack([np.ones(len(load)), load])
    Z = (jax.nn.one_hot(subj, n)[:, :, None] * X[:, None, :]).reshape(len(load), 2 * n)
    location, scale = np.array([1000.0, 0.0]), np.array([500.0, 100.0])
    beta = numpyro.sample("beta", dist.Normal(location, scale).to_event(1))
    sigma, T = scales()
    with numpyro.plate("subjects", n):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
    with numpyro.plate("trials", len(load)):
        mean = X @ beta + Z @ u.reshape(-1)
        numpyro.sample("p_size", dist.Normal(mean, sigma), obs=p_size)


PUPIL = Reference(
    name="pupil",
    arguments=arguments,
    spellings={
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "noncentred": noncentred,
        "design_matrix": design_matrix,
    },
    integrated={
        "plates": sites("u alpha beta"),
        "sample_shape": sites("u alpha beta"),
        "to_event": sites("u alpha beta"),
        "noncentred": sites("z_u alpha beta"),
        "design_matrix": sites("u beta"),
    },
)
