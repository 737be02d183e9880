"""NUTS in ``marg.sample``: its draws, where chains start, what they say, and what is compiled."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.special import logsumexp, softmax

import autmarg
from autmarg.compat import executables
from autmarg.compat.kernels import Place
from autmarg.sampling.coordinates import Coordinate, Kind
from autmarg.sampling.metric import Frame, learned
from autmarg.sampling.posterior import Quality
from autmarg.sampling.space import Space
from autmarg.sampling.start import start
from autmarg.sampling.steps import Chain, Stepper
from autmarg.sampling.warmup import warmed, windows


def random(seed=0):
    return np.random.default_rng(seed)


KEY = jax.random.key(0)
GROUP = np.arange(24) % 4
COUNTS = random(1).poisson(np.exp(1 + np.array([-0.6, 0.0, 0.3, 0.5])[GROUP])).astype(float)
pytestmark = pytest.mark.usefixtures("quick_compilation")


def counts(group, y=None):
    """Effects of counts stay sampled."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 4):
        u = numpyro.sample("u", dist.Normal(1.0, scale))
    numpyro.sample("y", dist.Poisson(jnp.exp(u[group])), obs=y)


@pytest.fixture(scope="module")
def posterior() -> autmarg.Posterior:
    return autmarg.transform(counts).sample(KEY, GROUP, COUNTS, method="nuts", num_samples=250)


class Line(Space):
    """Points of a vector with this energy, as those of a model's sites."""

    def __init__(self, energy, size):
        self.energy = energy
        self.coordinates = (Coordinate("x", (size,), Kind.REAL),)


def by_quadrature() -> dict[str, float]:
    """Means of the scale and of the last effect: u = 1 + scale z, a sum over z for each scale."""
    tau, z = np.meshgrid(np.exp(np.linspace(-7, 1.6, 400)), np.linspace(-6, 6, 241), indexing="ij")
    u = 1 + tau * z
    each = [
        COUNTS[g == GROUP].sum() * u - 6 * np.exp(u) - z**2 / 2 for g in range(4)
    ]  # fmt: skip
    log_p = sum(logsumexp(x, axis=1) for x in each) - tau[:, 0] ** 2 / 2 + np.log(tau[:, 0])
    weight = softmax(log_p)
    effect = (softmax(each[3], axis=1) * u).sum(1)
    return {"scale": float(weight @ tau[:, 0]), "u": float(weight @ effect)}


@pytest.mark.parametrize("name", ["scale", "u"])
def test_moments_by_quadrature(posterior, name):
    draws = np.asarray(posterior.get_samples()[name])
    draws = draws[:, 3] if draws.ndim == 2 else draws
    error = draws.std() / np.sqrt(posterior.quality.ess)
    assert abs(draws.mean() - by_quadrature()[name]) < 5 * error


def test_it_says_how_it_went(posterior):
    text = str(posterior)
    assert "by NUTS" in text and "chains start near the mode" in text
    assert posterior.quality.rhat < 1.05 and posterior.quality.ess > 100
    steps = posterior.get_extra_fields(group_by_chain=True)["num_steps"]
    assert steps.shape == (4, 250)
    assert posterior.quality.evaluations > steps.sum()  # with warm-up


def test_draws_that_do_not_mix_are_doubted_and_what_may_help_is_said(posterior):
    poor = Quality(12.0, 1.3, evaluations=99, divergences=7)
    text = str(replace(posterior, quality=poor))
    assert "R̂ is above 1.01" in text and "fewer than 100 effective draws" in text
    assert "7 steps of NUTS diverged" in text and "nongaussian='whiten'" in text
    good = str(replace(posterior, quality=Quality(4000.0, 1.001, evaluations=99, divergences=0)))
    assert "trust" not in good


def test_statistics_of_the_sampler_by_arvizs_names(posterior):
    fit = autmarg.transform(counts).to_arviz(posterior, log_likelihood=None)
    stats = fit.sample_stats
    assert {"diverging", "n_steps", "tree_depth", "energy", "lp", "acceptance_rate"} <= set(stats)
    assert stats["lp"].shape == (4, 250)


def test_the_same_key_gives_the_same_draws(posterior):
    again = autmarg.transform(counts).sample(KEY, GROUP, COUNTS, method="nuts", num_samples=250)
    np.testing.assert_array_equal(again.get_samples()["u"], posterior.get_samples()["u"])


