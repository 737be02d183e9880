"""Gradients in float32 where the data know the effects far better than their prior does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import log_density

import autmarg

PATIENTS, VISITS = 60, 9
PATIENT = np.repeat(np.arange(PATIENTS), VISITS)
RNG = np.random.default_rng(2)
WEEK = RNG.uniform(-1, 1, PATIENTS * VISITS)
LEVEL, TREND = 2700 + 800 * RNG.normal(size=PATIENTS), -5 + 100 * RNG.normal(size=PATIENTS)
Y = LEVEL[PATIENT] + TREND[PATIENT] * WEEK + 130 * RNG.normal(size=PATIENTS * VISITS)
POINT = {"s_a": 790.0, "s_b": 110.0, "s": 133.0}


def progression(week, y):
    """Levels and trends of patients, each around a mean of its own."""
    m_a, m_b = (
        numpyro.sample("m_a", dist.Normal(0, 3000)),
        numpyro.sample("m_b", dist.Normal(0, 500)),
    )
    s_a, s_b = (numpyro.sample(n, dist.HalfNormal(1000)) for n in ("s_a", "s_b"))
    s = numpyro.sample("s", dist.HalfNormal(1000))
    a = numpyro.sample("a", dist.Normal(m_a, s_a).expand([PATIENTS]).to_event(1))
    b = numpyro.sample("b", dist.Normal(m_b, s_b).expand([PATIENTS]).to_event(1))
    numpyro.sample("y", dist.Normal(a[PATIENT] + b[PATIENT] * week, s), obs=y)


def gradient(dtype):
    """∂ log p(θ, y) / ∂ log θ."""
    marg = autmarg.transform(progression, marginalize="all")
    args = WEEK.astype(dtype), Y.astype(dtype)

    def energy(logs):
        point = {name: jnp.exp(value) for name, value in logs.items()}
        return log_density(marg, args, {}, point)[0]

    logs = {name: jnp.asarray(np.log(value), dtype) for name, value in POINT.items()}
    found = jax.jit(jax.grad(energy))(logs)
    return np.array([float(found[name]) for name in POINT])


def test_gradients_are_those_of_double_precision():
    exact = gradient(np.float64)
    with jax.enable_x64(False):
        single = gradient(np.float32)
    # At points of the posterior a gradient is of the size of the square root of the rows. At the
    # conditional mean as the factors have it, it is off by 1e-3 here.
    np.testing.assert_allclose(single, exact, rtol=0, atol=2e-5 * np.sqrt(len(Y)))
