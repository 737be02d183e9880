"""The log evidence against closed forms and quadrature, from draws made by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.special import logsumexp

import autmarg
from tests.support.lanes import lanes

RNG = np.random.default_rng(3)
GROUP = np.arange(12) % 4
Y = RNG.normal(size=12) + RNG.normal(size=4)[GROUP]


def groups(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    u = numpyro.sample("u", dist.Normal(mean, scale).expand([4]).to_event(1))
    numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)


def by_quadrature(marg: autmarg.MarginalizedModel) -> tuple[float, np.ndarray]:
    """log p(y), and 4,000 draws of the one sampled scale, on a grid of its logarithm."""
    grid = np.linspace(-14, 3, 20_001)
    at = jax.jit(jax.vmap(lambda x: log_density(marg, (Y,), {}, {"scale": jnp.exp(x)})[0]))
    logs = np.asarray(at(jnp.asarray(grid))) + grid
    total = logsumexp(logs) + np.log(grid[1] - grid[0])
    cdf = np.cumsum(np.exp(logs - logs.max()))
    picked = np.interp(np.random.default_rng(0).uniform(size=4000), cdf / cdf[-1], grid)
    return float(total), np.exp(picked)


@pytest.mark.parametrize("reparameterize", lanes(["auto", "noncentred"], quick=["auto"]))
def test_one_scale_is_left(reparameterize: str) -> None:
    """Within four standard errors, whatever else the plan keeps: here the mean and the effects."""
    marg = autmarg.transform(groups, marginalize="all")
    expected, scale = by_quadrature(marg)
    found = marg.log_evidence(jax.random.key(0), {"scale": scale}, Y)
    assert found.dimensions == 1 and found.error < 0.03
    assert abs(found.log_evidence - expected) < 4 * found.error
    every = marg.recover(jax.random.key(1), {"scale": scale}, Y)
    some = autmarg.transform(groups, keep=["u", "mean"], reparameterize=reparameterize)
    more = some.log_evidence(jax.random.key(2), every, Y)
    assert more.dimensions == 6 and found.error < more.error < 0.2
    assert abs(more.log_evidence - expected) < 4 * more.error


def test_nothing_is_sampled() -> None:
    def known(y):
        u = numpyro.sample("u", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(u, 1.0), obs=y)

    found = autmarg.transform(known).log_evidence(jax.random.key(0), {"draw": np.zeros(3)}, Y)
    covariance = np.eye(12) + 4.0
    expected = dist.MultivariateNormal(np.zeros(12), covariance).log_prob(Y)
    assert found.error == 0.0
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-12)


def test_missing_responses_are_no_part_of_it() -> None:
    """Elements under NumPyro's own mask have no density, and nothing reads them."""

    def missing(y, seen):
        u = numpyro.sample("u", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(u, 1.0).expand([len(y)]), obs=y, obs_mask=seen)

    seen = np.arange(12) < 9
    found = autmarg.transform(missing).log_evidence(
        jax.random.key(0), {"draw": np.zeros(3)}, Y, seen
    )
    expected = dist.MultivariateNormal(np.zeros(9), np.eye(9) + 4.0).log_prob(Y[seen])
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-12)


def test_what_it_refuses() -> None:
    def flat(y):
        scale = numpyro.sample("scale", dist.ImproperUniform(dist.constraints.positive, (), ()))
        numpyro.sample("y", dist.Normal(numpyro.sample("u", dist.Normal(0, 1)), scale), obs=y)

    def weighted(y):
        u = numpyro.sample("u", dist.Normal(0, 1))
        with handlers.scale(scale=np.linspace(0.5, 1.5, len(y))):
            numpyro.sample("y", dist.Normal(u, 1), obs=y)

    def part(y):
        with handlers.mask(mask=np.arange(12) < 9):
            u = numpyro.sample("u", dist.Normal(0, 1).expand([12]))
        numpyro.sample("y", dist.Normal(u, 1), obs=y)

    def refused(model, draws):
        with pytest.raises(autmarg.RequestError) as caught:
            autmarg.transform(model, marginalize="all").log_evidence(jax.random.key(0), draws, Y)
        return str(caught.value)

    assert "'scale' has an improper prior" in refused(flat, {"scale": np.ones(100)})
    assert "no mask on a part of a latent that others read" in refused(part, {"u": np.ones(100)})
    assert "log-density of 'y' is scaled" in refused(weighted, {"draw": np.ones(100)})
    assert "needs draws of the sampled site 'scale'" in refused(groups, {"mean": np.ones(100)})
    assert "at least 20 draws for each" in refused(groups, {"scale": np.linspace(1, 2, 10)})