def test_a_second_call_has_the_programs_of_the_first(monkeypatch):
    """Those under a handler, and of data that were changed in place, are their own."""
    marg, data, traced = autmarg.transform(counts), COUNTS.copy(), []

    def sampled():
        return marg.sample(KEY, GROUP, data, method="nuts", num_samples=60, num_chains=1)

    first = sampled().get_samples()["u"]
    energy = Space.energy
    monkeypatch.setattr(Space, "energy", lambda *args: traced.append(1) or energy(*args))
    np.testing.assert_array_equal(sampled().get_samples()["u"], first)
    assert not traced
    with handlers.scale(scale=3.0):
        assert np.abs(sampled().get_samples()["u"] - first).max() > 0.01
    assert traced
    data += 5
    assert (sampled().get_samples()["u"].mean(1) > first.mean(1)).all()


def test_other_data_are_not_compiled_again(posterior):
    size = len(executables._EXECUTABLES)
    marg = autmarg.transform(counts)
    other = marg.sample(KEY, GROUP, COUNTS[::-1].copy(), method="nuts", num_samples=250)
    assert other.get_samples()["u"].shape == (1000, 4)
    assert len(executables._EXECUTABLES) == size


def test_a_bar_shows_steps(capsys):
    marg = autmarg.transform(counts)
    marg.sample(
        KEY, GROUP, COUNTS, method="nuts", num_samples=50, num_warmup=30, num_chains=2,
        progress=True,
    )  # fmt: skip
    assert "160/160" in capsys.readouterr().err


@pytest.mark.slow
def test_numpyro_runs_models_with_params():
    def model(y):
        loc = numpyro.param("loc", 0.5)
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(x + loc, 1.0), obs=y)

    found = autmarg.transform(model).sample(
        KEY, np.ones(3), num_samples=30, num_warmup=30, num_chains=1
    )
    assert found.mcmc is not None
    assert "NumPyro's own" in str(found)
    assert found.get_extra_fields()["diverging"].shape == (30,)


def test_a_model_without_a_density_is_named():
    def model(y):
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        numpyro.factor("nothing", -jnp.inf)

    with pytest.raises(autmarg.ModelError, match=r"factor 'nothing' \(.*it is -inf at each"):
        autmarg.transform(model).sample(KEY, np.ones(3), method="nuts", num_chains=1)


def whitened(x, scales):
    """Eigenvalues of a normal density's covariance in the metric of these draws, times scales."""
    _, covariance, energy = normal(4)
    gradients = np.asarray(jax.vmap(jax.grad(energy))(x)) / scales
    block, _ = learned(x * scales, gradients, 4)
    white = np.linalg.solve(block, np.diag(scales))
    return np.linalg.eigvalsh(white @ covariance @ white.T)


def test_a_metric_of_a_few_steps_of_a_random_walk():
    """Whose own covariance is hardly that of the density: gradients tell."""
    x = 0.1 * np.cumsum(random(1).normal(size=(15, 4)), 0)
    values = whitened(x, np.array([1e-2, 1.0, 30.0, 1.0]))
    assert 0.5 < values.min() < values.max() < 4.0


def test_a_metric_of_many_draws():
    mean, covariance, _ = normal(4)
    x = mean + random(2).normal(size=(400, 4)) @ np.linalg.cholesky(covariance).T
    values = whitened(x, np.array([1e-2, 1.0, 30.0, 1.0]))
    assert 0.8 < values.min() < values.max() < 1.25


def test_a_frame_moves_points_and_gradients():
    block = np.tril(random().normal(size=(2, 2))) + 2 * np.eye(2)
    frame = Frame.at(np.arange(5.0), 2).stretched(block, np.array([0.5, 2.0, 3.0]))
    w = jnp.asarray(random(1).normal(size=5))
    matrix = np.diag([0.0, 0.0, 0.5, 2.0, 3.0])
    matrix[:2, :2] = block
    np.testing.assert_allclose(frame.z(w), np.arange(5.0) + matrix @ w)
    slope = jax.grad(lambda z: jnp.sin(z).sum())
    found = frame.pulled(slope(frame.z(w)))
    np.testing.assert_allclose(found, jax.grad(lambda w: jnp.sin(frame.z(w)).sum())(w))


