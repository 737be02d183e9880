"""Chains continued beyond the fit, by horizon, against closed forms and the filter's equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autmarg
from tests.posterior.moments import N, assert_moments, repeated

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)

# Chains: the known part is z, the same in all draws.
PHI, STEP, NOISE, LAST = 0.8, 0.7, 0.5, 1.5


def autoregression(steps, y=None):
    s = numpyro.sample("s", dist.HalfNormal(1))
    phi = numpyro.sample("phi", dist.Uniform(-1, 1))

    def step(last, seen):
        z = numpyro.sample("z", dist.Normal(phi * last, s))
        numpyro.sample("y", dist.Normal(z, NOISE), obs=seen)
        return z, None

    scan(step, 0.0, y, length=steps)


def test_a_forecast_of_an_autoregression_by_horizon():
    draws = repeated(s=STEP, phi=PHI, z=[0.0, 1.0, LAST])
    found = autmarg.transform(autoregression).predict(KEY, draws, 6, sites=["z", "y"])
    np.testing.assert_array_equal(found["z"][:, :3], draws["z"])
    powers = PHI ** np.arange(1, 4)
    lags = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    start = np.minimum.outer(np.arange(1, 4), np.arange(1, 4))
    covariance = STEP**2 * PHI**lags * (1 - PHI ** (2 * start)) / (1 - PHI**2)
    assert_moments(found["y"][:, 3:], powers * LAST, covariance + NOISE**2 * np.eye(3))


def local_level(steps, y=None):
    s = numpyro.sample("s", dist.HalfNormal(1))
    noise = numpyro.sample("noise", dist.Normal(0, 1).expand([steps]).to_event(1))
    level = numpyro.deterministic("level", s * jnp.cumsum(noise))
    numpyro.sample("y", dist.Normal(level, NOISE), obs=y)


def test_a_forecast_of_a_local_level_whose_states_were_integrated_out():
    """The level at the end of the data is filtered; its variance grows by s² at each step."""
    data = np.array([0.5, -0.3, 0.8])
    found = autmarg.transform(local_level).predict(
        KEY, repeated(s=STEP), 5, fitted=(3, data), batch_size=N
    )
    mean, variance = 0.0, 0.0
    for value in data:
        variance += STEP**2
        gain = variance / (variance + NOISE**2)
        mean, variance = mean + gain * (value - mean), (1 - gain) * variance
    covariance = variance + STEP**2 * np.array([[1, 1], [1, 2]]) + NOISE**2 * np.eye(2)
    assert_moments(found["y"][:, 3:], [mean, mean], covariance)


def feedback(steps, y=None):
    phi = numpyro.sample("phi", dist.Normal(0, 1))

    def step(last, seen):
        return numpyro.sample("y", dist.Normal(phi * last, 1e-3), obs=seen), None

    scan(step, 0.0, y, length=steps)


def test_a_forecast_that_reads_the_data_goes_on_from_them():
    data, draws = np.array([1.0, 2.0, 8.0]), {"phi": np.full(3, 0.5)}
    marg = autmarg.transform(feedback)
    found = marg.predict(KEY, draws, 5, fitted=(3, data))["y"]
    np.testing.assert_allclose(found, np.tile([1, 2, 8, 4, 2], (3, 1)), atol=0.01)
    with pytest.raises(autmarg.RequestError, match=r"no draws of 'y'.*fitted="):
        marg.predict(KEY, draws, 5)
