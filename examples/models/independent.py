"""The Dutch data with independent intercepts and slopes: one multivariate site, or two sites."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.models.crossed import arguments
from examples.models.reference import Reference, sites


def priors():
    """Fixed effects, the noise's scale, and the scales of subjects' and items' effects."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 10))
    beta = numpyro.sample("beta", dist.Normal(0, 5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5))
    tau_u = numpyro.sample("tau_u", dist.HalfNormal(1).expand([2]).to_event(1))
    tau_v = numpyro.sample("tau_v", dist.HalfNormal(1).expand([2]).to_event(1))
    return alpha, beta, sigma, tau_u, tau_v


def one_site(subj, item, x, y=None):
    """Intercept and slope as one multivariate normal site with a diagonal factor."""
    alpha, beta, sigma, tau_u, tau_v = priors()
    with numpyro.plate("subjects", len(np.unique(subj))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=jnp.diag(tau_u)))
    with numpyro.plate("items", len(np.unique(item))):
        v = numpyro.sample("v", dist.MultivariateNormal(scale_tril=jnp.diag(tau_v)))
    with numpyro.plate("rows", len(x)):
        mean = alpha + u[subj, 0] + v[item, 0] + x * (beta + u[subj, 1] + v[item, 1])
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def two_sites(subj, item, x, y=None):
    """Intercepts and slopes as sites of their own."""
    alpha, beta, sigma, tau_u, tau_v = priors()
    with numpyro.plate("subjects", len(np.unique(subj))):
        u0 = numpyro.sample("u0", dist.Normal(0, tau_u[0]))
        u1 = numpyro.sample("u1", dist.Normal(0, tau_u[1]))
    with numpyro.plate("items", len(np.unique(item))):
        v0 = numpyro.sample("v0", dist.Normal(0, tau_v[0]))
        v1 = numpyro.sample("v1", dist.Normal(0, tau_v[1]))
    with numpyro.plate("rows", len(x)):
        mean = alpha + u0[subj] + v0[item] + x * (beta + u1[subj] + v1[item])
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def nested_plates(subj, item, x, y=None):
    """Effects as matrices: a plate of components inside one of levels."""
    alpha, beta, sigma, tau_u, tau_v = priors()
    components = numpyro.plate("components", 2, dim=-1)
    with numpyro.plate("subjects", len(np.unique(subj)), dim=-2), components:
        u = numpyro.sample("u", dist.Normal(0, tau_u))
    with numpyro.plate("items", len(np.unique(item)), dim=-2), components:
        v = numpyro.sample("v", dist.Normal(0, tau_v))
    with numpyro.plate("rows", len(x)):
        mean = alpha + u[subj, 0] + v[item, 0] + x * (beta + u[subj, 1] + v[item, 1])
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


DUTCH_INDEPENDENT = Reference(
    name="dutch_independent",
    arguments=partial(arguments, "dutch", "condition", "y"),
    spellings={"one_site": one_site, "two_sites": two_sites, "nested_plates": nested_plates},
    integrated={
        "one_site": sites("u v alpha beta"),
        "two_sites": sites("u0 u1 v0 v1 alpha beta"),
        "nested_plates": sites("u v alpha beta"),
    },
)
