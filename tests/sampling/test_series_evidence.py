"""The log evidence of a series against Gauss–Legendre quadrature of a dense density."""

from __future__ import annotations

from itertools import product

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from scipy.special import logsumexp
from scipy.stats import halfnorm

import autmarg

TIMES = np.arange(10)
Y = np.array([0.4, 1.1, 0.7, -0.2, -0.9, -1.3, 0.1, 0.6, 1.5, 0.8])
KEY = jax.random.key(0)


def series(y):
    """A stationary AR(1) with noise; a share and two scales are left to sample."""
    phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    first = numpyro.sample("first", dist.Normal(0.0, tau))

    def step(before, y):
        x = numpyro.sample("x", dist.Normal(phi * before, tau))
        return x, numpyro.sample("y", dist.Normal(x, sigma), obs=y)

    scan(step, first, y)


def by_quadrature(nodes: int) -> tuple[float, np.ndarray]:
    """log p(y), and the posterior means of phi, tau and sigma."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = (x + 1) / 2, w / 2
    scale, slope = 6 * x**2, 12 * x  # dense near zero, and no mass is beyond 6
    points = np.array([*product(x, scale, scale)])
    log_w = np.log([*map(np.prod, product(w, w * slope, w * slope))])
    phi, tau, sigma = points.T
    logs = log_w + halfnorm.logpdf(tau) + halfnorm.logpdf(sigma) + log_likelihood(phi, tau, sigma)
    total = logsumexp(logs)
    return float(total), np.exp(logs - total) @ points


def log_likelihood(phi: np.ndarray, tau: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """log N(y; 0, tau² A Aᵀ + sigma² I), A the weights of first and of the steps' noise."""
    powers = TIMES[:, None] - np.arange(-1, len(TIMES))
    weights = np.where(powers >= 0, phi[:, None, None] ** np.maximum(powers, 0), 0.0)
    covariance = tau[:, None, None] ** 2 * weights @ weights.transpose(0, 2, 1)
    covariance += sigma[:, None, None] ** 2 * np.eye(len(TIMES))
    square = np.einsum("i,nij,j->n", Y, np.linalg.inv(covariance), Y)
    return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_the_evidence_of_a_series():
    """Within four standard errors; four nodes fewer change less than 0.001 nats."""
    expected, means = by_quadrature(32)
    assert abs(by_quadrature(28)[0] - expected) < 1e-3
    found = autmarg.transform(series).sample(KEY, Y)
    assert found.method == "independence"
    evidence = found.quality.evidence
    assert evidence.dimensions == 3 and evidence.error < 0.01
    assert abs(evidence.log_evidence - expected) < 4 * evidence.error
    for name, mean in zip(("phi", "tau", "sigma"), means, strict=True):
        x = np.asarray(found.get_samples()[name])
        assert abs(x.mean() - mean) < 4 * x.std() / np.sqrt(0.8 * len(x))
