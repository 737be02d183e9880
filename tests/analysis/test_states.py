"""States of loops: driven by few latents, copies of others; and small noise keeps its digits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

import autmarg
from tests.support.dense import marginal, prior_draw

pytestmark = pytest.mark.usefixtures("quick_compilation")

T, S = 12, 4
Y = jnp.asarray(np.random.default_rng(0).normal(size=T).cumsum())
TWO = jnp.asarray(np.random.default_rng(1).normal(size=(T, 2)))
X = np.linspace(-1.0, 1.0, T)


def scale(name):
    return numpyro.sample(name, dist.HalfNormal(1.0))


def structure(plan):
    return [cost.structure for group in plan.groups for cost in group.costs]


def exact(model, *args, marginalize="all"):
    """The plan of a model whose marginal is that of the program run by NumPyro."""
    marg = autmarg.transform(model, marginalize=marginalize)
    plan = marg.plan(*args)
    kept = prior_draw(model, plan.kept, *args)
    found = jax.jit(lambda kept: log_density(marg, args, {}, kept)[0])(kept)
    np.testing.assert_allclose(found, marginal(model, plan.integrated, kept, *args), rtol=1e-9)
    return plan


def smoothing(y, m=S, damped=0.9):
    """Holt and Winters' exponential smoothing: no noise in its states."""
    a, b, c = (numpyro.sample(name, dist.Beta(1, 1)) for name in "abc")
    noise = scale("noise")
    level, trend = (numpyro.sample(name, dist.Normal(0, 1)) for name in ("level", "trend"))
    with numpyro.plate("m", m):
        season = numpyro.sample("season", dist.Normal(0, 1))

    def step(carry, y):
        level, trend, season = carry
        mean = level + damped * trend + season[0]
        numpyro.sample("y", dist.Normal(mean, noise), obs=y)
        after = a * (y - season[0]) + (1 - a) * (level + damped * trend)
        trend = b * (after - level) + (1 - b) * damped * trend
        new = c * (y - after) + (1 - c) * season[0]
        return (after, trend, jnp.concatenate([season[1:], new[None]])), mean

    _, means = scan(step, (level, trend, season), y)
    numpyro.deterministic("means", means)


def smoothing_in_a_plate(y):
    """A loop of JAX's over a plate of series, with a regressor."""
    a, noise = numpyro.sample("a", dist.Beta(1, 1)), scale("noise")
    beta = numpyro.sample("beta", dist.Normal(0, 1))
    with numpyro.plate("series", y.shape[1]):
        level = numpyro.sample("level", dist.Normal(0, 1))

    def step(level, at):
        y, x = at
        return a * (y - beta * x) + (1 - a) * level, level + beta * x

    _, means = lax.scan(step, level, (y, X))
    numpyro.sample("y", dist.Normal(means, noise), obs=y)


def smoothing_in_a_fori_loop(y):
    a, noise, level = numpyro.sample("a", dist.Beta(1, 1)), scale("noise"), None
    level = numpyro.sample("level", dist.Normal(0, 1))

    def body(i, carry):
        level, means = carry
        return a * y[i] + (1 - a) * level, means.at[i].set(level)

    _, means = lax.fori_loop(0, T, body, (level, jnp.zeros(T)))
    numpyro.sample("y", dist.Normal(means, noise), obs=y)


SMOOTHING = [
    (smoothing, Y, 2 + S),
    (smoothing_in_a_plate, TWO, 3),
    (smoothing_in_a_fori_loop, Y, 1),
]
# (not by tests.support.lanes: arrays have no truth value)
IN_LANES = [
    pytest.param(*case, id=case[0].__name__, marks=[pytest.mark.slow] if k else [])
    for k, case in enumerate(SMOOTHING)
]


@pytest.mark.parametrize("model, data, latents", IN_LANES)
def test_few_latents_that_drive_a_loop_are_read_by_its_rows(model, data, latents):
    assert structure(exact(model, data)) == [f"dense root of {latents}"]


@pytest.mark.slow
@pytest.mark.parametrize("model, data, latents", SMOOTHING, ids=[m[0].__name__ for m in SMOOTHING])
def test_few_latents_that_drive_a_loop_are_recovered(model, data, latents):
    autmarg.verify(autmarg.transform(model, marginalize="all"), data, points=2, quiet=True)


