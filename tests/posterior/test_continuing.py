"""Coupled elements beyond known ones are drawn from the exact conditional."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.posterior.continuing import continued
from tests.posterior.moments import assert_moments, repeated

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
NOISE = 0.5

# Sites whose elements are coupled, continued exactly: no Monte Carlo.
GRAM = np.exp(-np.abs(np.subtract.outer(np.arange(4), np.arange(4))) / 2.0)
TRANSITION = np.array([[0.9, 0.2], [0.0, 0.7]])
COUPLED = {
    "MultivariateNormal": dist.MultivariateNormal(jnp.arange(4.0), jnp.asarray(GRAM)),
    "LowRankMultivariateNormal": dist.LowRankMultivariateNormal(
        jnp.arange(4.0), jnp.asarray(GRAM[:, :2]), jnp.ones(4)
    ),
    "GaussianRandomWalk": dist.GaussianRandomWalk(0.7, 4),
    "LogNormal vector": dist.TransformedDistribution(
        dist.MultivariateNormal(jnp.zeros(4), jnp.asarray(GRAM)), dist.transforms.ExpTransform()
    ),
    "GaussianStateSpace": dist.GaussianStateSpace(
        4, jnp.asarray(TRANSITION), scale_tril=jnp.array([[1, 0], [0.5, 0.3]])
    ),
    "expanded": dist.MultivariateNormal(jnp.arange(4.0), jnp.asarray(GRAM)).expand([2]),
}


@pytest.mark.parametrize("name", COUPLED)
def test_a_conditional_of_coupled_elements_completes_the_joint_density(name):
    """p(x) = p(fresh) / |dx/dfresh| times what only known elements decide, at two fresh draws.

    The fresh draws differ in their new elements alone; these are what the map is of.
    """
    fn = COUPLED[name]
    axis = -2 if name == "GaussianStateSpace" else -1
    mask = np.zeros(fn.shape(), bool)
    mask[(slice(None),) * (mask.ndim + axis) + (slice(2),)] = True
    known, *fresh = fn.sample(jax.random.key(2), (3,))

    def joined(new):
        draw = fresh[0].at[~mask].set(new)
        return continued(fn, draw, known, jnp.asarray(mask), frozenset({axis}))

    @jax.jit
    def term(new):
        x, jacobian = joined(new), jax.jacfwd(lambda new: joined(new)[~mask])(new)
        own = fn.log_prob(fresh[0].at[~mask].set(new)).sum()
        return fn.log_prob(x).sum() - own + jnp.linalg.slogdet(jacobian)[1], x

    (first, x), (second, _) = term(fresh[0][~mask]), term(fresh[1][~mask])
    np.testing.assert_array_equal(x[mask], known[mask])
    np.testing.assert_allclose(first, second, rtol=1e-9)


def walk(scale, n, y=None):
    x = numpyro.sample("x", dist.MultivariateNormal(scale * jnp.ones(n), jnp.asarray(GRAM[:n, :n])))
    numpyro.sample("y", dist.Normal(x, NOISE), obs=y)


def test_a_coupled_site_in_a_model():
    draws = repeated(x=[2.0, -1.0])
    found = autmarg.transform(walk).predict(KEY, draws, 0.5, 3, sites=["x"])["x"]
    gain = np.linalg.solve(GRAM[:2, :2], GRAM[:2, 2])
    mean = 0.5 + gain @ (np.array([2.0, -1.0]) - 0.5)
    assert_moments(found[:, 2:], [mean], [[1 - gain @ GRAM[:2, 2]]])
