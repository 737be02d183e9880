"""The variance ratios of members are those of an analysis of variance."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.gaussian.cross_products import cross_products
from autmarg.gaussian.variance import variance_ratios

LEVELS, EACH = 30, 7
GROUP = np.repeat(np.arange(LEVELS), EACH)
RNG = np.random.default_rng(4)


def one_way(group, y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau, sigma = (numpyro.sample(n, dist.HalfNormal(1)) for n in ("tau", "sigma"))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([LEVELS]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + u[group], sigma), obs=y)


def two_way(first, second, x, y):
    tau, omega, sigma = (numpyro.sample(n, dist.HalfNormal(1)) for n in ("tau", "omega", "sigma"))
    level, u = (numpyro.sample(n, dist.Normal(0, tau).expand([20]).to_event(1)) for n in "lu")
    w = numpyro.sample("w", dist.Normal(0, omega).expand([15]).to_event(1))
    numpyro.sample("y", dist.Normal(level[first] + x * u[first] + w[second], sigma), obs=y)


def ratios(model, *args):
    (group,) = autmarg.transform(model, marginalize="all").plan(*args).groups
    form = group.system.form
    return variance_ratios(form, cross_products(form))


@pytest.mark.parametrize("tau", [0.0, 1.5])
def test_a_balanced_one_way_layout_has_its_f_ratio(tau):
    y = 3.0 + (tau * RNG.normal(size=LEVELS))[GROUP] + RNG.normal(size=len(GROUP))
    means = y.reshape(LEVELS, EACH).mean(1)
    within = np.square(y - means[GROUP]).sum() / (len(y) - LEVELS - 1)
    between = EACH * np.square(means - y.mean()).mean()
    assert ratios(one_way, GROUP, y)["u"] == pytest.approx(between / within, rel=1e-6)


def test_crossed_factors_are_told_apart_and_slopes_count():
    first, second = RNG.integers(0, 20, 2000), RNG.integers(0, 15, 2000)
    x = RNG.normal(size=2000)
    u, w = RNG.normal(size=20), 5.0 * RNG.normal(size=15)
    y = x * u[first] + w[second] + 0.5 * RNG.normal(size=2000)
    found = ratios(two_way, first, second, x, y)
    # 1 + n τ²/σ² with the variances of the effects drawn, and 100 and 133 rows a level
    assert found["u"] == pytest.approx(1 + 100 * np.square(u).mean() / 0.25, rel=0.15)
    assert found["w"] == pytest.approx(1 + 133 * np.var(w) / 0.25, rel=0.15)


def test_nothing_is_known_of_data_that_are_not(quick_compilation):
    def scaled(group, y):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        power = numpyro.sample("power", dist.HalfNormal(1))
        u = numpyro.sample("u", dist.Normal(0, 1).expand([LEVELS]).to_event(1))
        numpyro.factor("change", -jnp.log(power))
        numpyro.sample("z", dist.Normal(mu + u[group] + y * power, 1.0), obs=jnp.zeros(len(y)))

    assert ratios(scaled, GROUP, RNG.normal(size=len(GROUP))) == {}


def test_a_fit_without_residuals_says_nothing():
    """With an effect for each row the variance of the noise is not known."""
    rows = np.arange(LEVELS)
    assert ratios(one_way, rows, RNG.normal(size=LEVELS)) == {}
