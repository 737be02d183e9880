"""Predictions of known and new levels against closed forms.

Draws are made by hand, the same θ in each, so that moments given θ are known. Bounds are five
standard errors at fixed seeds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from tests.posterior.moments import N, assert_moments, repeated

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)

# Groups with an intercept and a slope.
TAU, CHOL, SIGMA = np.array([1.0, 0.5]), np.array([[1, 0], [0.6, 0.8]]), 0.3
GROUP, X = np.repeat(np.arange(3), 4), RNG.normal(size=12)
Y = RNG.normal(size=12)


def slopes(x, g, n, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("groups", n):
        u = numpyro.sample(
            "u", dist.MultivariateNormal(jnp.zeros(2), scale_tril=tau[:, None] * CHOL)
        )
    mu = numpyro.deterministic("mu", u[g, 0] + u[g, 1] * x)
    numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


RUN = (X, GROUP, 3, Y)
NEW_X, NEW_GROUP = np.array([0.5, -1.0, 0.0, 2.0, 1.0]), np.array([0, 0, 3, 3, 4])


@pytest.fixture(scope="module")
def marg():
    return autmarg.transform(slopes)


@pytest.fixture(scope="module")
def predicted(marg):
    draws = repeated(tau=TAU, sigma=SIGMA)
    return marg.predict(
        KEY, draws, NEW_X, NEW_GROUP, 5, fitted=RUN, sites=["y", "mu", "u"], batch_size=1500
    )


def test_known_and_new_levels_with_slopes(predicted):
    """Rows of a known level have the kriging moments, those of a new level its population's."""
    scale = TAU[:, None] * CHOL
    prior = scale @ scale.T
    old, new = np.stack([np.ones(4), X[:4]], 1), np.stack([np.ones(5), NEW_X], 1)
    gain = prior @ old.T @ np.linalg.inv(old @ prior @ old.T + SIGMA**2 * np.eye(4))
    mean, left = gain @ Y[:4], prior - gain @ old @ prior
    levels = [left, prior, prior]
    covariance = SIGMA**2 * np.eye(5)
    for k, rows in enumerate([[0, 1], [2, 3], [4]]):
        covariance[np.ix_(rows, rows)] += new[rows] @ levels[k] @ new[rows].T
    assert_moments(predicted["y"], [*(new[:2] @ mean), 0, 0, 0], covariance)


def test_a_new_level_is_drawn_once_for_all_of_its_rows(predicted):
    u = predicted["u"]
    assert u.shape == (N, 5, 2)
    wanted = u[:, NEW_GROUP, 0] + u[:, NEW_GROUP, 1] * NEW_X
    np.testing.assert_allclose(predicted["mu"], wanted)


SMALL = repeated(tau=TAU, sigma=SIGMA, u=np.arange(6.0).reshape(3, 2))
SMALL = {name: value[:6].reshape(2, 3, *value.shape[1:]) for name, value in SMALL.items()}


def test_expected_values_shapes_and_single_precision(marg):
    single = {name: value.astype(np.float32) for name, value in SMALL.items()}
    found = marg.predict(KEY, single, NEW_X, NEW_GROUP[::-1].copy(), 5, mean=True)
    assert list(found) == ["mu", "y"] and found["y"].shape == (2, 3, 5)
    np.testing.assert_allclose(found["y"], found["mu"])
    np.testing.assert_allclose(found["y"][..., 3:], np.broadcast_to([2.0, 1.0], (2, 3, 2)))


# However a latent was sampled in the fit.
def hierarchy(g, n, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("groups", n):
        u = numpyro.sample("u", dist.Normal(0, tau))
    numpyro.sample("y", dist.Normal(u[g], 1), obs=y)


HIERARCHY = (GROUP, 3, Y)


def test_kept_integrated_and_non_centred_latents_predict_alike():
    tau, new = np.linspace(0.5, 1.5, 5), (np.array([0, 3]), 4)
    integrated = autmarg.transform(hierarchy)
    own = integrated.predict(KEY, {"tau": tau}, *new, fitted=HIERARCHY)["y"]
    recovered = integrated.recover(jax.random.split(KEY)[0], {"tau": tau}, *HIERARCHY)
    draws = {
        "kept": {"tau": tau, "u": recovered["u"]},
        "non-centred": {"tau": tau, "u_decentered": recovered["u"] / tau[:, None]},
    }
    options = {"kept": "off", "non-centred": ["u"]}
    for name, samples in draws.items():
        marg = autmarg.transform(hierarchy, keep=["u"], reparameterize=options[name])
        found = marg.predict(KEY, samples, *new, fitted=HIERARCHY)["y"]
        np.testing.assert_allclose(found, own, rtol=1e-9, err_msg=name)
