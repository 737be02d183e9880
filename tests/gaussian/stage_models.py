"""One small model for each elimination stage, with scales q, t and s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autmarg
from autmarg.plan import order

GROUP = np.array([0, 1, 2, 0, 1, 2, 0, 0, 3, 3])
X = np.linspace(-1, 2, 10)
Y = np.array([0.3, -1.2, 0.8, 2.2, 0.1, 1.9, -0.4, 0.7, 3.1, 0.2])
XS = np.linspace(-1, 1, 30)
YS = np.sin(np.arange(120.0)).reshape(4, 30)


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


def crowded():
    """A walk that many rows read at every step, besides a slope."""
    q, t, s = scales()
    slope = numpyro.sample("slope", dist.Normal(0, q))

    def step(before, y):
        x = numpyro.sample("x", dist.Normal(before, t))
        return x, numpyro.sample("y", dist.Normal(x + slope * XS, s), obs=y)

    scan(step, 0.0, YS, length=4)


def seasonal():
    """A season of four, whose state has three elements, with a level."""
    q, t, s = scales()

    def step(carry, y):
        level, season = carry
        level = numpyro.sample("level", dist.Normal(level, q))
        new = numpyro.sample("season", dist.Normal(-season.sum(), t))
        numpyro.sample("y", dist.Normal(level + new, s), obs=y)
        return (level, jnp.concatenate([new[None], season[:-1]])), None

    scan(step, (0.0, jnp.zeros(3)), Y, length=10)


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
    "dense root": Stage(grouped, "dense root of 9", {"UNROLL": 9}),
    "batched blocks": Stage(grouped, "4 blocks of 2", {"SMALL_ROOT": 0}),
    "chain": Stage(walking, "1 chain of 6 steps", {}),
    "states of a mean": Stage(summing, "1 chain of 10 steps, states of 1", {}),
    "written out": Stage(walking, "6 states written out", {"in_time": nothing_in_time}),
    "many rows a step": Stage(crowded, "1 chain of 4 steps", {"SMALL_ROOT": 0}),
    "a season": Stage(seasonal, "1 chain of 10 steps, states of 4", {}),
    "correlated noise": Stage(process, "dense root of 2", {}),
}


def planned(name: str, monkeypatch: pytest.MonkeyPatch) -> autmarg.MarginalizedModel:
    """The model of a stage, transformed; its plan has the stage."""
    stage = STAGES[name]
    for attribute, value in stage.forced.items():
        monkeypatch.setattr(order, attribute, value)
    marg = autmarg.transform(stage.model, marginalize="all")
    structure = [text for group in marg.plan().groups for text in group.structure]
    assert any(stage.structure in text for text in structure), structure
    return marg
