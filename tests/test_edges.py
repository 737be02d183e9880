"""Sizes at the edges: groups of many effects, and sites, designs and groups without elements."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.plan import order
from tests.generator.identity import identity

pytestmark = pytest.mark.usefixtures("quick_compilation")

_RNG = np.random.default_rng(5)
N, GROUPS, MANY = 12, 3, 7
G = np.arange(N) % GROUPS
Y, X = _RNG.normal(size=N), _RNG.normal(size=(N, MANY))


def scale():
    return numpyro.sample("s", dist.HalfNormal(1.0))


def correlated_effects(s):
    with numpyro.plate("groups", GROUPS):
        tril = s * jnp.eye(MANY) + jnp.tri(MANY, k=-1)
        return numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(MANY), scale_tril=tril))


def independent_effects(s):
    with numpyro.plate("groups", GROUPS):
        return numpyro.sample("u", dist.Normal(0, s).expand([MANY]).to_event(1))


@pytest.mark.parametrize("effects", [correlated_effects, independent_effects])
@pytest.mark.parametrize("beside", ["nothing", "one group", "another site"])
def test_groups_of_more_effects_than_are_written_out(effects, beside, monkeypatch):
    """Seven effects a group are factorised by LAPACK: also where no later column meets them."""
    monkeypatch.setattr(order, "SMALL_ROOT", 0)  # these would go into one dense root

    def model():
        s = scale()
        mean = (X * effects(s)[G]).sum(-1)
        if beside == "one group":
            mean += numpyro.sample("a", dist.Normal(0, 1)) * (G == 0)
        if beside == "another site":
            b = numpyro.sample("b", dist.Normal(0, 1))
            numpyro.sample("z", dist.Normal(b, s), obs=Y)
        numpyro.sample("y", dist.Normal(mean, s), obs=Y)

    marg = autmarg.transform(model, marginalize="all")
    assert "blocks of" in str(marg.plan())
    found = identity(marg)
    assert np.abs(found.errors).max() < found.tolerance
