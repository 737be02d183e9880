"""Rows whose mean is affine in sampled latents are added up once; others are left as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.ir.nodes import Marginal

pytestmark = pytest.mark.usefixtures("quick_compilation")

N = 6000
_RNG = np.random.default_rng(0)
X, GROUP = _RNG.normal(size=(N, 3)), np.arange(N) % 20
Y = X @ np.ones(3) + _RNG.normal(size=N)
THETA = {"b": jnp.array([0.3, -1.0, 2.0]), "u": jnp.linspace(-1, 1, 20), "sigma": jnp.full(2, 1.3)}


def robust(x, group, y=None, link=lambda mean: mean, noise=lambda sigma, group: sigma[group % 2]):
    """Heavy-tailed coefficients and effects, which cannot be integrated out; two noise scales."""
    b = numpyro.sample("b", dist.Laplace(0, 1).expand([3]).to_event(1))
    u = numpyro.sample("u", dist.StudentT(4.0, 0, 1).expand([20]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1).expand([2]).to_event(1))
    with numpyro.plate("rows", len(group)):
        mean, scale = link(x @ b + u[group]), noise(sigma, group)
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def cross_products(marg, rows=N):
    """Numbers that the rows are added up into, or None where they are not."""
    nodes = marg.program(X[:rows], GROUP[:rows], Y[:rows]).nodes
    found = [n for n in nodes if isinstance(n, Marginal)]
    return len(found[0].density.schedule.assembly.summed.stats.total) if found else None


def test_value_and_gradient_are_the_source_s():
    marg = autmarg.transform(robust)
    of = [
        jax.jit(jax.value_and_grad(lambda th, m=m: log_density(m, (X, GROUP, Y), {}, th)[0]))(THETA)
        for m in (robust, marg)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *of)
    assert "cross-products" in str(marg.plan(X, GROUP, Y))


def test_the_step_does_not_know_the_number_of_rows():
    marg = autmarg.transform(robust)
    assert cross_products(marg, 3000) == cross_products(marg, N)


@pytest.mark.parametrize(
    "changed",
    [
        {"link": jnp.exp},
        {"noise": lambda sigma, group: sigma[0] * jnp.exp(sigma[1] * X[: len(group), 0])},
    ],
    ids=["nonlinear mean", "noise of each row"],
)
def test_rows_that_do_not_add_up_stay(changed):
    def model(x, group, y=None):
        robust(x, group, y, **changed)

    assert cross_products(autmarg.transform(model)) is None


def test_few_rows_stay_and_the_pass_can_be_dropped():
    assert cross_products(autmarg.transform(robust), 200) is None
    without = autmarg.transform(robust, passes=autmarg.default_passes().drop("hoist"))
    assert cross_products(without) is None