def test_smoothing_costs_no_more_than_its_latents():
    plan = autmarg.transform(smoothing, marginalize="all").plan(jnp.sin(jnp.arange(60.0)), 10)
    assert plan.cost < 60 * 12**2


def season(new, turned):
    def model(y):
        sz, ss, noise = scale("sz"), scale("ss"), scale("noise")

        def step(carry, y):
            level, season = carry
            level = numpyro.sample("level", dist.Normal(level, sz))
            s = numpyro.sample("s", dist.Normal(new(season), ss))
            numpyro.sample("y", dist.Normal(level + s, noise), obs=y)
            return (level, turned(season, s)), None

        scan(step, (0.0, turned(jnp.zeros(S - 1), 0.0)), y)

    return model


MATRIX = jnp.eye(S - 1, k=-1).at[0].add(-1)
SPELLINGS = {
    "matrix": season(lambda s: (MATRIX @ s)[0], lambda s, new: (MATRIX @ s).at[0].set(new)),
    "concatenated": season(
        lambda s: -s.sum(), lambda s, new: jnp.concatenate([jnp.reshape(new, 1), s[:-1]])
    ),
    "rolled": season(lambda s: -jnp.sum(s), lambda s, new: jnp.roll(s, 1).at[0].set(new)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_season_has_one_state_in_every_spelling(spelling):
    plan = autmarg.transform(SPELLINGS[spelling], marginalize="all").plan(Y)
    assert structure(plan) == [f"1 chain of {T} steps, states of {S}"]


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_season_is_exact(spelling):
    exact(SPELLINGS[spelling], Y)
    marg = autmarg.transform(SPELLINGS[spelling], marginalize="all")
    autmarg.verify(marg, Y, points=2, quiet=True)


def trend_season_and_regression(y):
    """A season of seven, each minus the sum of the others; a level, a slope, a regressor."""
    m = 7
    sl, ss, noise = scale("sl"), scale("ss"), scale("noise")
    first = numpyro.sample("first", dist.Normal(0, 1).expand([m - 1]))
    beta = numpyro.sample("beta", dist.Normal(0, 1))

    def step(carry, at):
        (level, slope, season), (y, x) = carry, at
        level = numpyro.sample("level", dist.Normal(level + slope, sl))
        slope = numpyro.sample("slope", dist.Normal(slope, 0.1))
        s = numpyro.sample("s", dist.Normal(-season.sum(), ss))
        numpyro.sample("y", dist.Normal(level + s + beta * x, noise), obs=y)
        return (level, slope, jnp.append(s, season[:-1])), None

    scan(step, (0.0, 0.0, first), (y, X))


@pytest.mark.usefixtures("always_in_time")
def test_a_state_holds_what_is_read_once_more():
    """Level and slope, and the last six elements of a season."""
    plan = exact(trend_season_and_regression, Y)
    assert structure(plan)[0] == f"1 chain of {T} steps, states of 8"


def two_rates(y):
    """Two sites a step read each other in one chain, one in the other: rows join them all."""
    q, noise = scale("q"), scale("noise")

    def step(carry, y):
        u, w = carry
        z = numpyro.sample("z", dist.Normal(u, q))
        u = numpyro.sample("u", dist.Normal(0.9 * z, 0.5))
        w = numpyro.sample("w", dist.Normal(w, q))
        numpyro.sample("y", dist.Normal(u + w, noise), obs=y)
        return (u, w), None

    scan(step, (0.0, 0.0), y)


def test_chains_of_different_rates_keep_pace():
    plan = exact(two_rates, Y)
    assert structure(plan) == [f"1 chain of {2 * T} steps, states of 4"]


def panel(y):
    """A common walk; a walk, a level and a season of fixed effects for each series."""
    p = 3
    noise, own, seasonal, common = (scale(n) for n in ("noise", "own", "seasonal", "common_scale"))
    shared: Any = numpyro.sample("shared", dist.Normal(jnp.zeros(T), common).to_event(1))
    with numpyro.plate("series", y.shape[0]):
        level: Any = numpyro.sample("level", dist.Normal(0, 3))
        drift: Any = numpyro.sample("drift", dist.Normal(jnp.zeros(T), own).to_event(1))
        season: Any = numpyro.sample("season", dist.Normal(jnp.zeros(p), seasonal).to_event(1))
    mean = level[:, None] + jnp.cumsum(shared) + jnp.cumsum(drift, -1)
    mean = mean + season[:, np.arange(T) % p]
    numpyro.sample("y", dist.Normal(mean, noise), obs=y)


PANELS = [
    ((), "1 chain of 12 steps, states of 3"),
    (("shared",), "2 chains of 12 steps, states of 1"),
]


def panel_members(keep):
    return [n for n in ("shared", "level", "drift", "season") if n not in keep]


@pytest.mark.parametrize("keep, chain", PANELS, ids=["joint", "given what they share"])
def test_series_of_a_panel_are_side_by_side_given_what_they_share(keep, chain):
    plan = autmarg.transform(panel, marginalize=panel_members(keep)).plan(TWO.T)
    assert structure(plan)[0] == chain


@pytest.mark.parametrize("keep", [pytest.param((), marks=pytest.mark.slow), ("shared",)], ids=str)
def test_a_panel_is_exact(keep):
    exact(panel, TWO.T, marginalize=panel_members(keep))


def walk(y):
    sigma = numpyro.sample("sigma", dist.LogNormal(-20, 20))

    def step(z, y):
        z = numpyro.sample("z", dist.Normal(z, 1))
        numpyro.sample("y", dist.Normal(z, sigma), obs=y)
        return z, None

    scan(step, 0.0, y)


@pytest.mark.parametrize("chains", ["sequential", "parallel"])
def test_small_noise_keeps_its_digits(chains):
    """Against the dense density, whose covariance is well conditioned: value and gradient."""
    least = np.minimum.outer(np.arange(T), np.arange(T)) + 1.0

    def dense(log_sigma):
        spread = jnp.linalg.cholesky(least + jnp.exp(2 * log_sigma) * jnp.eye(T))
        white = jax.scipy.linalg.solve_triangular(spread, Y, lower=True)
        density = -0.5 * white @ white - jnp.log(jnp.diagonal(spread)).sum()
        prior = dist.LogNormal(-20, 20).log_prob(jnp.exp(log_sigma))
        return density - 0.5 * T * np.log(2 * np.pi) + prior

    marg = autmarg.transform(walk, marginalize="all", chains=chains)

    def found(log_sigma):
        return log_density(marg, (Y,), {}, {"sigma": jnp.exp(log_sigma)})[0]

    both = jax.jit(jax.vmap(lambda x: (jax.value_and_grad(found)(x), jax.value_and_grad(dense)(x))))
    here, there = both(jnp.log(10.0) * jnp.array([0.0, -6.0, -12.0, -18.0]))
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_first_value_that_a_loop_forgets():
    def model(y):
        tau = numpyro.sample("tau", dist.HalfCauchy(1))
        z = numpyro.sample("z", dist.Normal(0, 1), sample_shape=(2,))

        def body(last, x):
            both = jnp.append(last, x)
            return both[-1:], jnp.array([0.3, 0.2]) @ both

        _, rest = lax.scan(body, z[:1], y[1:-1])
        numpyro.sample("y", dist.Normal(jnp.concatenate([z, rest]), tau), obs=y)

    assert exact(model, Y).integrated == ("z",)


@pytest.mark.parametrize("steps", [0, 1])
def test_loops_of_no_step_and_of_one(steps):
    def model(y):
        tau, x0 = scale("tau"), numpyro.sample("x0", dist.Normal(0, 1))

        def body(x, y):
            return 0.5 * x + y, x

        last, _ = lax.scan(body, x0, jnp.ones(steps))
        numpyro.sample("y", dist.Normal(last, tau), obs=y)

    assert exact(model, Y).integrated == ("x0",)


def test_states_are_forecast_and_conditioned():
    """A season whose data are conditioned on from outside, as the reproductions write it."""

    def model(y):
        with handlers.condition(data={"y": y}):
            SPELLINGS["matrix"](None if y is None else y)

    plan = autmarg.transform(model, marginalize="all").plan(Y)
    assert "states of 4" in str(structure(plan))
