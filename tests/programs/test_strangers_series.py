"""Models of series as in public tutorials and textbooks, small: loops, scans, hidden states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from tests.support.lanes import lanes
from tests.support.programs import scale
from tests.support.strangers import check, normal, registers

pytestmark = pytest.mark.usefixtures("quick_compilation")

_RNG = np.random.default_rng(8)
T = 8
SERIES, PAIRS, D = _RNG.normal(size=T), _RNG.normal(size=(T, 2)), _RNG.normal(size=(T, 3))

CASES = {}
goes = registers(CASES)


@goes()
def stochastic_volatility_scan():
    phi, sd = numpyro.sample("phi", dist.Uniform(-1, 1)), scale("sigma")

    def step(h, y):
        h = numpyro.sample("h", dist.Normal(phi * h, sd))
        numpyro.sample("r", dist.Normal(0.0, jnp.exp(h / 2)), obs=y)
        return h, None

    scan(step, 0.0, SERIES)


@goes("const", "alpha_1", "alpha_2")
def ar2_scan():
    a1, a2, c = normal("alpha_1"), normal("alpha_2"), normal("const", 0, 5)
    sigma = scale("sigma")

    def step(carry, y):
        one, two = carry
        m = numpyro.deterministic("m", c + a1 * one + a2 * two)
        numpyro.sample("y", dist.Normal(m, sigma), obs=y)
        return (y, one), None

    scan(step, (SERIES[1], SERIES[0]), SERIES[2:])


def holt_winters(loop):
    a, b = (numpyro.sample(n, dist.Beta(1, 1)) for n in ("a", "b"))
    gamma, sd = numpyro.sample("gamma", dist.Uniform(0, 1 - a)), scale()
    level, trend, season = normal("level"), normal("trend"), normal("season", 0, 1, (4,))

    def step(carry, y):
        level, trend, season = carry
        numpyro.sample("y", dist.Normal(level + trend + season[0], sd), obs=y)
        new = a * (y - season[0]) + (1 - a) * (level + trend)
        trend = b * (new - level) + (1 - b) * trend
        now = gamma * (y - new) + (1 - gamma) * season[0]
        return (new, trend, jnp.concatenate([season[1:], now[None]])), None

    loop(step, (level, trend, season))


@goes("level", "trend", "season")
def holt_winters_scan():
    holt_winters(lambda step, start: scan(step, start, SERIES))


@goes("level", "slope", "l0", "d0")
def local_linear_trend():
    sl, sd, s = scale("sl"), scale("sd"), scale()
    l0, d0 = normal("l0"), normal("d0")

    def step(carry, y):
        level, slope = carry
        new = numpyro.sample("level", dist.Normal(level + slope, sl))
        slope = numpyro.sample("slope", dist.Normal(slope, sd))
        numpyro.sample("y", dist.Normal(new, s), obs=y)
        return (new, slope), None

    scan(step, (l0, d0), SERIES)


@goes("c", "phi")
def var2():
    c, phi = normal("c", 0, 1, (2,)), normal("phi", 0, 1, (2, 2, 2))
    sd = numpyro.sample("sd", dist.HalfNormal(1).expand([2]))
    factor = numpyro.sample("L", dist.LKJCholesky(2))

    def step(carry, y):
        lag1, lag2 = carry
        m = c + phi[0] @ lag1 + phi[1] @ lag2
        numpyro.sample("y", dist.MultivariateNormal(m, scale_tril=sd[:, None] * factor), obs=y)
        return (y, lag1), None

    scan(step, (PAIRS[1], PAIRS[0]), PAIRS[2:])


@goes()
def hidden_markov():
    probs = numpyro.sample("probs", dist.Dirichlet(jnp.ones((2, 2))).to_event(1))
    locs = normal("locs", 0, 3, (2,))

    def step(x, y):
        x = numpyro.sample("x", dist.Categorical(probs[x]), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(locs[x], 1.0), obs=y)
        return x, None

    scan(step, 0, SERIES)


@goes()
def lotka_volterra():
    theta = numpyro.sample("theta", dist.LogNormal(-1.0, 0.3).expand([4]).to_event(1))
    z0 = numpyro.sample("z0", dist.LogNormal(0.0, 0.5).expand([2]).to_event(1))

    def step(z, _):
        a, b, c, d = theta
        z = z + 0.1 * jnp.stack([(a - b * z[1]) * z[0], (d * z[0] - c) * z[1]])
        return z, z

    _, z = jax.lax.scan(step, z0, None, length=T)
    numpyro.sample("y", dist.LogNormal(jnp.log(z), scale()), obs=np.exp(PAIRS))


@goes("z")
def dynamic_regression_cumsum():
    z = normal("z", 0, 1, (T, 3))
    b = jnp.cumsum(scale("sd") * z, axis=0)
    numpyro.sample("y", dist.Normal((D * b).sum(-1), scale()), obs=SERIES)


# The structures of the others are in tests/gaussian/test_chains.py, too.
QUICK = {"hidden_markov", "lotka_volterra"}


@pytest.mark.parametrize("name", lanes(CASES, QUICK))
def test_stranger(name):
    check(*CASES[name])
