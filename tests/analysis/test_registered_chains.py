"""Chains of classes of a user's own: a transition and innovations, filtered in time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import autmarg
from autmarg.analysis.families import FAMILIES
from tests.support.generator.identity import identity
from tests.support.lanes import lanes

T = 20
Y = np.cumsum(np.random.default_rng(9).normal(size=(2, T)), 1)


class Reverting(dist.Distribution):
    """x_t = a x_{t-1} + drift + s ε_t from ``start``."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("a", "drift", "s", "start")

    def __init__(self, a: Any, drift: Any, s: Any, start: Any) -> None:
        self.a, self.drift, self.s, self.start = a, drift, s, start
        super().__init__((), (T,), validate_args=False)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        start = jnp.broadcast_to(self.start, value[..., :1].shape)
        before = jnp.concatenate([start, value[..., :-1]], -1)
        return dist.Normal(self.a * before + self.drift, self.s).log_prob(value).sum(-1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        noise = jax.random.normal(key, (*sample_shape, T)) * self.s + self.drift

        def step(x: Any, e: Any) -> Any:
            x = self.a * x + e
            return x, x

        start = jnp.broadcast_to(self.start, sample_shape)
        return jnp.moveaxis(jax.lax.scan(step, start, jnp.moveaxis(noise, -1, 0))[1], 0, -1)


class Vectors(dist.Distribution):
    """x_t = A x_{t-1} + L ε_t from zero, x_t of two numbers."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real_matrix
    pytree_data_fields = ("matrix", "factor")

    def __init__(self, matrix: Any, factor: Any) -> None:
        self.matrix, self.factor = matrix, factor
        super().__init__((), (T, 2), validate_args=False)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        before = jnp.concatenate([jnp.zeros_like(value[..., :1, :]), value[..., :-1, :]], -2)
        rows = dist.MultivariateNormal(before @ self.matrix.T, scale_tril=self.factor)
        return rows.log_prob(value).sum(-1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jax.random.normal(key, (*sample_shape, T, 2))  # of which the shape is read here


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    autmarg.register_gaussian(
        Reverting,
        lambda d: autmarg.Gaussian.chain(d.a, scale=d.s, loc=d.drift, initial=d.start),
    )
    autmarg.register_gaussian(
        Vectors, lambda d: autmarg.Gaussian.chain(d.matrix, scale_tril=d.factor)
    )
    yield
    for kind in (Reverting, Vectors):
        del FAMILIES[kind]


def numbers():
    s, o, a = (numpyro.sample(n, dist.HalfNormal(1.0)) for n in ("s", "s_noise", "s_a"))
    drift, start = (numpyro.sample(n, dist.Normal(0, 1)) for n in ("drift", "start"))
    x = numpyro.sample("x", Reverting(0.5 * a, drift, s, start))
    numpyro.sample("y", dist.Normal(x, o), obs=Y[0])


def vectors():
    s, o = (numpyro.sample(n, dist.HalfNormal(1.0)) for n in ("s", "s_noise"))
    factor = s * jnp.array([[1.0, 0.0], [0.3, 0.5]])
    x = numpyro.sample("x", Vectors(jnp.array([[0.5, 0.2], [0.0, 0.7]]), factor))
    numpyro.sample("y", dist.Normal(x.T, o), obs=Y)


@pytest.mark.parametrize("model", lanes([numbers, vectors], quick=[vectors]))
def test_exact_and_filtered(model: Callable[..., Any]):
    marg = autmarg.transform(model, marginalize="all")
    found = identity(marg)
    plan = marg.plan()
    assert "x" in plan.integrated
    assert np.abs(found.errors).max() <= found.tolerance
    assert any(re.search("chains? of 20 steps", e.structure) for e in plan.entries)


@pytest.mark.parametrize(
    ("transition", "options", "words"),
    [
        (0.5, {}, "scale missing and scale_tril missing"),
        (0.5, {"scale_tril": np.eye(2)}, "beside a matrix"),
        (np.eye(2), {"scale": 1.0, "scale_tril": np.eye(2)}, "scale given and scale_tril given"),
        (np.ones(3), {"scale": 1.0}, r"found shape \(3,\)"),
    ],
)
def test_what_is_no_chain(transition: Any, options: dict[str, Any], words: str):
    with pytest.raises(autmarg.ModelError, match=words):
        autmarg.Gaussian.chain(transition, **options)
