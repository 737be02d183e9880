"""However blocks meet later columns, density and slope are the same numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.gaussian.stages import BatchedBlocks, meetings
from autmarg.gaussian.stages.meetings import Aligned, Dense, Scattered
from autmarg.plan import order

RNG = np.random.default_rng(0)
ROWS, GROUP = 30, np.arange(30) % 7
X, Y = RNG.normal(size=(2, 30))
LONELY = np.where(np.arange(ROWS) < 4, 0.0, 1.0)  # rows that read no group: fewer meetings
POINT = {name: jnp.asarray(0.7 + 0.1 * k) for k, name in enumerate("sptv")}


def model() -> None:
    """Two effects of each row, read twice, beside groups and fixed effects."""
    s, p, t, v = (numpyro.sample(name, dist.HalfNormal(1)) for name in "sptv")
    a = numpyro.sample("a", dist.Normal(0, 2).expand([2]).to_event(1))
    with numpyro.plate("groups", 7):
        u = numpyro.sample("u", dist.Normal(0, t))
    with numpyro.plate("rows", ROWS):
        w = numpyro.sample("w", dist.Normal(0, jnp.stack([s, p])).to_event(1))
    mean = a[0] + a[1] * X + LONELY * u[GROUP] + w[:, 0]
    numpyro.sample("y", dist.Normal(mean, v), obs=Y)
    numpyro.sample("z", dist.Normal(mean * 0.5 + w[:, 1], v), obs=X)


def found(monkeypatch: pytest.MonkeyPatch, kind: type, **limits: float) -> dict[str, Any]:
    """With the blocks of rows meeting others in one of the ways."""
    monkeypatch.setattr(order, "SMALL_ROOT", 0)
    for name, value in limits.items():
        monkeypatch.setattr(meetings, name, value)
    marg = autmarg.transform(model, marginalize="all")
    (group,) = marg.plan().groups
    first = group.schedule.stages[0]
    assert isinstance(first, BatchedBlocks)
    assert first.blocks == ROWS
    assert type(first.meets) is kind
    value, slope = jax.jit(jax.value_and_grad(lambda p: log_density(marg, (), {}, p)[0]))(POINT)
    draws = marg.recover(jax.random.key(0), {name: x[None] for name, x in POINT.items()})
    return {"value": value, "slope": slope, "draws": draws}


@pytest.mark.slow
def test_all_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = found(monkeypatch, Aligned, _SCATTER_COST=0)
    scattered = found(monkeypatch, Scattered, _SCATTER_COST=0, _SLOTS=0)
    dense = found(monkeypatch, Dense, _SCATTER_COST=1e6)
    del dense["draws"]  # its later columns go in another order, and have other noise
    for other in (scattered, dense):
        for one, two in zip(
            jax.tree.leaves({name: aligned[name] for name in other}),
            jax.tree.leaves(other),
            strict=True,
        ):
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)
