"""Pulmonary fibrosis: an intercept and a slope in time for each patient, independent a priori."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Patient and week of each measurement, and the forced vital capacity."""
    data = load("fibrosis")
    return data["patient"], data["weeks"], data["fvc"]


def population_priors():
    """Means and scales of intercepts and slopes, and the scale of the noise."""
    m_a = numpyro.sample("m_a", dist.Normal(0, 500))
    s_a = numpyro.sample("s_a", dist.HalfCauchy(100))
    m_b = numpyro.sample("m_b", dist.Normal(0, 3))
    s_b = numpyro.sample("s_b", dist.HalfCauchy(3))
    s = numpyro.sample("s", dist.HalfCauchy(100))
    return m_a, s_a, m_b, s_b, s


def plates(patient, weeks, fvc=None):
    """Two sites in one plate of patients."""
    m_a, s_a, m_b, s_b, s = population_priors()
    with numpyro.plate("patients", len(np.unique(patient))):
        a = numpyro.sample("a", dist.Normal(m_a, s_a))
        b = numpyro.sample("b", dist.Normal(m_b, s_b))
    with numpyro.plate("measurements", len(weeks)):
        numpyro.sample("fvc", dist.Normal(a[patient] + b[patient] * weeks, s), obs=fvc)


def sample_shape(patient, weeks, fvc=None):
    """Two sites drawn with a sample shape."""
    m_a, s_a, m_b, s_b, s = population_priors()
    n = len(np.unique(patient))
    a = numpyro.sample("a", dist.Normal(m_a, s_a), sample_shape=(n,))
    b = numpyro.sample("b", dist.Normal(m_b, s_b), sample_shape=(n,))
    numpyro.sample("fvc", dist.Normal(a[patient] + weeks * b[patient], s), obs=fvc)


def to_event(patient, weeks, fvc=None):
    """Two sites as event dimensions, read with ``take``."""
    m_a, s_a, m_b, s_b, s = population_priors()
    n = len(np.unique(patient))
    a = numpyro.sample("a", dist.Normal(m_a, s_a).expand([n]).to_event(1))
    b = numpyro.sample("b", dist.Normal(m_b, s_b).expand([n]).to_event(1))
    mean = jnp.take(a, patient) + weeks * jnp.take(b, patient)
    numpyro.sample("fvc", dist.Normal(mean, s).to_event(1), obs=fvc)


def noncentred(patient, weeks, fvc=None):
    """Standard normal sites times their scales."""
    m_a, s_a, m_b, s_b, s = population_priors()
    with numpyro.plate("patients", len(np.unique(patient))):
        z_a = numpyro.sample("z_a", dist.Normal(0, 1))
        z_b = numpyro.sample("z_b", dist.Normal(0, 1))
    a, b = m_a + s_a * z_a, m_b + s_b * z_b
    with numpyro.plate("measurements", len(weeks)):
        numpyro.sample("fvc", dist.Normal(a[patient] + b[patient] * weeks, s), obs=fvc)


def multivariate(patient, weeks, fvc=None):
    """Intercept and slope as one multivariate normal site with a diagonal factor."""
    m_a, s_a, m_b, s_b, s = population_priors()
    mean, scale_tril = jnp.stack([m_a, m_b]), jnp.diag(jnp.stack([s_a, s_b]))
    with numpyro.plate("patients", len(np.unique(patient))):
        ab = numpyro.sample("ab", dist.MultivariateNormal(mean, scale_tril=scale_tril))
    with numpyro.plate("measurements", len(weeks)):
        numpyro.sample("fvc", dist.Normal(ab[patient, 0] + ab[patient, 1] * weeks, s), obs=fvc)


def vectors(patient, weeks, fvc=None):
    """Means, scales and random effects each as one vector or matrix."""
    m = numpyro.sample("m", dist.Normal(0, np.array([500.0, 3.0])).to_event(1))
    scale = numpyro.sample("scale", dist.HalfCauchy(np.array([100.0, 3.0])).to_event(1))
    s = numpyro.sample("s", dist.HalfCauchy(100))
    with numpyro.plate("patients", len(np.unique(patient))):
        ab = numpyro.sample("ab", dist.Normal(m, scale).to_event(1))
    X = np.column_stack([np.ones(len(weeks)), weeks])
    with numpyro.plate("measurements", len(weeks)):
        numpyro.sample("fvc", dist.Normal(jnp.sum(X * ab[patient], axis=-1), s), obs=fvc)


def design_matrix(patient, weeks, fvc=None):
    """Random effects through the columns of two design matrices."""
    m_a, s_a, m_b, s_b, s = population_priors()
    Z_a = jax.nn.one_hot(patient, len(np.unique(patient)))
    Z_b = Z_a * weeks[:, None]
    a = numpyro.sample("a", dist.Normal(m_a, s_a).expand([Z_a.shape[1]]))
    b = numpyro.sample("b", dist.Normal(m_b, s_b).expand([Z_b.shape[1]]))
    numpyro.sample("fvc", dist.Normal(Z_a @ a + Z_b @ b, s), obs=fvc)


def stacked_scales(kept: dict) -> dict:
    """The kept values of `vectors` from those of the other spellings."""
    return {"scale": jnp.stack([kept["s_a"], kept["s_b"]]), "s": kept["s"]}


FIBROSIS = Reference(
    name="fibrosis",
    arguments=arguments,
    spellings={
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "noncentred": noncentred,
        "multivariate": multivariate,
        "vectors": vectors,
        "design_matrix": design_matrix,
    },
    integrated={
        "plates": sites("a b m_a m_b"),
        "sample_shape": sites("a b m_a m_b"),
        "to_event": sites("a b m_a m_b"),
        "noncentred": sites("z_a z_b m_a m_b"),
        "multivariate": sites("ab m_a m_b"),
        "vectors": sites("ab m"),
        "design_matrix": sites("a b m_a m_b"),
    },
    keep_map={"vectors": stacked_scales},
)
