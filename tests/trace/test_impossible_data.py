"""Data that no density can be computed with: an error with words, or what NumPyro gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import autmarg

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAN, INF = np.nan, np.inf
SOME = np.array([True, False, True])


def normal(y, x=1.0, mask=True):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Normal(0, 1))
    with handlers.mask(mask=mask):
        numpyro.sample("y", dist.Normal(b * x, s), obs=y)


def lognormal(y):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Normal(0, 1))
    numpyro.sample("y", dist.LogNormal(b, s), obs=y)


def bernoulli(y):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Beta(s, 2.0))
    numpyro.sample("y", dist.Bernoulli(b), obs=y)


def binomial(y, n):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Beta(s, 2.0))
    numpyro.sample("y", dist.Binomial(n, b), obs=y)


def poisson(y, mask=True):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Gamma(s + 1, 2.0))
    with handlers.mask(mask=mask):
        numpyro.sample("y", dist.Poisson(b), obs=y)


def log_linear(y):
    s = numpyro.sample("s", dist.Normal(0, 1))
    numpyro.sample("y", dist.Poisson(jnp.exp(s)), obs=y)


def ordinal(y):
    s = numpyro.sample("s", dist.Normal(0, 1))
    numpyro.sample("y", dist.OrderedLogistic(s, jnp.arange(2.0)), obs=y)


def bounded(y):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Uniform(0, s), obs=y)


def density(model, *args, **values):
    return log_density(model, args, {}, {name: jnp.asarray(v) for name, v in values.items()})[0]


KNOWN = {
    "inf": (normal, ([0, INF, 1.0],), r"'y' \(.*\): found 1 infinite among 3"),
    "NaN": (normal, ([0, NAN, NAN],), r"'y' \(.*\): found 2 NaN among 3"),
    "covariate NaN": (
        normal,
        ([0, 1, 1.0], [0, NAN, 1]),
        r"mean of site 'y' .*'b'.*'x' has 1.* 1\)",
    ),
    "covariate inf": (normal, ([0, 1, 1.0], [-INF, 1, 1]), r"mean of site 'y' .*'x' has 1.* 0\)"),
    "log of zero": (lognormal, ([0.0, 1.0],), "'y' .*: found 1 outside the support of a LogN"),
    "log of less": (lognormal, ([-1.0, 1.0],), "'y' .*: found 1 outside the support of a LogN"),
    "binary": (bernoulli, ([2, 1],), r"'y' .*1 of 2 .* outside the support of Bernoulli\w* \(2\)"),
    "count": (poisson, ([-1, 1.5],), r"'y' .*2 of 2 .* outside the support of Poisson \(-1.0, 1.5"),
    "missing count": (poisson, ([NAN, 1],), "'y' .*1 of 2 .* outside the support of Poisson"),
    "successes": (binomial, ([5, 1], [4, 4]), "'y' .*1 of 2 .* outside the support of Binomial"),
    "codes": (ordinal, ([1, 3, 2],), "'y' .*1 of 3 .*run from 1 to 3; .* start at 0: subtract 1"),
    "no codes": (ordinal, ([0, 3, 2],), "'y' .*1 of 3 .*check the data, the family"),
    "family": (log_linear, ([1.5, 2.0],), "'y' .*1 of 2 .* outside the support of Poisson"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_data_are_an_error(name):
    model, args, words = KNOWN[name]
    with pytest.raises(autmarg.ModelError, match=words):
        autmarg.transform(model).plan(*map(np.asarray, args))


@pytest.mark.parametrize("nongaussian", ["whiten", "quadrature"])
def test_before_anything_is_planned_for_them(nongaussian):
    def model(y):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("y", dist.Poisson(jnp.exp(u)), obs=y)

    with pytest.raises(autmarg.ModelError, match=r"'y' .*3 of 3 .* outside the support of Poisson"):
        autmarg.transform(model, nongaussian=nongaussian).plan(np.array([0.5, 1.5, 2.5]))


def exposed(y):
    """Counts where nothing is exposed."""
    s = numpyro.sample("s", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, s).expand([3]).to_event(1))
    numpyro.sample("y", dist.Poisson(jnp.array([0.0, 1.0, 1.0]) * jnp.exp(u)), obs=y)


def test_data_that_no_latents_make():
    """They are named where no chain finds a start, and the plan says what was not found."""
    y = np.array([1, 2, 3])
    marg = autmarg.transform(exposed)
    with pytest.raises(autmarg.ModelError, match=r"'y' .*log-density of its data is -inf at each"):
        marg.sample(jax.random.key(0), y, num_samples=10)
    plan = autmarg.transform(exposed, nongaussian="whiten").plan(y)
    assert "starts from a mode of the posterior, and none was found" in " ".join(str(plan).split())


TRACED = {
    "inf": (normal, ([0, INF, 1.0],)),
    "NaN": (normal, ([0, NAN, 1.0],)),
    "covariate NaN": (normal, ([0, 1, 1.0], [0, NAN, 1])),
    "covariate inf": (normal, ([0, 1, 1.0], [0, INF, 1])),
    "log of zero": (lognormal, ([0.0, 1.0],)),
    "binary": (bernoulli, ([2, 1],)),
    "successes": (binomial, ([5, 1], [4, 4])),
    "negative count": (poisson, ([-1, 1],)),
    "no count": (poisson, ([1.5, 1],)),
}


@pytest.mark.parametrize("name", TRACED)
def test_traced_data_have_the_sources_density(name):
    model, args = TRACED[name]
    args = tuple(map(jnp.asarray, args))
    source = jax.jit(lambda *a: density(model, *a, s=0.8, b=0.4))(*args)
    marg = autmarg.transform(model)
    np.testing.assert_array_equal(jax.jit(lambda *a: density(marg, *a, s=0.8))(*args), source)
    batch = jax.vmap(lambda *a: density(marg, *a, s=0.8))(*(x[None] for x in args))
    np.testing.assert_array_equal(batch, source[None])


@pytest.mark.parametrize("model", [normal, poisson])
def test_masked_rows_may_be_anything(model):
    marg = autmarg.transform(lambda y: model(y, mask=SOME))
    bad, good = np.array([1.0, -INF, 2.0]), np.array([1.0, 3.0, 2.0])
    expected = density(marg, good, s=0.8)
    assert np.isfinite(expected)
    np.testing.assert_allclose(density(marg, bad, s=0.8), expected, rtol=1e-12)
    found = jax.jit(lambda y: density(marg, y, s=0.8))(bad)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Out-of-support")
def test_kept_sites_have_no_density_outside_their_support():
    """A distribution forgets as a pytree that it validates."""
    marg, y = autmarg.transform(bounded), np.array([1.5, 1.0])
    for s in (1.0, 2.0):
        np.testing.assert_array_equal(density(marg, y, s=s), density(bounded, y, s=s))
    assert density(marg, y, s=1.0) == -INF


@pytest.mark.parametrize("model", [normal, lambda y, x: log_linear(y + 0 * x)])
def test_data_that_would_be_repeated_are_an_error(model):
    column, row = np.ones((3, 1)), np.ones(3)
    if model is normal:
        with pytest.raises(
            autmarg.ModelError, match=r"\(3, 1\) for a distribution of shape \(3,\)"
        ):
            autmarg.transform(model).plan(column, row)
        with pytest.raises(
            autmarg.ModelError, match=r"\(3,\) for a distribution of shape \(3, 1\)"
        ):
            autmarg.transform(model).plan(row, column)
    autmarg.transform(model).plan(column, 1.0)
    autmarg.transform(model).plan(np.ones((1, 3)), row)
