"""Latents whitened in pieces: the exact density, and noise that is standard at the mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.ir.nodes import Recover
from autmarg.whitening.turn import turned
from tests.support.lanes import lanes
from tests.whitening.models import MODELS

RNG = np.random.default_rng(7)
ROWS, LEFT, RIGHT = 400, 40, 30
I, J, X = RNG.integers(0, LEFT, ROWS), RNG.integers(0, RIGHT, ROWS), RNG.normal(size=ROWS)
MEAN = 0.5 + 0.4 * X + RNG.normal(size=LEFT)[I] + 0.7 * RNG.normal(size=RIGHT)[J]
COUNTS = RNG.poisson(np.exp(MEAN))


def crossed() -> None:
    """Counts with two crossed random effects; the mean of one is estimated."""
    b = numpyro.sample("b", dist.Normal(0, 2))
    c = numpyro.sample("c", dist.Normal(0, 2))
    s = numpyro.sample("s", dist.HalfNormal(1))
    t = numpyro.sample("t", dist.HalfNormal(1))
    with numpyro.plate("left", LEFT):
        u = numpyro.sample("u", dist.Normal(c, s))
    with numpyro.plate("right", RIGHT):
        v = numpyro.sample("v", dist.Normal(0, t))
    numpyro.sample("y", dist.Poisson(jnp.exp(b * X + u[I] + v[J])), obs=COUNTS)


def linked() -> None:
    """The same factors, and real numbers that read both of them."""
    s = numpyro.sample("s", dist.HalfNormal(1))
    t = numpyro.sample("t", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, s).expand([LEFT]))
    v = numpyro.sample("v", dist.Normal(0, t).expand([RIGHT]))
    numpyro.sample("x", dist.Normal(u[I] + v[J], 1), obs=MEAN)
    numpyro.sample("y", dist.Poisson(jnp.exp(u[I] + v[J])), obs=COUNTS)


def nested() -> None:
    """Counts with a deviation of each row in groups, of which the data say little."""
    s = numpyro.sample("s", dist.HalfNormal(1))
    t = numpyro.sample("t", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, s).expand([LEFT]))
    e = numpyro.sample("e", dist.Normal(0, t).expand([ROWS]))
    numpyro.sample("y", dist.Poisson(jnp.exp(u[I] + e)), obs=COUNTS)


def pieces(model: Callable[[], None]) -> set[tuple[str, ...]]:
    plan = autmarg.transform(model, nongaussian="whiten").plan()
    return {n.piece for group in plan.groups for n in group.stand_ins}


@pytest.fixture(scope="module")
def marg() -> autmarg.MarginalizedModel:
    return autmarg.transform(crossed, nongaussian="whiten")


def test_what_the_prior_connects_is_a_piece(marg: autmarg.MarginalizedModel) -> None:
    assert {n.piece for n in marg.plan().groups[0].stand_ins} == {("b",), ("c", "u"), ("v",)}
    assert "in pieces: b; c, u; v" in str(marg.plan())


def test_rows_that_stay_connect() -> None:
    assert pieces(linked) == {()}


def test_nested_levels_stay_together() -> None:
    """Where what pieces have to do with one another changes with the scales."""
    assert pieces(nested) == {()}


def test_noise_is_standard_near_the_mode(marg: autmarg.MarginalizedModel) -> None:
    """With the pieces' joint precision; by themselves they are far from independent."""
    ((noise, size),) = marg.plan().noise.items()

    def log_p(z: Any) -> Any:
        return log_density(marg, (), {}, {"s": 1.0, "t": 0.7, noise: z})[0]

    slope, curve = jax.jit(lambda z: (jax.grad(log_p)(z), jax.hessian(log_p)(z)))(jnp.zeros(size))
    assert np.abs(slope).max() < 0.2
    assert np.linalg.cond(-curve) < 1.5
    (turn,) = (n.density.turn for n in marg.program().nodes if isinstance(n, Recover))
    apart = np.linalg.inv(jax.jacfwd(turn)(jnp.zeros(size)))
    assert np.linalg.cond(apart.T @ -curve @ apart) > 10


@pytest.mark.slow
@pytest.mark.parametrize("counts", [True, False])
def test_the_default_takes_pieces_where_the_data_know_the_effects(counts: bool) -> None:
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 400, 5000), rng.integers(0, 300, 5000)
    mean = 1 + 0.7 * rng.normal(size=400)[i] + 0.9 * rng.normal(size=300)[j]
    data = rng.poisson(np.exp(mean)) if counts else rng.random(5000) < 1 / (1 + np.exp(-mean))

    def model() -> None:
        a = numpyro.sample("a", dist.Normal(0, 2))
        s = numpyro.sample("s", dist.HalfNormal(1))
        t = numpyro.sample("t", dist.HalfNormal(1))
        u = numpyro.sample("u", dist.Normal(0, s).expand([400]))
        v = numpyro.sample("v", dist.Normal(0, t).expand([300]))
        at = a + u[i] + v[j]
        likelihood = dist.Poisson(jnp.exp(at)) if counts else dist.Bernoulli(logits=at)
        numpyro.sample("y", likelihood, obs=data)

    plan = autmarg.transform(model).plan()
    assert [group.pieces for group in plan.groups] == ([(("a",), ("u",), ("v",))] if counts else [])


@pytest.mark.usefixtures("always_in_pieces")
@pytest.mark.parametrize("name", lanes(MODELS, ("poisson",)))
def test_exact(name: str) -> None:
    """In pieces too small to pay, too."""
    assert autmarg.verify(MODELS[name], nongaussian="whiten", points=5, quiet=True).exact


def test_a_turn_is_what_its_matrix_says() -> None:
    """x = (z₁, 0) + B z₂ whitens a quadratic whose first block is the identity."""
    rng = np.random.default_rng(0)
    second = np.array([False, True, True, False, False, True])
    crossed = 0.3 * rng.normal(size=(3, 3))
    precision = np.zeros((6, 6))
    precision[np.ix_(~second, ~second)] = np.eye(3)
    precision[np.ix_(~second, second)] = crossed
    precision[np.ix_(second, ~second)] = crossed.T
    precision[np.ix_(second, second)] = np.eye(3)
    turn = turned(lambda x: precision @ x + 1.0, second)
    jacobian = np.asarray(jax.jacfwd(turn)(jnp.zeros(6)))
    assert np.allclose(jacobian.T @ precision @ jacobian, np.eye(6), atol=1e-8)
    assert turn.log_det == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-12)
    vector = rng.normal(size=6)
    assert np.allclose(turn.transposed(vector), jacobian.T @ vector)
