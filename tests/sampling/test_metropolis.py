"""Chains over weighed proposals, and what weights say of them."""

from __future__ import annotations

import arviz
import numpy as np
import pytest

from autmarg.sampling.adapt import Round
from autmarg.sampling.metropolis import acceptance, chains, proposals_for, staying
from autmarg.sampling.weights import effective, log_mean, normalised, pareto_shape


def test_staying_is_its_definition():
    log_weights = np.random.default_rng(0).normal(size=50)
    weights = np.exp(log_weights)
    expected = 1 - np.minimum(1, weights[None] / weights[:, None]).mean(1)
    np.testing.assert_allclose(staying(log_weights), np.maximum(expected, 0), atol=1e-12)


def test_proposals_without_density_are_left_at_once():
    log_weights = np.array([-np.inf, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(staying(log_weights), [0.0, 0.25, 0.25, 0.25])


def test_equal_weights_need_one_proposal():
    assert proposals_for(np.zeros(1000), 0.95) == 1
    assert acceptance(np.zeros(1000)) == pytest.approx(1.0)


def test_the_number_of_proposals_makes_draws_worth_what_is_asked():
    """Autocorrelation of a chain of thinned draws, of the function that mixes worst."""
    random = np.random.default_rng(1)
    pool = random.normal(0, 1.2, 2000)  # weights of a proposal that is worth a quarter
    every = proposals_for(pool, 0.9)
    offered = random.integers(len(pool), size=(4, 20_000 * every))
    places = chains(pool[offered], pool[offered[:, 0]], every, random)
    at = np.take_along_axis(offered, np.maximum(places, 0), axis=1)
    # whether a draw has a large weight is what a chain remembers longest
    large = (pool[at] > np.quantile(pool, 0.99)).astype(float)
    lag = np.mean((large[:, 1:] - large.mean()) * (large[:, :-1] - large.mean())) / large.var()
    assert every > 1
    assert lag < 0.4
    assert effective(normalised(pool)) / len(pool) == pytest.approx(0.24, abs=0.05)


def test_chains_have_the_target():
    """Three states with proposal shares (1/2, 1/3, 1/6) and target shares (1/6, 1/3, 1/2)."""
    random = np.random.default_rng(2)
    offered = random.choice(3, (4, 60_000), p=[1 / 2, 1 / 3, 1 / 6])
    log_weights = np.log(np.array([1 / 3, 1.0, 3.0]))[offered]
    places = chains(log_weights, np.zeros(4), 3, random)
    at = np.take_along_axis(offered, np.maximum(places, 0), axis=1)
    shares = np.bincount(at.reshape(-1), minlength=3) / at.size
    np.testing.assert_allclose(shares, [1 / 6, 1 / 3, 1 / 2], atol=0.01)  # 5 standard errors


def test_where_a_chain_has_not_moved_it_is_at_its_start():
    places = chains(np.full((1, 4), -np.inf), np.zeros(1), 2, np.random.default_rng(0))
    assert places.tolist() == [[-1, -1]]


@pytest.mark.parametrize("shape", [0.1, 0.4, 0.9])
def test_pareto_shape_is_arvizs(shape):
    log_weights = np.log(np.random.default_rng(3).pareto(1 / shape, 4000))
    expected = float(arviz.psislw(log_weights.copy())[1])
    assert pareto_shape(log_weights) == pytest.approx(expected, abs=0.01)


def test_equal_weights_have_no_tail():
    assert pareto_shape(np.zeros(1000)) == -np.inf


def test_weights_of_no_density_are_no_good_ones():
    none = np.full(100, -np.inf)
    assert pareto_shape(none) == np.inf
    one = Round(None, np.zeros((100, 1)), none, None)
    assert one.efficiency == 0.0


def test_log_mean_and_its_error():
    log_weights = np.log(np.random.default_rng(4).gamma(2.0, 0.5, 100_000)) - 1000.0
    value, error = log_mean(log_weights)
    assert error == pytest.approx(np.sqrt(0.5 / 100_000), rel=0.05)
    assert abs(value + 1000.0) < 5 * error
