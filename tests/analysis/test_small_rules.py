"""Spellings that read a latent as it is: questions of NaN, first powers, permutations, one-hot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logit
from numpyro.contrib.control_flow import scan
from numpyro.distributions import transforms

import autmarg
from tests.support.generator.identity import check_exact, identity

RNG = np.random.default_rng(8)
GROUP, ORDER = np.array([0, 1, 2, 0, 1, 2]), np.array([2, 0, 1])
ONE_HOT = np.eye(3)[GROUP]
Y, GAPS = RNG.normal(size=(2, 6))
GAPS[[1, 4]] = np.nan
BINARY, COUNTS = np.array([0, 1, 1, 0, 1, 1]), np.array([3, 0, 2, 1, 0, 4])


def scale() -> Any:
    return numpyro.sample("s", dist.HalfNormal(1.0))


def latent(size: int = 3) -> Any:
    return numpyro.sample("u", dist.Normal(0, 1.5).expand([size]))


def cleaned():
    """nan_to_num, where(isnan), where(isfinite) of means, scaled by a kept latent."""
    u, s = latent(), scale()
    mean = jnp.nan_to_num(u[GROUP]) + jnp.where(jnp.isnan(s * u[GROUP]), 0.0, s * u[GROUP])
    mean = jnp.where(jnp.isfinite(mean) & (mean < jnp.inf), mean, -1.0)
    numpyro.sample("y", dist.Normal(mean, s), obs=Y)


def gaps_filled():
    """NaN that are known stay where they are; elements that are latent are no gaps."""
    u, s = latent(6), scale()
    whole = jnp.where(np.arange(6) < 2, u, GAPS)
    numpyro.sample("y", dist.Normal(jnp.nan_to_num(whole, nan=0.3), s), obs=Y)


def first_powers():
    u, s = latent(), scale()
    mean = jnp.power(u, 1.0)[GROUP] + u[GROUP] ** np.ones(6) + jnp.float_power(u, 1)[GROUP]
    numpyro.sample("y", dist.Normal(mean, s), obs=Y)


def permuted_vectors():
    """As a prior and as data; the factor is sampled."""
    s, factor = scale(), np.array([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [-0.2, 0.4, 0.6]])
    permute = transforms.PermuteTransform(ORDER)
    prior = dist.MultivariateNormal(np.arange(3.0), scale_tril=s * factor).expand([2])
    u = numpyro.sample("u", dist.TransformedDistribution(prior, permute))
    rows = dist.MultivariateNormal(u, scale_tril=factor)
    numpyro.sample(
        "y", dist.TransformedDistribution(rows, permute), obs=jnp.asarray(Y.reshape(2, 3))
    )
    z = numpyro.sample("z", dist.TransformedDistribution(dist.Normal(u[0], s).to_event(1), permute))
    numpyro.sample("w", dist.Normal(z[ORDER], 1.0), obs=Y[:3])


GAUSSIAN = {cleaned: "u", gaps_filled: "u", first_powers: "u", permuted_vectors: "u z"}


@pytest.mark.parametrize("model", GAUSSIAN, ids=lambda model: model.__name__)
def test_exact(model: Callable[..., Any]):
    check_exact(model, GAUSSIAN[model])


def test_other_questions_and_powers_are_no_first_ones():
    def model(of: Callable[[Any], Any]) -> Callable[..., Any]:
        def run():
            numpyro.sample("y", dist.Normal(of(latent(6)), 1.0), obs=Y)

        return run

    for of in (lambda u: 1.0 * (u < 3.0), lambda u: u**1.5, lambda u: u ** np.r_[2, np.ones(5)]):
        assert autmarg.transform(model(of)).plan().integrated == ()


def test_events_without_exposure_are_impossible():
    def model():
        r = numpyro.sample("r", dist.Gamma(2.0, 1.5))
        numpyro.sample("y", dist.Poisson(np.array([0.0, 1.0]) * r), obs=np.array([1, 2]))

    assert "e is not positive everywhere" in str(autmarg.transform(model).plan().refusals[0])


def beta() -> Any:
    return numpyro.sample("p", dist.Beta(2.0, 1.5).expand([3]))


def one_hot_products():
    """By matmul, by a sum of products, by einsum; of Beta and Gamma priors."""
    p, r = beta(), numpyro.sample("sr", dist.Gamma(2.0, 1.5).expand([3]))
    numpyro.sample("a", dist.Bernoulli(ONE_HOT @ p), obs=BINARY)
    numpyro.sample("b", dist.Bernoulli((ONE_HOT * p).sum(-1)), obs=BINARY)
    numpyro.sample("c", dist.Bernoulli(1 - jnp.einsum("ij,j->i", ONE_HOT, p)), obs=BINARY)
    exposure = np.linspace(0.5, 2.0, 6)
    rate = jax.nn.one_hot(GROUP, 3, dtype=jnp.float32) @ r
    numpyro.sample("d", dist.Poisson(exposure * rate), obs=COUNTS)


def complements():
    """Of the four children that a Beta prior has, and as logits."""
    p = beta()
    q = 1 - p[GROUP]
    numpyro.sample("a", dist.Bernoulli(logits=-logit(p[GROUP])), obs=BINARY)
    numpyro.sample("b", dist.Binomial(5, q), obs=COUNTS)
    numpyro.sample("c", dist.Geometric(q), obs=COUNTS)
    numpyro.sample("d", dist.NegativeBinomialProbs(4.0, q), obs=COUNTS)
    numpyro.sample("e", dist.Bernoulli(p[GROUP]), obs=BINARY)


def reordered_vectors():
    """Dirichlet vectors read backwards and by a permutation of each row's own."""
    p = numpyro.sample("p", dist.Dirichlet(np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])))
    numpyro.sample("a", dist.Categorical(p[0, ::-1]), obs=GROUP)
    orders = np.array([[0, 1, 2], [2, 0, 1], [1, 0, 2]])
    rows = p[np.array([0, 1, 1])[:, None], orders]
    numpyro.sample("b", dist.Categorical(rows), obs=np.array([2, 0, 1]))
    numpyro.sample("c", dist.Multinomial(7, rows), obs=np.array([[1, 2, 4], [3, 3, 1], [0, 7, 0]]))


