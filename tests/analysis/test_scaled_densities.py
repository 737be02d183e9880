"""``handlers.scale`` by a known number: s log N(x; m, v) = log N(x; m, v/s) + c(s, v)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan

import autmarg
from tests.support.generator.identity import check_exact
from tests.support.lanes import lanes

RNG = np.random.default_rng(6)
N, GROUP = 8, np.array([0, 1, 2, 0, 1, 2, 0, 3])
X, Y = RNG.normal(size=(2, N))
Z = RNG.normal(size=(N, 2))
WEIGHTS = RNG.uniform(0.2, 3.0, N)


def scale(name: str) -> Any:
    return numpyro.sample(name, dist.HalfNormal(1.0))


def effects():
    a, tau = numpyro.sample("a", dist.Normal(1.0, 2.0)), scale("stau")
    with numpyro.plate("groups", 4):
        return numpyro.sample("u", dist.Normal(a, tau))


def hierarchy():
    u, s = effects(), scale("s")
    numpyro.sample("y", dist.Normal(u[GROUP], s), obs=Y)


def tempered():
    """The whole program to a power."""
    with handlers.scale(scale=0.5):
        hierarchy()


def nested_scales_over_priors():
    with handlers.scale(scale=0.25):
        u = effects()
        with handlers.scale(scale=3.0):
            s = scale("s")
    numpyro.sample("y", dist.Normal(u[GROUP], s), obs=Y)


def weighted_rows_under_a_plate():
    """One weight a row, one of them zero; noise by groups."""
    u = effects()
    s = numpyro.sample("s", dist.HalfNormal(1.0).expand([4]))
    weights = jnp.where(np.arange(N) == 2, 0.0, WEIGHTS)  # NumPyro cannot see the zero
    with numpyro.plate("rows", N), handlers.scale(scale=weights):
        numpyro.sample("y", dist.Normal(u[GROUP], s[GROUP]), obs=Y)


def weighted_and_masked_elements():
    """Elements of a prior and rows, some of which are masked as well; known noise."""
    with handlers.scale(scale=WEIGHTS[:4]):
        tau = scale("stau")
        prior = dist.Normal(0.3, tau * np.arange(1.0, 5.0)).mask(np.arange(4) < 3)
        u = numpyro.sample("u", prior)
    with handlers.scale(scale=WEIGHTS):
        rows = dist.Normal(u[GROUP % 3], 0.7).mask(np.arange(N) != 4)
        numpyro.sample("y", rows, obs=Y)


def vectors():
    """Multivariate priors and rows with a weight each; a covariance that is sampled."""
    s, tau = scale("s"), scale("stau")
    cov = jnp.array([[1.0, 0.3], [0.3, 0.5]])
    with numpyro.plate("groups", 4), handlers.scale(scale=WEIGHTS[:4]):
        u = numpyro.sample("u", dist.MultivariateNormal(jnp.ones(2), scale_tril=tau * cov))
    with numpyro.plate("rows", N), handlers.scale(scale=WEIGHTS):
        numpyro.sample("z", dist.MultivariateNormal(u[GROUP], s * cov), obs=Z)
        known = dist.MultivariateNormal(u[GROUP], cov).mask(np.arange(N) > 1)
        numpyro.sample("k", known, obs=Z)


def large_factor():
    s, u = scale("s"), effects()
    cov = jnp.exp(-jnp.abs(jnp.subtract.outer(X, X)) / s) + 0.1 * jnp.eye(N)
    with handlers.scale(scale=1.7):
        numpyro.sample("y", dist.MultivariateNormal(u[GROUP], cov), obs=Y)


def known_basis():
    """A field whose covariance has a known basis, as a prior and as data; a singular prior."""
    near = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
    s, tau = scale("s"), scale("stau")
    with handlers.scale(scale=0.6):
        u = numpyro.sample("u", dist.CAR(0.0, 0.4, 1 / tau, near))
        z = numpyro.sample("c", dist.ZeroSumNormal(tau, event_shape=(4,)))
        numpyro.sample("y", dist.CAR(u + z, 0.2, s, near, is_sparse=False), obs=Y[:4])


def log_normal_rows():
    u, s = effects(), scale("s")
    with handlers.scale(scale=WEIGHTS):
        numpyro.sample("y", dist.LogNormal(u[GROUP], s), obs=np.exp(Y))


def chain():
    s, tau = scale("s"), scale("stau")

    def step(x: Any, y: Any) -> Any:
        x = numpyro.sample("x", dist.Normal(0.8 * x, tau))
        numpyro.sample("y", dist.Normal(x, s), obs=y)
        return x, None

    with handlers.scale(scale=0.3):
        scan(step, 0.0, np.linspace(0, 1, 12))


def kept_child():
    """A kept latent whose mean is integrated, its density in the marginal to a power."""
    u = effects()
    with handlers.scale(scale=0.5):
        eta = numpyro.sample("eta", dist.Normal(u, 1.3))
    numpyro.sample("y", dist.Poisson(jnp.exp(0.1 * eta[GROUP])), obs=np.arange(N) % 3)


def childless():
    with handlers.scale(scale=2.5):
        numpyro.sample("u", dist.Normal(1.0, scale("s")).expand([3]))
    numpyro.sample("y", dist.Normal(numpyro.sample("b", dist.Normal(0, 1)), 1.0), obs=Y)


CASES = {
    tempered: "a u",
    nested_scales_over_priors: "a u",
    weighted_rows_under_a_plate: "a u",
    weighted_and_masked_elements: "u",
    vectors: "u",
    large_factor: "a u",
    known_basis: "u c",
    log_normal_rows: "a u",
    chain: "x",
    kept_child: "a u",
    childless: "u b",
}


@pytest.mark.parametrize(
    "model", lanes(CASES, CASES.keys() - {tempered, vectors, known_basis, childless})
)
def test_exact(model: Callable[..., Any]):
    check_exact(model, CASES[model])


def weighted(factor: Any) -> str:
    def model():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
        with handlers.scale(scale=1.0 * jnp.asarray(factor)):  # traced: NumPyro checks no value
            numpyro.sample("y", dist.Normal(u, 1.0), obs=Y)

    plan = autmarg.transform(model).plan()
    return "" if plan.integrated else str(plan.refusals[0])


def test_factors_that_are_no_power_of_the_density():
    assert "negative or not finite" in weighted(-0.5)
    assert "negative or not finite" in weighted(np.nan)
    assert "factor of shape (3, 8), which repeats" in weighted(np.ones((3, N)))
    assert weighted(2.0) == ""


def test_a_factor_that_a_jit_traces():
    def check(s: Any) -> Any:
        assert "depends on a traced argument" in weighted(s)
        return s

    jax.jit(check)(0.5)


def test_a_factor_that_a_latent_decides():
    def model():
        u, s = numpyro.sample("u", dist.Normal(0.0, 1.0)), scale("s")
        with handlers.scale(scale=s):
            numpyro.sample("y", dist.Normal(u, 1.0), obs=Y)

    plan = autmarg.transform(model).plan()
    assert "under handlers.scale with a factor that depends on 's'" in str(plan.refusals[0])


def test_no_rule_shares_a_scaled_marginal():
    def model():
        v = numpyro.sample("v", dist.InverseGamma(2.0, 2.0))
        with handlers.scale(scale=0.5):
            u = numpyro.sample("u", dist.Normal(0.0, jnp.sqrt(v)))
            numpyro.sample("y", dist.Normal(u, jnp.sqrt(v)), obs=Y)

    plan = autmarg.transform(model).plan()
    assert plan.integrated == ("u",)
    assert "is under handlers.scale" in str(plan.refusals[0])
