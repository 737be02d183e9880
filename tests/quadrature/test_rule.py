"""Gauss-Hermite rules and the tables that draws are made from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, norm

from autmarg.quadrature.rule import Rule, log_integral


@pytest.mark.parametrize("count", [1, 2, 9, 40, 128])
def test_nodes_and_weights(count: int) -> None:
    """Those of NumPy, and moments of the normal up to the degree of the rule."""
    rule = Rule(count)
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    np.testing.assert_allclose(rule.nodes, nodes, atol=1e-12)
    own = np.exp(rule.log_weights) * norm.pdf(rule.nodes)
    np.testing.assert_allclose(own, weights / np.sqrt(2 * np.pi), rtol=1e-9, atol=1e-300)


def test_integral_of_a_normal_density() -> None:
    """Off its centre by half a deviation, and narrower: to rounding with 40 nodes."""
    rule = Rule(40)
    logs = norm.logpdf(rule.nodes[:, None], 0.5, [0.8, 0.9])
    np.testing.assert_allclose(log_integral(rule, jnp.asarray(logs)), 0.0, atol=1e-12)


def test_draws_from_a_table() -> None:
    """From a skew density that is known at the nodes: Kolmogorov-Smirnov, p above 1e-3."""
    rule = Rule(24)
    logs = jnp.asarray(norm.logpdf(rule.nodes) + norm.logcdf(2 * rule.nodes))[:, None]
    table = rule.table(logs)
    draws, log_density = jax.vmap(table.draw)(jax.random.split(jax.random.key(0), 4000))
    z = np.asarray(draws)[:, 0]

    def cdf(x: np.ndarray) -> np.ndarray:
        grid = np.linspace(-8, 8, 8001)
        density = 2 * norm.pdf(grid) * norm.cdf(2 * grid)
        return np.interp(x, grid, np.cumsum(density) * (grid[1] - grid[0]))

    assert kstest(z, cdf).pvalue > 1e-3
    true = norm.logpdf(z) + norm.logcdf(2 * z)
    inside = np.abs(z) < 3
    error = np.asarray(log_density)[inside, 0] - true[inside]
    assert np.ptp(error) < 0.1
