"""Reverse and forward mode, Hessians, jit and vmap of the density, with every stage.

One compiled function maps value and gradient over a point and its neighbours, so that gradient and
Hessian are held against central differences of what is one order lower; values themselves are held
against a dense Gaussian in tests/programs/test_dense.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

import autmarg
from autmarg.plan import order

GROUP = np.array([0, 1, 2, 0, 1, 2, 0, 0, 3, 3])
X = np.linspace(-1, 2, 10)
Y = np.array([0.3, -1.2, 0.8, 2.2, 0.1, 1.9, -0.4, 0.7, 3.1, 0.2])
STEP = 1e-5


def scales() -> list[Any]:
    return [numpyro.sample(name, dist.HalfNormal(1.0)) for name in "qts"]


def grouped():
    q, t, s = scales()
    a = numpyro.sample("a", dist.Normal(0, 2))
    factor = jnp.stack([jnp.stack([t, 0 * t]), jnp.stack([0.5 * t, q])])
    u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), scale_tril=factor).expand([4]))
    numpyro.sample("y", dist.Normal(a + u[GROUP, 0] + X * u[GROUP, 1], s), obs=Y)


def walking():
    q, t, s = scales()

    def step(before, y):
        x = numpyro.sample("x", dist.Normal(q * before, t))
        return x, numpyro.sample("y", dist.Normal(x, s), obs=y)

    scan(step, 0.0, Y[:6], length=6)


def summing():
    q, t, s = scales()
    z = numpyro.sample("z", dist.Normal(0, q).expand([10]))
    numpyro.sample("y", dist.Normal(jnp.cumsum(t * z), s), obs=Y)


def process():
    q, t, s = scales()
    beta = numpyro.sample("beta", dist.Normal(0, t).expand([2]))
    kernel = jnp.exp(-(((X[:, None] - X) / q) ** 2)) + s * jnp.eye(10)
    numpyro.sample("y", dist.MultivariateNormal(beta[0] + X * beta[1], kernel), obs=Y)


pytestmark = pytest.mark.usefixtures("quick_compilation")


@dataclass(frozen=True)
class Stage:
    """A model, what its plan is made to be, and what a stage of it is called."""

    model: Callable[[], Any]
    structure: str
    forced: dict[str, Any]


def nothing_in_time(*_: Any) -> dict[int, Any]:
    """No recurrence is filtered."""
    return {}


STAGES = {
    "dense root": Stage(grouped, "dense root of 9", {}),
    "batched blocks": Stage(grouped, "4 blocks of 2", {"SMALL_ROOT": 0}),
    "chain": Stage(walking, "1 chains of 6 steps", {}),
    "states of a mean": Stage(summing, "1 chains of 10 steps, states of 1", {}),
    "written out": Stage(walking, "6 states written out", {"in_time": nothing_in_time}),
    "correlated noise": Stage(process, "dense root of 2", {}),
}


@pytest.mark.parametrize("name", STAGES)
def test_derivatives(name, monkeypatch):
    stage = STAGES[name]
    for attribute, value in stage.forced.items():
        monkeypatch.setattr(order, attribute, value)
    marg = autmarg.transform(stage.model)
    costs = [cost.structure for group in marg.plan().groups for cost in group.costs]
    assert any(stage.structure in text for text in costs), costs

    def density(point):
        return log_density(marg, (), {}, dict(zip("qts", point, strict=True)))[0]

    point = jnp.array([0.8, 1.1, 0.6])
    near = STEP * jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3), -jnp.eye(3)])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(density)))(point + near)
    alone, forward, hessian = jax.jit(
        lambda x: (density(x), jax.jacfwd(density)(x), jax.hessian(density)(x))
    )(point)
    np.testing.assert_allclose(alone, values[0], rtol=1e-12)
    np.testing.assert_allclose(forward, gradients[0], rtol=1e-10)
    differences = (values[1:4] - values[4:]) / (2 * STEP)
    np.testing.assert_allclose(gradients[0], differences, rtol=1e-7, atol=1e-7)
    differences = (gradients[1:4] - gradients[4:]) / (2 * STEP)
    np.testing.assert_allclose(hessian, differences, rtol=1e-7, atol=1e-7)
