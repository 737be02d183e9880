"""Independence sampling: exact where it says that it is, and its own refusals."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from autmarg.sampling.independence import Draws, Unfit, sampled
from autmarg.sampling.metropolis import WORTH
from autmarg.sampling.target import Target
from tests.support.lanes import lanes


def run(model, seed: int = 0, num_samples: int = 1000) -> Draws | Unfit:
    return sampled(Target(model, (), {}), np.random.default_rng(seed), 4, num_samples)


def drawn(model, **options) -> Draws:
    found = run(model, **options)
    assert isinstance(found, Draws), found.reason
    return found


# Posteriors in closed form


def scales():
    """A half-normal coordinate that is folded, a gamma that is not, a real, and a bounded one."""
    numpyro.sample("near", dist.HalfNormal(2.0))
    numpyro.sample("far", dist.Gamma(400.0, 4.0))
    numpyro.sample("real", dist.Normal(1e4, 3.0))
    numpyro.sample("share", dist.Beta(3.0, 2.0))


CLOSED_FORMS = {
    0: stats.halfnorm(0, 2.0),
    1: stats.gamma(400, scale=1 / 4),
    2: stats.norm(1e4, 3.0),
}


@pytest.fixture(scope="module")
def of_scales() -> Draws:
    return drawn(scales)


@pytest.mark.parametrize("k", CLOSED_FORMS)
def test_draws_have_their_distribution(of_scales, k):
    """Kolmogorov–Smirnov, of as many draws as these are worth."""
    x = of_scales.points[..., k].reshape(-1)
    distance = stats.kstest(x, CLOSED_FORMS[k].cdf).statistic
    assert stats.kstwo(int(WORTH * len(x))).sf(distance) > 1e-3


def test_the_evidence_of_a_normalised_density_is_one(of_scales):
    assert abs(of_scales.log_evidence) < 5 * of_scales.error < 0.05


def test_draws_are_worth_nearly_independent_ones(of_scales):
    # (of 4,000 independent draws the least estimate over four coordinates is 3,100 to 3,900)
    assert of_scales.ess > 3000
    assert of_scales.pareto_shape < 0.5


def test_a_lower_bound_is_met_as_a_distance():
    def bounded():
        numpyro.sample("x", dist.TruncatedNormal(0.0, 1.0, low=2.0))

    target = Target(bounded, (), {})
    found = drawn(bounded)
    assert target.positive.tolist() == [True]
    x = np.asarray(target.sites(found.points, False)["x"])
    assert x.min() > 2.0
    assert stats.kstest(x.reshape(-1), stats.truncnorm(2.0, np.inf).cdf).pvalue > 1e-3


def test_a_support_that_depends_on_another_site():
    def nested():
        top = numpyro.sample("top", dist.Uniform(1.0, 3.0))
        numpyro.sample("x", dist.Uniform(0.0, top))

    target = Target(nested, (), {})
    sites = target.sites(drawn(nested).points, False)
    top, x = (np.asarray(sites[name]).reshape(-1) for name in ("top", "x"))
    assert (x < top).all()
    assert stats.kstest(x / top, stats.uniform.cdf).pvalue > 1e-3
    assert stats.kstest((top - 1) / 2, stats.uniform.cdf).pvalue > 1e-3


# What it refuses


def two_modes():
    x = numpyro.sample("x", dist.Normal(0.0, 3.0))
    numpyro.sample("y", dist.Normal(x**2, 1.0), obs=4.0)


def funnel():
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    numpyro.sample("x", dist.Normal(0.0, jnp.exp(v / 2)).expand([5]).to_event(1))


def thirty():
    numpyro.sample("x", dist.Gamma(2.0, 1.0).expand([30]).to_event(1))


def ridge():
    a = numpyro.sample("a", dist.HalfNormal(10.0))
    b = numpyro.sample("b", dist.HalfNormal(10.0))
    numpyro.sample("y", dist.Normal(a * b, 0.01), obs=2.0)


def heavy():
    numpyro.sample("x", dist.Cauchy(0.0, 1.0).expand([3]).to_event(1))


def nowhere():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("f", jnp.log(x * 0.0))


def discrete():
    numpyro.sample("k", dist.Poisson(2.0))


GALLERY = {
    discrete: "'k' is discrete",
    two_modes: "several modes or a curved ridge|heavy tail|not make it an independent one",
    funnel: "not make it an independent one",
    thirty: "30 dimensions are left",
    ridge: "several modes or a curved ridge",
    heavy: "not make it an independent one|heavy tail",
    nowhere: "no point with a finite density",
}


@pytest.mark.parametrize("model", lanes(GALLERY, quick=[discrete, two_modes, thirty, nowhere]))
@pytest.mark.parametrize("seed", range(3))
def test_what_it_refuses(model, seed):
    found = run(model, seed)
    assert isinstance(found, Unfit)
    assert re.search(GALLERY[model], found.reason)


# Points side by side


@pytest.mark.parametrize(("size", "side"), [(4, 16), (60, 16), (100, 4), (300, 1)])
def test_fewer_points_go_side_by_side_where_each_needs_more(size, side):
    matrix = np.random.default_rng(0).normal(size=(size, size)) / size

    def model():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("f", -jnp.square(x * jnp.asarray(matrix) * jnp.exp(x)).sum())

    target = Target(model, (), {})
    assert target.side == side
    x = np.linspace(-1, 1, 37)
    terms = np.square(matrix).sum() * np.square(x * np.exp(x))
    expected = stats.norm.logpdf(x) - terms
    np.testing.assert_allclose(target.log_density(x[:, None]), expected, rtol=1e-12)


def test_on_an_accelerator_all_points_of_a_call_go_side_by_side(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    target = Target(lambda: numpyro.sample("x", dist.Normal(0, 1)), (), {})
    x = np.linspace(-3, 3, 700)
    np.testing.assert_allclose(target.log_density(x[:, None]), stats.norm.logpdf(x), rtol=1e-12)
    assert target.side >= 512