def observed_in_a_scan():
    """A rate that each step reads, with an exposure that depends on the step before, and a plate of
    as many rows as there are steps."""
    r = numpyro.sample("sr", dist.Gamma(2.0, 3.0))

    def step(before: Any, now: Any) -> Any:
        count, exposure = now
        numpyro.sample("y", dist.Poisson(r * (1.0 + before)), obs=count)
        with numpyro.plate("rows", 6):
            numpyro.sample("z", dist.Poisson(r * exposure), obs=count + np.arange(6) % 2)
        return 1.0 * count, None

    scan(step, 0.5, (COUNTS, np.linspace(0.5, 2.0, 6)))


def no_exposure():
    """Rows without exposure, and without events, say nothing."""
    r = numpyro.sample("sr", dist.Gamma(2.0, 1.5).expand([3]))
    exposure = np.where(COUNTS == 0, 0.0, 2.0)
    numpyro.sample("y", dist.Poisson(exposure * r[GROUP]), obs=COUNTS)


CONJUGATE = {
    no_exposure: {"sr": RNG.uniform(0.3, 2.0, 3)},
    one_hot_products: {"p": RNG.uniform(0.1, 0.9, 3), "sr": RNG.uniform(0.3, 2.0, 3)},
    complements: {"p": RNG.uniform(0.1, 0.9, 3)},
    reordered_vectors: {"p": RNG.dirichlet(np.ones(3), 2)},
    observed_in_a_scan: {"sr": np.array(0.7)},
}


@pytest.mark.parametrize("model", CONJUGATE, ids=lambda model: model.__name__)
def test_conjugate_children_are_exact(model: Callable[..., Any]):
    marg = autmarg.transform(model)
    values = {name: jnp.asarray(value) for name, value in CONJUGATE[model].items()}
    found = identity(marg, values=values)
    assert marg.plan().integrated == tuple(values)
    assert np.abs(found.errors).max() <= found.tolerance
