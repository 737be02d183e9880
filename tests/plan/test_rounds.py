"""Crossed factors that meet seldom: columns of low degree go in rounds before the dense root."""

from __future__ import annotations

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.gaussian.stages import BatchedBlocks
from autmarg.plan import degree, order

pytestmark = pytest.mark.usefixtures("quick_compilation")

LEVELS, ROWS = 150, 300
_RNG = np.random.default_rng(1)
FIRST, SECOND = _RNG.integers(0, LEVELS, ROWS), _RNG.integers(0, LEVELS, ROWS)
Y = _RNG.normal(size=ROWS)
KEPT = {"sigma": 0.7, "tau": 1.3, "omega": 0.4}


def crossed(first, second, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    sigma, tau, omega = (numpyro.sample(n, dist.HalfNormal(1)) for n in KEPT)
    u = numpyro.sample("u", dist.Normal(0, tau).expand([LEVELS]).to_event(1))
    w = numpyro.sample("w", dist.Normal(0, omega).expand([LEVELS]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + u[first] + w[second], sigma), obs=y)


def _schedule(marg):
    (density,) = {
        node.density for node in marg.program(FIRST, SECOND, Y).nodes if hasattr(node, "density")
    }
    return density.schedule


@pytest.fixture
def by_rounds(monkeypatch):
    """The crossed model with every level by itself, and the root as if it were dear."""
    monkeypatch.setattr(degree, "root_seconds", lambda size: 1e-6 * size**3)
    return autmarg.transform(crossed, marginalize="all")


def test_rounds_leave_a_small_root(by_rounds):
    stages = _schedule(by_rounds).stages
    rounds = [s for s in stages[1:] if isinstance(s, BatchedBlocks)]
    assert len(rounds) >= 3
    assert stages[-1].size < LEVELS / 4
    assert sum(s.size for s in stages) == 2 * LEVELS + 1


@pytest.mark.slow
def test_the_identity_holds(by_rounds):
    assert autmarg.verify(by_rounds, FIRST, SECOND, Y, points=2).exact


@pytest.mark.slow
def test_values_gradients_and_moments_are_those_of_a_dense_root(by_rounds, monkeypatch):
    monkeypatch.setattr(order, "rounds", lambda pattern: ([], pattern))
    dense = autmarg.transform(crossed, marginalize="all")

    def both(marg):
        density = numpyro.infer.util.log_density
        value = lambda kept: density(marg, (FIRST, SECOND, Y), {}, kept)[0]  # noqa: E731
        samples = {name: np.array([x]) for name, x in KEPT.items()}
        moments = marg.recover(jax.random.key(0), samples, FIRST, SECOND, Y, moments=True)
        return jax.value_and_grad(value)(KEPT), moments

    expected = both(dense)
    assert len(_schedule(dense).stages) == 2
    monkeypatch.undo()
    monkeypatch.setattr(degree, "root_seconds", lambda size: 1e-6 * size**3)
    found = both(by_rounds)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_full_root_has_no_rounds():
    everywhere = np.divmod(np.arange(60 * 40), 40)

    def full(y=None):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([60]).to_event(1))
        w = numpyro.sample("w", dist.Normal(0, 1).expand([40]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        numpyro.sample("y", dist.Normal(u[everywhere[0]] + w[everywhere[1]], sigma), obs=y)

    plan = autmarg.transform(full, marginalize="all").plan(np.zeros(2400))
    assert "60 blocks of 1" in str(plan) and "dense root of 40" in str(plan)
