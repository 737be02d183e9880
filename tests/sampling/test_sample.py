"""``marg.sample`` from the call to what is done with its draws."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC
from scipy import stats

import autmarg
from autmarg.sampling.space import Space

RNG = np.random.default_rng(0)
GROUP = np.arange(60) % 6
Y = RNG.normal(size=60) + 2 * RNG.normal(size=6)[GROUP]
KEY = jax.random.key(0)


def groups(group, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    scale = numpyro.sample("scale", dist.HalfNormal(3.0))
    noise = numpyro.sample("noise", dist.HalfNormal(2.0))
    with numpyro.plate("groups", 6):
        u = numpyro.sample("u", dist.Normal(mean, scale))
    numpyro.sample("y", dist.Normal(u[group], noise), obs=y)


@pytest.fixture(scope="module")
def marg() -> autmarg.MarginalizedModel:
    return autmarg.transform(groups)


@pytest.fixture(scope="module")
def posterior(marg) -> autmarg.Posterior:
    return marg.sample(KEY, GROUP, Y, num_samples=500)


def by_quadrature() -> tuple[np.ndarray, np.ndarray, float]:
    """Means and deviations of scale and noise, and log p(y), on a grid of both."""
    tau, sigma = np.linspace(0.005, 14, 700), np.linspace(0.5, 1.8, 400)
    cell = (tau[1] - tau[0]) * (sigma[1] - sigma[0])
    tau, sigma = np.meshgrid(tau, sigma)
    n, means = np.full(6, 10), np.array([Y[g == GROUP].mean() for g in range(6)])
    within = sum(((Y[g == GROUP] - means[g]) ** 2).sum() for g in range(6))
    log_p = stats.halfnorm(0, 3).logpdf(tau) + stats.halfnorm(0, 2).logpdf(sigma)
    # The rows about the means of their groups, and these means about their own.
    log_p += -within / (2 * sigma**2) - 54 * np.log(sigma) - 27 * np.log(2 * np.pi)
    log_p -= 0.5 * np.log(n).sum()
    v = tau[..., None] ** 2 + sigma[..., None] ** 2 / n
    a, b = (1 / v).sum(-1) + 1 / 25, (means / v).sum(-1)
    log_p += 0.5 * (b**2 / a - np.log(25 * a) - (means**2 / v).sum(-1) - np.log(v).sum(-1))
    log_p -= 3 * np.log(2 * np.pi)
    p = np.exp(log_p - log_p.max())
    evidence = np.log(p.sum() * cell) + log_p.max()
    p /= p.sum()
    mean = np.array([(p * tau).sum(), (p * sigma).sum()])
    second = np.array([(p * tau**2).sum(), (p * sigma**2).sum()])
    return mean, np.sqrt(second - mean**2), float(evidence)


def test_moments_by_quadrature(posterior):
    mean, deviation, _ = by_quadrature()
    draws = posterior.get_samples()
    for k, name in enumerate(("scale", "noise")):
        x = np.asarray(draws[name])
        assert abs(x.mean() - mean[k]) < 5 * deviation[k] / np.sqrt(len(x))
        assert x.std() == pytest.approx(deviation[k], rel=0.1)


def test_the_evidence_by_quadrature(posterior):
    found = posterior.quality.evidence
    assert abs(found.log_evidence - by_quadrature()[2]) < 5 * found.error < 0.05


def test_the_methods_take_it_for_an_mcmc(marg, posterior):
    recovered = marg.recover(KEY, posterior)
    assert recovered["u"].shape == (2000, 6)
    assert marg.recover(KEY, posterior, GROUP, Y, group_by_chain=True)["u"].shape == (4, 500, 6)
    fit = marg.to_arviz(posterior, log_likelihood=None)
    assert fit.posterior["u"].shape == (4, 500, 6)
    assert str(marg.summary(posterior)) == str(posterior.summary())
    assert "scale" in str(posterior.summary())
    assert posterior.to_arviz(log_likelihood=None).posterior["u"].shape == (4, 500, 6)
    found = marg.log_evidence(KEY, posterior)
    own = posterior.quality.evidence
    assert abs(found.log_evidence - own.log_evidence) < 5 * (found.error + own.error)


def test_other_data_are_refused(marg, posterior):
    with pytest.raises(autmarg.RequestError, match="other data"):
        marg.recover(KEY, posterior, GROUP, Y + 1)


def test_it_says_how_it_was_made(posterior):
    text = str(posterior)
    assert "by independence sampling" in text
    assert "2 dimensions are left to sample" in text
    assert "k̂" in text and "log p(y)" in text
    assert posterior.quality.acceptance > 0.7


def test_the_same_key_gives_the_same_draws(marg, posterior):
    again = marg.sample(KEY, GROUP, Y, num_samples=500).get_samples()
    np.testing.assert_array_equal(again["scale"], posterior.get_samples()["scale"])


def test_a_second_call_has_the_programs_of_the_first(marg, posterior, monkeypatch):
    """The evidence of other data, and under a handler, is nevertheless that of these."""
    traced = []
    energy = Space.energy
    monkeypatch.setattr(Space, "energy", lambda *args: traced.append(1) or energy(*args))
    again = marg.sample(KEY, GROUP, Y, num_samples=100)
    assert not traced
    assert again.quality.evaluations < posterior.quality.evaluations
    with handlers.scale(scale=3.0):
        scaled = marg.sample(KEY, GROUP, Y, num_samples=100)
    other = marg.sample(KEY, GROUP, 2 * Y, num_samples=100)
    assert len(traced) == 2
    found = [each.quality.evidence.log_evidence for each in (again, scaled, other)]
    assert found[1] < found[0] - 100
    assert found[2] < found[0] - 10


@pytest.mark.parametrize("how", ["in place", "in a dict"])
def test_what_a_second_call_traces_reads_its_own_arguments(how):
    """Not those of the first call, which were changed after it."""

    def model(data):
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        numpyro.deterministic("scaled", tau * data["w"][0])
        u = numpyro.sample("u", dist.Normal(0.0, tau).expand([6]).to_event(1))
        numpyro.sample("y", dist.Normal(u[GROUP] + data["w"][0], 1.0), obs=Y)

    marg, first = autmarg.transform(model), {"w": np.array([2.0])}
    marg.sample(KEY, first, num_samples=50)
    if how == "in place":
        first["w"] *= 100
    else:
        first["w"] = np.array([200.0])
    found = marg.sample(KEY, {"w": np.array([2.0])}, num_samples=60).get_samples()
    np.testing.assert_allclose(found["scaled"], 2 * found["tau"], rtol=1e-12)


def test_recovery_for_data_that_were_changed_is_an_error():
    """Also where the model has been run with them, too."""
    seen = {"y": Y}

    def model():
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        u = numpyro.sample("u", dist.Normal(0.0, tau).expand([6]).to_event(1))
        numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=seen["y"])

    marg = autmarg.transform(model)
    found = marg.sample(KEY, num_samples=50)
    first = found.recover()["u"]
    seen["y"] = Y + 50
    marg.sample(KEY, num_samples=50)
    with pytest.raises(autmarg.RequestError, match="other data than these draws of 'model'"):
        found.recover()
    assert found.recover(other_data=True)["u"].mean() > first.mean() + 10
    seen["y"] = Y
    np.testing.assert_array_equal(found.recover()["u"], first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found.made)).program, "")


@pytest.mark.slow
def test_a_density_without_bound():
    """The square of a model's density has none where the scale is zero, and points make no fit."""
    random = np.random.default_rng(1)
    group, y = random.integers(0, 4, 20), random.normal(size=20)

    def model():
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        u = numpyro.sample("u", dist.Normal(0.0, tau).expand([4]).to_event(1))
        numpyro.sample("y", dist.Normal(b + u[group], sigma), obs=y)

    marg = autmarg.transform(handlers.scale(model, scale=2.0))
    assert marg.sample(KEY, num_samples=50, num_chains=2).method == "nuts"


