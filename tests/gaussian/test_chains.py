"""Chains: scans, loops and walks are eliminated in time, exactly, also as a scale goes to zero."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

import autmarg
from autmarg.gaussian.chains import square_root
from tests.support.chains import CHAINS, T, X, Y, local_linear_trend, scale, stochastic_volatility
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation", "always_in_time")


# One of each structure; tests/programs/test_dense.py and tests/analysis/test_states.py have others.
QUICK = {
    "stochastic_volatility",
    "random_walks_in_a_plate",
}


@pytest.mark.parametrize("name", lanes(CHAINS, QUICK))
def test_exact(name):
    case = CHAINS[name]
    marg = autmarg.transform(case.model)
    plan = marg.plan(case.data)
    assert set(plan.integrated) == case.integrated
    assert case.structure in [cost.structure for group in plan.groups for cost in group.costs]
    autmarg.verify(marg, case.data, points=3, quiet=True)


@pytest.mark.parametrize("name", lanes(["panel", "noncentred_autoregression"], quick=()))
def test_exact_in_blocks_of_steps(name):
    case = CHAINS[name]
    marg = autmarg.transform(case.model, chains="parallel")
    assert "blocks of steps side by side" in str(marg.plan(case.data))
    autmarg.verify(marg, case.data, points=2, quiet=True)


@pytest.mark.slow
def test_derivatives_in_blocks_are_those_step_by_step():
    """Forward, reverse and second derivatives, and conditional moments."""
    values = {"t1": 0.3, "t2": 0.2, "s": 0.5}

    def everything(chains):
        marg = autmarg.transform(local_linear_trend, chains=chains)
        density = lambda v: log_density(marg, (Y,), {}, v)[0]  # noqa: E731
        forward = jax.jvp(density, (values,), (dict.fromkeys(values, 1.0),))
        second = jax.hessian(density)(values)
        samples = {name: jnp.array([x]) for name, x in values.items()}
        moments = marg.recover(jax.random.key(0), samples, Y, moments=True)
        return forward, jax.grad(density)(values), second, moments

    pairs = zip(*map(jax.tree.leaves, map(everything, ("parallel", "sequential"))), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def autoregression(y):
    """Two chains whose states are one number each."""
    decay = numpyro.sample("t1", dist.Beta(8.0, 2.0))
    step = numpyro.sample("t2", dist.HalfNormal(1.0))
    spread = numpyro.sample("s", dist.HalfNormal(1.0))

    def move(x, y):
        x = numpyro.sample("x", dist.Normal(decay * x, step).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x, spread).to_event(1), obs=jnp.stack([y, -y]))
        return x, None

    scan(move, jnp.zeros(2), y)


@pytest.mark.slow
@pytest.mark.parametrize("model", [autoregression, local_linear_trend])
@pytest.mark.parametrize("size", [1.0, 1e-9, 1e6])
def test_draws_by_tangents_are_those_of_a_scan(model, size, monkeypatch):
    """With forward, reverse and second derivatives, at any ratio of noises."""
    values = {"t1": 0.8, "t2": 0.2 * size, "s": 0.5}

    def everything(small):
        monkeypatch.setattr(square_root, "_SMALL", small)
        (group,) = autmarg.transform(model).plan(Y).groups
        noise = jnp.asarray(np.random.default_rng(0).normal(size=group.schedule.form.columns))

        def read(logs, noise):
            each = {name: values[name] * jnp.exp(x) for name, x in logs.items()}
            drawn, density = group.schedule.image(group.system.point(each), noise, noise)
            return sum(jnp.sin(x / max(size, 1.0)).sum() for x in drawn.values()) + density, (
                drawn,
                density,
            )

        @jax.jit
        def found(logs, noise):
            along = jax.tree.map(jnp.ones_like, (logs, noise))
            slope = lambda *at: jax.grad(read, (0, 1), has_aux=True)(*at)  # noqa: E731
            ahead = jax.jvp(lambda *at: read(*at)[0], (logs, noise), along)
            return jax.jvp(slope, (logs, noise), along), ahead

        return found(dict.fromkeys(values, 0.0), noise)

    for ours, theirs in zip(*map(jax.tree.leaves, map(everything, (2, 0))), strict=True):
        most = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9 * max(most, 1.0))


def test_long_chains_go_in_blocks_unless_there_are_many_or_one_asks():
    def walks(y=None):
        with numpyro.plate("series", y.shape[0]):
            walk = dist.GaussianRandomWalk(scale("tau"), y.shape[1])
            x = numpyro.sample("x", walk)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(2), obs=y)

    def plan(series, steps, **options):
        return str(autmarg.transform(walks, **options).plan(np.zeros((series, steps))))

    assert "10 blocks of steps side by side" in plan(1, 100)
    assert "side by side" not in plan(1, 20)
    assert "side by side" not in plan(40, 100)
    assert "side by side" not in plan(1, 100, chains="sequential")
    assert "4 blocks of steps side by side" in plan(40, 20, chains="parallel")
    with pytest.raises(autmarg.RequestError, match="chains='tree': expected 'auto'"):
        autmarg.transform(walks, chains="tree")


def test_a_long_cumulative_sum_is_a_walk():
    """3,000 steps: nothing is written out, and the density is that of the centred walk."""
    n = 3000
    data = jnp.asarray(np.random.default_rng(1).normal(size=n).cumsum())

    def centred(y=None):
        x = numpyro.sample("x", dist.GaussianRandomWalk(scale("tau"), n))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)

    def noncentred(y=None):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([n]))
        numpyro.sample("y", dist.Normal(jnp.cumsum(scale("tau") * z), 0.5), obs=y)

    def density(model):
        marg = autmarg.transform(model)
        at = jax.jit(lambda tau: log_density(marg, (data,), {}, {"tau": tau})[0])
        return marg.plan(data), at(0.8)

    (plan, found), (_, expected) = density(noncentred), density(centred)
    assert plan.integrated == ("z",)
    assert max(term.width for rows in plan.groups[0].system.form.means for term in rows.terms) == 1
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def trend_density(t1, t2, s):
    """log p(y) of the local linear trend, from its covariance."""
    steps = np.arange(T)
    level = np.tril(np.ones((T, T))) * t1
    slope = np.maximum(np.subtract.outer(steps, steps), 0) * t2
    covariance = level @ level.T + slope @ slope.T + s**2 * np.eye(T) + np.outer(X, X)
    covariance += 25 * np.ones((T, T)) + 25 * np.outer(steps + 1, steps + 1)
    return multivariate_normal(np.zeros(T), covariance).logpdf(np.asarray(Y))


@pytest.mark.parametrize(
    ("double", "chains"),
    lanes(
        itertools.product([True, False], ["sequential", "parallel"]),
        quick={(True, "parallel")},
    ),
)
def test_exact_as_a_scale_goes_to_zero(double, chains):
    with jax.enable_x64(double):
        marg = autmarg.transform(local_linear_trend, chains=chains)
        data = jnp.asarray(Y, float)

        def density(scales):
            values = dict(zip(("t1", "t2", "s"), scales, strict=True))
            return log_density(marg, (data,), {}, values)[0]

        derivative = jax.jit(jax.value_and_grad(density))
        tolerance = 1e-8 if double else 1e-4 * 2 * T
        for scales in ((1e-8, 0.3, 0.5), (0.3, 1e-8, 0.5)):
            found, gradient = derivative(jnp.array(scales))
            prior = float(dist.HalfNormal(1.0).log_prob(jnp.array(scales)).sum())
            assert abs(found - prior - trend_density(*scales)) < tolerance
            _, at_zero = derivative(jnp.array([s if s > 1e-8 else 0.0 for s in scales]))
            assert np.isfinite(np.array([gradient, at_zero])).all()


def test_draws_have_the_smoothing_distribution():
    """Mean and covariance of 20,000 draws of a walk observed with noise, within 5 std errors."""

    def walk(y=None):
        def step(carry, y):
            x = numpyro.sample("x", dist.Normal(carry, 0.7))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        numpyro.sample("s", dist.HalfNormal(1.0))
        scan(step, 0.0, y, length=T)

    n = 20_000
    marg = autmarg.transform(walk)
    drawn = marg.recover(jax.random.key(0), {"s": np.ones(n)}, Y)["x"]
    prior = 0.49 * np.minimum.outer(np.arange(T) + 1, np.arange(T) + 1)
    gain = prior @ np.linalg.inv(prior + 0.25 * np.eye(T))
    mean, covariance = gain @ np.asarray(Y), prior - gain @ prior
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((drawn.mean(0) - mean) / (sd / np.sqrt(n))).max() < 5
    spread = np.sqrt((np.outer(sd, sd) ** 2 + covariance**2) / n)
    assert np.abs((np.cov(drawn.T) - covariance) / spread).max() < 5
    moments = marg.recover(jax.random.key(0), {"s": np.ones(1)}, Y, moments=True)["x"]
    np.testing.assert_allclose(moments["mean"][0], mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moments["var"][0], np.diag(covariance), rtol=1e-9)


def test_a_kept_site_in_a_scan_is_one_site():
    marg = autmarg.transform(stochastic_volatility)
    drawn = handlers.trace(handlers.seed(marg, 0)).get_trace(Y)
    assert drawn["h"]["value"].shape == (T,)
    kept = {name: np.full((5, *np.shape(drawn[name]["value"])), 0.5) for name in marg.plan(Y).kept}
    assert marg.recover(jax.random.key(1), kept, Y)["mu"].shape == (5,)


@pytest.mark.slow
def test_a_kept_site_in_a_scan_is_sampled():
    marg = autmarg.transform(stochastic_volatility)
    mcmc = MCMC(NUTS(marg), num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    assert mcmc.get_samples()["h"].shape == (5, T)
    assert marg.recover(jax.random.key(1), mcmc, Y)["mu"].shape == (5,)


def test_a_latent_in_a_backward_scan_is_refused():
    def backwards(y=None):
        def step(carry, y):
            x = numpyro.sample("x", dist.Normal(carry, scale_))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        scale_ = scale("tau")
        scan(step, 0.0, y, reverse=True)

    plan = autmarg.transform(backwards).plan(Y)
    assert plan.integrated == () and "reverse=True (flip the data" in str(plan.refusals[0])
