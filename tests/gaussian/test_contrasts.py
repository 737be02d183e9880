"""Rows of one step turned: the same sums of squares, few of which read states."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.gaussian.affine import Rows, RowTerm
from autmarg.gaussian.chains.contrasts import contrasts

RNG = np.random.default_rng(5)
STEPS, ROWS, GROUPS = 6, 40, 3


@pytest.mark.parametrize("width", [1, 2])
def test_the_sums_of_squares_of_each_noise_stay(width: int) -> None:
    """Whatever columns and weights are; a state's coefficients may be one weight's or several's."""
    states = np.arange(STEPS * width).reshape(STEPS, 1, width)
    constant = states.size + GROUPS
    step = RNG.integers(0, STEPS, ROWS)
    read = np.stack([states[step, 0, k] for k in range(width)], axis=1)
    group = states.size + RNG.integers(0, GROUPS, ROWS)
    column = np.column_stack([read, group, np.full(ROWS, constant)])
    known = RNG.normal(size=column.shape)
    known[:, 0] = 1.0
    slot = np.zeros(column.shape, np.int64)
    slot[:, -1] = RNG.integers(0, 3, ROWS)
    rows = Rows("y", ROWS, (RowTerm(column, known, slot),), RNG.integers(1, 3, ROWS))
    own, others = contrasts(rows, states, constant)
    assert own.n + others.n == ROWS and own.n <= 2 * width * STEPS
    omega, v = jnp.asarray(RNG.normal(size=3)), jnp.asarray(RNG.normal(size=constant + 1))
    for noise in (1, 2):
        squares = [
            np.square(np.asarray(each.evaluate(omega, v))[each.precision == noise]).sum()
            for each in (rows, own, others)
        ]
        np.testing.assert_allclose(squares[0], squares[1] + squares[2], rtol=1e-12)
        counts = [(each.precision == noise).sum() for each in (rows, own, others)]
        assert counts[0] == counts[1] + counts[2]
    (left,) = others.terms
    assert not np.isin(left.column[left.known != 0], states).any()


@pytest.fixture(scope="module")
def marg() -> autmarg.MarginalizedModel:
    """An intercept and a walk, several rows of each step."""
    step = RNG.integers(0, STEPS, ROWS)
    y = 1e3 + RNG.normal(size=ROWS)

    def model() -> None:
        q, s = numpyro.sample("q", dist.HalfNormal(1)), numpyro.sample("s", dist.HalfNormal(1))
        a = numpyro.sample("a", dist.Normal(0, 1e3))
        walk = numpyro.sample("walk", dist.GaussianRandomWalk(q, STEPS))
        numpyro.sample("y", dist.Normal(a + walk[step], s), obs=y)

    return autmarg.transform(model, marginalize="all")


def test_equal_means_leave_one_row_and_no_other_columns(marg: autmarg.MarginalizedModel) -> None:
    """Contrasts read only the data: no rounding joins them to others."""
    assert f"{STEPS} rows filtered one by one" in str(marg.plan())
    assert "N = 34 rows added up into 1 statistics" in str(marg.plan())


@pytest.mark.slow
def test_exact(marg: autmarg.MarginalizedModel) -> None:
    assert autmarg.verify(marg, points=4, quiet=True).exact