def test_everything_integrated_out():
    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    marg = autmarg.transform(model)
    found = marg.sample(KEY, Y, num_samples=50, num_chains=2)
    assert found.method == "exact"
    assert found.get_samples() == {}
    assert marg.recover(KEY, found)["mean"].shape == (100,)


def test_a_site_left_for_its_cost_is_no_reason_for_another_models_draws():
    """Draws of the model with everything integrated out are recovered by it."""

    def wide(y):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        u = numpyro.sample("u", dist.Normal(0.0, scale).expand([6]).to_event(1))
        numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)

    kept = autmarg.transform(wide, keep=["u"])
    every = autmarg.transform(wide, marginalize="all")
    found = every.sample(KEY, Y, num_samples=50, num_chains=2)
    assert kept.recover(KEY, found)["u"].shape == (100, 6)


def test_requests_that_cannot_be_met(marg):
    with pytest.raises(autmarg.RequestError, match="'auto', 'independence', 'nuts'; found 'gibbs'"):
        marg.sample(KEY, GROUP, Y, method="gibbs")
    with pytest.raises(autmarg.RequestError, match="whole numbers, one or more"):
        marg.sample(KEY, GROUP, Y, num_samples=0)
    with pytest.raises(autmarg.RequestError, match=r"2\.5 draws: expected whole"):
        marg.sample(KEY, GROUP, Y, num_samples=2.5)
    with pytest.raises(autmarg.RequestError, match=r"inside jax\.jit"):
        jax.jit(lambda y: marg.sample(KEY, GROUP, y).get_samples())(Y)
    with (
        handlers.condition(data={"u": np.zeros(6)}),
        pytest.raises(autmarg.RequestError, match=r"gives 'u' a value.*condition\(model"),
    ):
        marg.sample(KEY, GROUP, Y)