@pytest.mark.parametrize("count", [0, 1, 15, 29, 150, 500])
def test_windows_double_and_leave_steps_for_the_step_size(count):
    lengths = windows(count)
    assert all(later >= earlier for earlier, later in pairwise(lengths))
    assert count - sum(lengths) == (min(50, count // 3) if lengths else count)


def normal(size, seed=0):
    """Mean, covariance and energy of a normal density."""
    root = random(seed).normal(size=(size, size)) / 3 + np.eye(size)
    mean, covariance = random(seed + 1).normal(size=size), root @ root.T
    precision = np.linalg.inv(covariance)
    return mean, covariance, lambda z: 0.5 * (z - mean) @ precision @ (z - mean)


def test_a_start_at_the_mode_in_its_own_scales():
    mean, covariance, energy = normal(3)
    found = start(Stepper(Line(energy, 3), together=False), random(), 3)
    np.testing.assert_allclose(found.frame.origin, mean, atol=1e-3)
    block = np.asarray(found.frame.block)
    np.testing.assert_allclose(block @ block.T, covariance, rtol=1e-4)
    z = found.frame.z(jnp.asarray(found.place.point))
    np.testing.assert_allclose(found.place.energy, energy(z))


def test_a_start_where_effects_have_their_mean_and_their_scale_is_not_zero():
    """A centred group of 30 effects, of which the joint mode has the scale zero."""
    y = 2.0 * random().normal(size=30)

    def energy(z):
        tau, u = jnp.exp(z[0]), z[1:]
        return 30 * z[0] + jnp.sum(u**2) / (2 * tau**2) + jnp.sum((y - u) ** 2) / 2 + tau - z[0]

    found = start(Stepper(Line(energy, 31), together=False), random(), 1)
    assert not found.unfit
    scale = np.sqrt(np.mean(y**2) - 1)
    assert abs(float(found.frame.origin[0]) - np.log(scale)) < 0.5
    expected = y * scale**2 / (scale**2 + 1)
    assert np.corrcoef(found.frame.origin[1:], expected)[0, 1] > 0.95


def test_a_start_where_every_site_is_an_effect():
    scales = np.array([1.0, 2.0, 5.0])
    line = Line(lambda z: 0.5 * jnp.sum(jnp.square((z - 1) / scales)), 3)
    found = start(Stepper(line, together=False), random(), 0)
    np.testing.assert_allclose(found.frame.origin, 1.0, atol=0.05)
    np.testing.assert_allclose(found.frame.scales, scales, rtol=1e-4)


def test_a_search_that_runs_away_ends_at_a_random_point():
    found = start(Stepper(Line(lambda z: jnp.sum(z), 2), together=False), random(), 2)
    assert "nats away" in found.unfit
    assert np.abs(found.frame.origin).max() <= 2.0


@pytest.mark.slow
def test_chains_side_by_side_are_the_chains_one_by_one():
    mean, _, energy = normal(3)
    chains, frames = [], []
    for k, key in enumerate(jax.random.split(KEY, 2)):
        frame = Frame.at(mean + k, 2)
        value, slope = jax.value_and_grad(energy)(frame.origin)
        chains.append(Chain.started(Place(jnp.zeros(3), value, slope), key))
        frames.append(frame)
    line = Line(energy, 3)
    steppers = [
        Stepper(line, together=False), Stepper(line, together=False, threads=2),
        Stepper(line, together=True),
    ]  # fmt: skip
    runs = [stepper.take(chains, frames, 6, adapting=True) for stepper in steppers]
    (first, taken), *others = runs
    for ends, steps in others:
        for k in range(2):
            np.testing.assert_allclose(steps[k].draws, taken[k].draws, rtol=1e-8)
            np.testing.assert_allclose(ends[k].step_size, first[k].step_size, rtol=1e-8)


def test_warm_up_finds_scales_and_a_step_size():
    scales = np.array([1e-3, 1.0, 40.0, 1e3])
    stepper = Stepper(Line(lambda z: 0.5 * jnp.sum(jnp.square(z / scales)), 4), together=False)
    frame = Frame.at(np.zeros(4), 2)
    chain = Chain.started(Place(jnp.zeros(4), jnp.zeros(()), jnp.zeros(4)), KEY)
    (chain,), (frame,), gradients = warmed(stepper, [chain], [frame], 150)
    found = np.concatenate([np.diag(frame.block), frame.scales])
    np.testing.assert_allclose(found, scales, rtol=0.2)
    assert 0.3 < float(chain.step_size) < 1.5
    assert gradients > 150


@pytest.mark.slow
def test_in_single_precision():
    with jax.enable_x64(False):
        y = np.asarray(COUNTS, np.float32)
        found = autmarg.transform(counts).sample(KEY, GROUP, y, method="nuts", num_samples=500)
        draws = np.asarray(found.get_samples()["scale"])
    assert draws.dtype == np.float32
    assert found.quality.rhat < 1.05
    error = draws.std() / np.sqrt(found.quality.ess)
    assert abs(draws.mean() - by_quadrature()["scale"]) < 5 * error
