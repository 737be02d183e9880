"""Marginal, conditional moments and draws against a dense Gaussian built by brute force."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

import autmarg
from autmarg.plan import order

GROUP = np.array([0, 1, 2, 0, 1, 2, 0, 0, 3, 3, 1])
ITEM = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1])
X = np.linspace(-1, 2, 11)
Y = np.array([0.3, -1.2, 0.8, 2.2, 0.1, 1.9, -0.4, 0.7, 3.1, 0.2, -0.6])


def model(y=None):
    a = numpyro.sample("a", dist.Normal(1.0, 2.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0).expand([2]).to_event(1))
    r = numpyro.sample("r", dist.Uniform(-1.0, 1.0))
    factor = jnp.array([[1.0, 0.0], [r, jnp.sqrt(1 - r**2)]]) * tau[:, None]
    with numpyro.plate("groups", 4):
        u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), scale_tril=factor))
    w_scale = numpyro.sample("w_scale", dist.HalfNormal(1.0))
    w = numpyro.sample("w", dist.Normal(0.5 * a, w_scale), sample_shape=(3,))
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    mean = a + u[GROUP, 0] + X * u[GROUP, 1] + w[ITEM]
    numpyro.sample("y", dist.Normal(mean, s), obs=y)


THETA = {"tau": np.array([0.8, 1.3]), "r": 0.4, "w_scale": 0.6, "s": 0.7}


def dense(theta):
    """Prior mean and covariance of (a, u, w), design matrix and noise variance, by hand."""
    t, r = theta["tau"], theta["r"]
    block = np.array([[t[0] ** 2, r * t[0] * t[1]], [r * t[0] * t[1], t[1] ** 2]])
    covariance = np.zeros((12, 12))
    covariance[0, 0] = 4.0
    covariance[1:9, 1:9] = np.kron(np.eye(4), block)
    covariance[9:, 9:] = theta["w_scale"] ** 2 * np.eye(3) + 0.25 * 4.0
    covariance[0, 9:] = covariance[9:, 0] = 0.5 * 4.0
    mean = np.concatenate([[1.0], np.zeros(8), np.full(3, 0.5)])
    design = np.zeros((11, 12))
    design[:, 0] = 1.0
    design[np.arange(11), 1 + 2 * GROUP] = 1.0
    design[np.arange(11), 2 + 2 * GROUP] = X
    design[np.arange(11), 9 + ITEM] = 1.0
    return mean, covariance, design, theta["s"] ** 2


def conditional(theta):
    mean, covariance, design, noise = dense(theta)
    total = design @ covariance @ design.T + noise * np.eye(11)
    gain = covariance @ design.T @ np.linalg.inv(total)
    return mean + gain @ (Y - design @ mean), covariance - gain @ design @ covariance


@pytest.fixture(params=[0, 24], ids=["stages", "root"])
def marg(request, monkeypatch):
    monkeypatch.setattr(order, "SMALL_ROOT", request.param)
    return autmarg.transform(model)


def prior_terms(theta):
    half = [np.log(2) + dist.Normal(0, 1).log_prob(v).sum() for v in (theta["w_scale"], theta["s"])]
    tau = 2 * np.log(2) + dist.Normal(0, 1).log_prob(theta["tau"]).sum()
    return float(sum(half) + tau - np.log(2.0))


def test_marginal_density(marg):
    mean, covariance, design, noise = dense(THETA)
    expected = multivariate_normal(
        design @ mean, design @ covariance @ design.T + noise * np.eye(11)
    ).logpdf(Y)
    found, _ = log_density(marg, (Y,), {}, THETA)
    np.testing.assert_allclose(found - prior_terms(THETA), expected, rtol=1e-12)


def flat(values):
    return np.concatenate([np.ravel(values[n]) for n in ("a", "u", "w")])


def test_conditional_moments(marg):
    samples = {k: np.asarray(v)[None] for k, v in THETA.items()}
    moments = marg.recover(jax.random.key(0), samples, Y, moments=True)
    mean, covariance = conditional(THETA)
    np.testing.assert_allclose(
        flat({k: v["mean"][0] for k, v in moments.items()}), mean, rtol=1e-10
    )
    np.testing.assert_allclose(
        flat({k: v["var"][0] for k, v in moments.items()}), np.diag(covariance), rtol=1e-10
    )


def test_draws_have_the_conditional_distribution(marg):
    """Mean and covariance of 20,000 draws within 5 standard errors."""
    n = 20_000
    samples = {k: np.broadcast_to(v, (n, *np.shape(v))) for k, v in THETA.items()}
    drawn = marg.recover(jax.random.key(3), samples, Y)
    draws = np.concatenate([np.asarray(drawn[k]).reshape(n, -1) for k in ("a", "u", "w")], axis=1)
    mean, covariance = conditional(THETA)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean(0) - mean) / (sd / np.sqrt(n))).max() < 5
    variances = np.outer(sd, sd) ** 2 + covariance**2
    error = (np.cov(draws.T) - covariance) / np.sqrt(variances / n)
    assert np.abs(error).max() < 5


@pytest.mark.parametrize("tau", [0.0, 1e-300])
def test_finite_as_a_scale_goes_to_zero(marg, tau):
    """At τ = 0 the density is that of the model without u, and its gradient is finite.

    NumPyro's validation says that zero is outside the support of a HalfNormal, as it is in the
    source; so it is off there.
    """
    with numpyro.validation_enabled(tau > 0):
        check_limit(marg, tau)


def check_limit(marg, tau):
    limit = {**THETA, "tau": np.full(2, tau)}
    mean, covariance, design, noise = dense(limit)
    expected = multivariate_normal(
        design @ mean, design @ covariance @ design.T + noise * np.eye(11)
    ).logpdf(Y)
    density = jax.jit(jax.value_and_grad(lambda th: log_density(marg, (Y,), {}, th)[0]))
    found, gradient = density(limit)
    np.testing.assert_allclose(found - prior_terms(limit), expected, rtol=1e-12)
    assert all(np.isfinite(np.ravel(g)).all() for g in jax.tree.leaves(gradient))
