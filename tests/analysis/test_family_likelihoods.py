"""Gaussian families as likelihoods: known and latent factors, bijections, whole processes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import transforms
from numpyro.infer.util import log_density
from scipy import sparse
from scipy.stats import multivariate_normal

import autmarg
from tests.support.families import ADJACENCY, CORRELATED, ROWS, SOME, TABLE, circle, exact
from tests.support.lanes import lanes
from tests.support.programs import scale

pytestmark = pytest.mark.usefixtures("quick_compilation")


def likelihood(function, mean=lambda u: u[TABLE]):
    """Sites that ``function`` makes of a mean over u, and their data."""

    def model(**data):
        u = numpyro.sample("u", dist.Normal(0.3, scale("tau")).expand([5]))
        for name, (d, mask) in function(mean(u)).items():
            with handlers.mask(mask=mask):
                numpyro.sample(name, d, obs=data[name])

    return model


def lkj():
    return numpyro.sample("L", dist.LKJCholesky(4))


def known_factors(m):
    each = np.arange(1, 7)[:, None, None]
    tril = np.linalg.cholesky(CORRELATED)
    return {
        "a": (dist.MultivariateNormal(m, covariance_matrix=CORRELATED), True),
        "b": (dist.MultivariateNormal(m, precision_matrix=each * CORRELATED), True),
        "c": (dist.MultivariateNormal(m, scale_tril=each * tril), SOME),
    }


def latent_factors(m):
    factor, q = lkj(), scale("q")
    groups = (q * np.array([1.0, 3.0]))[:, None, None] * factor
    return {
        "a": (dist.MultivariateNormal(m, scale_tril=factor), SOME),
        "b": (dist.MultivariateNormal(m, scale_tril=groups[np.arange(6) % 2]), SOME),
        "c": (dist.MultivariateNormal(q * m, precision_matrix=q * CORRELATED), True),
    }


def structured(m):
    row = jnp.array([[1.0, 0], [0.4, scale("q")]])
    r = numpyro.sample("r", dist.Uniform(0, 1).expand([6]))
    return {
        "a": (dist.MatrixNormal(m.reshape(3, 2, 4), row, np.eye(4)), np.arange(3) > 0),
        "b": (dist.CAR(m, r, 2.0, sparse.csr_matrix(ADJACENCY), is_sparse=True), SOME),
        "c": (dist.CirculantNormal(m, covariance_row=circle(1.0)), SOME),
    }


def through_elements(m):
    """Bijections that act element by element, with masks outside and inside."""
    one = [
        transforms.AffineTransform(scale("p"), 2.0),
        transforms.SigmoidTransform(),
        transforms.PowerTransform(scale("q")),
    ]
    two = transforms.ComposeTransform(
        [transforms.AffineTransform(1.0, -2.0), transforms.ExpTransform()]
    )
    return {
        "a": (dist.LogNormal(m, 0.5), ROWS > 0),
        "b": (dist.TransformedDistribution(dist.Normal(m, 0.5), one), True),
        "c": (
            dist.TransformedDistribution(dist.Normal(m, 2), two).mask(ROWS > 0).to_event(1),
            SOME,
        ),
    }


def through_vectors(m):
    """Bijections of whole vectors, that change their length too."""
    tril = np.linalg.cholesky(CORRELATED)
    cholesky = [transforms.LowerCholeskyAffine(jnp.ones(4), tril), transforms.ExpTransform()]
    scales = jnp.array([1.0, -2.0, 0.5, scale("q")])
    return {
        "a": (dist.TransformedDistribution(dist.Normal(m, 0.5).to_event(1), cholesky), SOME),
        "b": (
            dist.TransformedDistribution(
                dist.MultivariateNormal(m, scale_tril=tril),
                [
                    transforms.AffineTransform(jnp.ones(4), scales),
                    transforms.StickBreakingTransform(),
                ],
            ),
            SOME,
        ),
        "c": (
            dist.TransformedDistribution(
                dist.Normal(m, 1.0).to_event(1), transforms.OrderedTransform()
            ),
            True,
        ),
    }


SIMPLEX = np.asarray(transforms.StickBreakingTransform()(ROWS))
LIKELIHOODS = {
    "known factors": (known_factors, ROWS, ROWS, ROWS),
    "latent factors": (latent_factors, ROWS, ROWS, ROWS),
    "structured": (structured, ROWS.reshape(3, 2, 4), ROWS, ROWS),
    "elementwise": (through_elements, np.exp(ROWS), 1 / (1 + np.exp(-ROWS)), np.exp(ROWS)),
    "vectors": (through_vectors, np.exp(ROWS), SIMPLEX, np.sort(ROWS, axis=-1)),
}


@pytest.mark.parametrize("name", lanes(LIKELIHOODS, quick=["vectors"]))
def test_likelihood(name):
    function, *data = LIKELIHOODS[name]
    exact(likelihood(function), {"u"}, **dict(zip("abc", data, strict=True)))


TIME = np.linspace(0, 1, 24)


def kernel(length, time=TIME):
    return jnp.exp(-(((time[:, None] - time) / length) ** 2)) + 0.01 * jnp.eye(len(time))


def test_gaussian_process_likelihood():
    """One large block, and several of which a mask leaves some, whitened at each step."""

    def function(m):
        length, q = scale("length") + 0.1, scale("q")
        blocks = m.reshape(3, 8)
        factors = kernel(length, TIME[:8]) * np.arange(1, 4)[:, None, None]
        return {
            "a": (dist.MultivariateNormal(q * m, covariance_matrix=q * kernel(length)), True),
            "b": (dist.MultivariateNormal(blocks, covariance_matrix=factors), np.arange(3) != 1),
            "c": (dist.MultivariateNormal(blocks, covariance_matrix=factors[0]), True),
        }

    data = ROWS.reshape(24)
    model = likelihood(function, lambda u: u[np.arange(24) % 5] + u[0] * TIME + 2.0)
    exact(model, {"u"}, a=data, b=data.reshape(3, 8), c=data.reshape(3, 8))


def test_gaussian_process_likelihood_against_a_dense_gaussian():
    design = np.stack([np.ones(24), TIME], axis=1)

    def model(y):
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([2]))
        k = kernel(numpyro.sample("length", dist.Uniform(0, 1)))
        numpyro.sample("y", dist.MultivariateNormal(design @ beta, covariance_matrix=k), obs=y)

    marg, y = autmarg.transform(model), ROWS.reshape(24)
    density = jax.jit(lambda length: log_density(marg, (y,), {}, {"length": length})[0])
    covariance = 4 * design @ design.T + np.asarray(kernel(0.3))
    expected = multivariate_normal(np.zeros(24), covariance).logpdf(y)
    np.testing.assert_allclose(density(0.3), expected, rtol=1e-10)
    numeric = (density(0.3 + 1e-6) - density(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(density)(0.3), numeric, rtol=1e-5)


def test_known_process_likelihood():
    """A known covariance over gathered, scaled and dense terms is divided out when planning."""

    def function(m):
        return {"a": (dist.MultivariateNormal(m, covariance_matrix=kernel(0.3)), True)}

    def mean(u):
        return scale("q") * u[np.arange(24) % 5] + u[0] * TIME

    exact(likelihood(function, mean), {"u"}, a=ROWS.reshape(24))
