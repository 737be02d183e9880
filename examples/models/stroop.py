"""The Stroop task as a distributional model: subjects differ in mean and in spread.

The effects u on the mean can be integrated out; the effects s on the log-scale cannot, and are
written non-centred.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, log_response_jacobian, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Subject, condition, and the reaction times."""
    data = load("stroop")
    return data["subj"], data["condition"], data["rt"]


def fixed_effects():
    """Intercept and slope of the mean of log rt."""
    alpha = numpyro.sample("alpha", dist.Normal(6, 1.5))
    return alpha, numpyro.sample("beta", dist.Normal(0, 0.01))


def correlated(effect: str):
    """diag(tau) L, with tau half-normal and L from the LKJ distribution; shape (2, 2)."""
    tau = numpyro.sample(f"tau_{effect}", dist.HalfNormal(1).expand([2]).to_event(1))
    L = numpyro.sample(f"L_{effect}", dist.LKJCholesky(2))
    return tau[:, None] * L


def spread(subj, x):
    """The scale of log rt in each trial."""
    sigma_alpha = numpyro.sample("sigma_alpha", dist.Normal(0, 1))
    sigma_beta = numpyro.sample("sigma_beta", dist.Normal(0, 1))
    T = correlated("s")
    with numpyro.plate("subjects_spread", len(np.unique(subj))):
        z_s = numpyro.sample("z_s", dist.Normal(0, 1).expand([2]).to_event(1))
    s = z_s @ T.T
    return jnp.exp(sigma_alpha + s[subj, 0] + x * (sigma_beta + s[subj, 1]))


def plates(subj, x, rt=None):
    """Subjects in a plate, read one component at a time."""
    alpha, beta = fixed_effects()
    sigma = spread(subj, x)
    T = correlated("u")
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
    with numpyro.plate("trials", len(x)):
        mean = alpha + u[subj, 0] + x * (beta + u[subj, 1])
        numpyro.sample("rt", dist.LogNormal(mean, sigma), obs=rt)


def sample_shape(subj, x, rt=None):
    """Subjects drawn with a sample shape."""
    alpha, beta = fixed_effects()
    normal = dist.MultivariateNormal(0, scale_tril=correlated("u"))
    u = numpyro.sample("u", normal, sample_shape=(len(np.unique(subj)),))
    mean = alpha + u[subj][..., 0] + x * (beta + u[subj][..., 1])
    numpyro.sample("rt", dist.LogNormal(mean, spread(subj, x)), obs=rt)


def to_event(subj, x, rt=None):
    """Subjects as an event dimension, read with ``take``."""
    alpha, beta = fixed_effects()
    normal = dist.MultivariateNormal(jnp.zeros(2), scale_tril=correlated("u"))
    u = numpyro.sample("u", normal.expand([len(np.unique(subj))]).to_event(1))
    of_trial = jnp.take(u, subj, axis=0)
    mean = alpha + of_trial[:, 0] + x * (beta + of_trial[:, 1])
    numpyro.sample("rt", dist.LogNormal(mean, spread(subj, x)).to_event(1), obs=rt)


def noncentred(subj, x, rt=None):
    """Standard normal sites times the factor of their covariance."""
    alpha, beta = fixed_effects()
    T = correlated("u")
    with numpyro.plate("subjects", len(np.unique(subj))):
        z_u = numpyro.sample("z_u", dist.Normal(0, 1).expand([2]).to_event(1))
    u = z_u @ T.T
    sigma = spread(subj, x)
    with numpyro.plate("trials", len(x)):
        mean = alpha + u[subj, 0] + x * (beta + u[subj, 1])
        numpyro.sample("rt", dist.LogNormal(mean, sigma), obs=rt)


def design_matrix(subj, x, rt=None):
    """Fixed effects as ``X @ beta``, random effects through indicator columns."""
    X = np.column_stack([np.ones(len(x)), x])
    location, scale = np.array([6.0, 0.0]), np.array([1.5, 0.01])
    beta = numpyro.sample("beta", dist.Normal(location, scale).to_event(1))
    T = correlated("u")
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
    mean = X @ beta + jnp.sum(X * (jax.nn.one_hot(subj, len(u)) @ u), axis=-1)
    sigma = spread(subj, x)
    with numpyro.plate("trials", len(x)):
        numpyro.sample("rt", dist.LogNormal(mean, sigma), obs=rt)


def log_response(subj, x, rt=None):
    """A normal model of log reaction times."""
    log_rt = None if rt is None else jnp.log(rt)
    alpha, beta = fixed_effects()
    sigma = spread(subj, x)
    T = correlated("u")
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
    with numpyro.plate("trials", len(x)):
        mean = alpha + u[subj, 0] + x * (beta + u[subj, 1])
        numpyro.sample("rt", dist.Normal(mean, sigma), obs=log_rt)


STROOP = Reference(
    name="stroop",
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
        "plates": sites("u alpha beta"),
        "sample_shape": sites("u alpha beta"),
        "to_event": sites("u alpha beta"),
        "noncentred": sites("z_u alpha beta"),
        "design_matrix": sites("u beta"),
        "log_response": sites("u alpha beta"),
    },
    log_jacobian={"log_response": log_response_jacobian},
)
