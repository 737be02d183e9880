"""Proposals are normalised densities of what they draw, and fit what they are fitted to."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

from autmarg.sampling.fitting import fitted, single, split
from autmarg.sampling.proposal import Proposal

RANDOM = np.random.default_rng(0)


def folded_pair() -> Proposal:
    """Two components in two dimensions, the first coordinate positive and near zero."""
    scale = np.array([[[0.5, 0.2], [0.2, 1.0]], [[1.0, -0.3], [-0.3, 0.4]]])
    return Proposal.of(
        np.array([0.7, 0.3]),
        np.array([[0.4, 1.0], [30.0, -1.0]]),
        scale,
        np.array([5.0, 8.0]),
        np.array([True, False]),
    )


def test_one_component_is_scipys_t():
    scale = np.array([[2.0, 0.5], [0.5, 1.0]])
    found = Proposal.of(
        np.ones(1), np.array([[1.0, -2.0]]), scale[None], np.array([6.0]), np.zeros(2, bool)
    )
    x = RANDOM.normal(size=(20, 2))
    expected = stats.multivariate_t(np.array([1.0, -2.0]), scale, 6.0).logpdf(x)
    np.testing.assert_allclose(found.log_density(x), expected, rtol=1e-12)


def test_a_component_far_from_zero_is_not_folded():
    assert folded_pair().folded.tolist() == [[True, False], [False, False]]
    assert folded_pair().defended().folded.tolist()[-1] == [True, False]


@pytest.mark.parametrize("draw", ["numpy", "jax"])
def test_the_density_is_that_of_the_draws(draw):
    """E_q[p/q] = 1 for a density p over the half plane, to five standard errors."""
    q = folded_pair().defended()
    if draw == "numpy":
        x = q.draw(np.random.default_rng(1), 100_000)
    else:
        x = np.asarray(q.drawn(jax.random.key(1), 100_000))
    log_p = stats.halfnorm(0, 0.8).logpdf(x[:, 0]) + stats.norm(0.5, 1.0).logpdf(x[:, 1])
    ratio = np.exp(log_p - q.log_density(x))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(x))


def test_jax_and_numpy_agree():
    q, x = folded_pair().defended(), np.abs(RANDOM.normal(size=(5, 2)))
    found = q.log_density(jax.numpy.asarray(x))
    np.testing.assert_allclose(found, q.log_density(x), rtol=1e-12)


@pytest.mark.parametrize("freedom", [[4.0, 6.0], [5.0, 7.3]])
@pytest.mark.parametrize("away", [1.0, 1e6, 1e60, 1e150])
def test_products_and_roots_are_as_exact_as_logarithms(freedom, away):
    base = folded_pair()
    q = Proposal(base.weight, base.loc, base.factor, np.array(freedom), base.folded)
    x = away * np.abs(RANDOM.normal(size=(50, 2)))
    found = q.log_density(x)
    terms = q.log_terms(q.distances(x))
    np.testing.assert_allclose(found, np.logaddexp.reduce(terms, axis=1), rtol=1e-13)
    assert q.log_density(x[:0]).shape == (0,)


def test_em_finds_a_half_normal():
    """The folded component at zero with the half-normal's scale."""
    x = np.abs(np.random.default_rng(2).normal(0, 2.0, (20_000, 1)))
    weights = np.full(len(x), 1 / len(x))
    positive = np.array([True])
    found = fitted(x, weights, single(x, weights, positive), positive)
    # (a t density of ten degrees of freedom is the nearest to a normal one that is offered)
    assert found.freedom.tolist() == [10.0]
    gap = stats.halfnorm(0, 2.0).logpdf(x[:, 0]) - found.log_density(x)
    assert abs(gap.mean()) < 0.02


def test_a_component_more_fits_a_mixture():
    random = np.random.default_rng(3)
    x = np.concatenate([random.normal(0, 1, (4000, 2)), random.normal(6, 0.5, (1000, 2))])
    weights, positive = np.full(len(x), 1 / len(x)), np.zeros(2, bool)
    one = fitted(x, weights, single(x, weights, positive), positive)
    truth = np.logaddexp(
        np.log(0.8) + stats.norm(0, 1).logpdf(x).sum(1),
        np.log(0.2) + stats.norm(6, 0.5).logpdf(x).sum(1),
    )
    two = one
    for _ in range(3):
        two = fitted(x, weights, split(one, x, weights, truth - one.log_density(x), positive),
                     positive)  # fmt: skip
    assert len(two.weight) == 2
    assert np.mean(truth - two.log_density(x)) < 0.05 < np.mean(truth - one.log_density(x))