def thirty(y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0).expand([30]).to_event(1))
    numpyro.sample("y", dist.Normal(rate, 1.0), obs=y)


def test_one_subsample_of_the_rows_is_no_posterior():
    def model(size, y=None):
        mean = numpyro.sample("mean", dist.Normal(0, 10))
        with numpyro.plate("rows", 40, subsample_size=size) as rows:
            numpyro.sample("y", dist.StudentT(4, mean, 1), obs=y[rows])

    data = jnp.linspace(-1.0, 2.0, 40)
    with pytest.raises(autmarg.RequestError, match="'rows' is subsampled \\(10 of 40\\)"):
        autmarg.transform(model).sample(jax.random.key(0), 10, data)


def test_where_independence_sampling_does_not_suit():
    marg = autmarg.transform(thirty)
    with pytest.raises(autmarg.RequestError, match=r"30 dimensions are left.*method='nuts'"):
        marg.sample(KEY, np.ones(30), method="independence")
    found = marg.sample(KEY, np.ones(30), num_samples=20, num_chains=2, num_warmup=20)
    assert found.method == "nuts"
    assert "30 dimensions are left" in str(found)
    assert found.get_samples()["rate"].shape == (40, 30)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_as_a_kernel(marg, method):
    every = autmarg.IndependenceSampler(marg)
    mcmc = MCMC(
        every, num_warmup=0, num_samples=1000, num_chains=4, chain_method=method,
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(KEY, GROUP, Y)
    mean, deviation, _ = by_quadrature()
    x = np.asarray(mcmc.get_samples()["scale"])
    assert abs(x.mean() - mean[0]) < 5 * deviation[0] / np.sqrt(len(x))
    assert marg.recover(KEY, mcmc, GROUP, Y)["u"].shape == (4000, 6)


@pytest.mark.slow
def test_in_single_precision():
    with jax.enable_x64(False):
        marg = autmarg.transform(groups)
        found = marg.sample(KEY, GROUP, np.asarray(Y, np.float32))
        mean, deviation, _ = by_quadrature()
        x = np.asarray(found.get_samples()["scale"])
    assert found.method == "independence"
    assert abs(x.mean() - mean[0]) < 5 * deviation[0] / np.sqrt(len(x))
