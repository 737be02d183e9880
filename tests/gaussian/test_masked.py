"""Latents under a mask that no density reads: drawn from their own prior, and never counted.

Their log-density must be left out as it stands: one at values that were rounded differs from it by
as much as rounding moves a standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
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
from tests.support.lanes import lanes

SCALE = 1e-6  # of means of 0.4: a rounding in single precision is a 30th of it
FACTOR = np.array([[1.0, 0.0], [0.3, 1.0]])
Y = np.sin(np.arange(4.0))


def elements(s: Any) -> None:
    numpyro.sample("u", dist.Normal(0.4, s).expand([4]).mask(False))


def vectors(s: Any) -> None:
    fn = dist.MultivariateNormal(np.full(2, 0.4), scale_tril=s * FACTOR)
    numpyro.sample("u", fn.expand([3]).mask(False))


def singular(s: Any) -> None:
    numpyro.sample("u", dist.ZeroSumNormal(s, event_shape=(4,)).expand([2]).mask(False))


def walk(s: Any) -> None:
    numpyro.sample("u", dist.GaussianRandomWalk(s, num_steps=3).mask(False))


def one_reads_another(s: Any) -> None:
    first = numpyro.sample("u", dist.Normal(0.4, s).mask(False))
    numpyro.sample("v", dist.Normal(2.0 * first, s).expand([3]).mask(False))


LATENTS = [elements, vectors, singular, walk, one_reads_another]


@pytest.mark.parametrize("latents", lanes(LATENTS, {*LATENTS} - {walk}))
@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
def test_no_density(latents: Callable[[Any], None], double: bool):
    """None, of a draw as its noise has it and of any values, but for a rounding of the noise."""

    def model():
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        latents(s)
        numpyro.sample("y", dist.Normal(0.0, s), obs=Y)

    with jax.enable_x64(double):
        marg = autmarg.transform(model, marginalize="all")
        compiled, traced = marg.compiled()
        assert compiled.plan.kept == ("s",)

        def both(s: Any) -> tuple[Any, Any]:
            drawn, density = compiled.recovery.draw_with_density(
                jax.random.key(0), {"s": s}, traced
            )
            return density, compiled.recovery.log_conditional({**traced, "s": s}, drawn)

        density, formula = jax.jit(both)(jnp.asarray(SCALE))
        assert formula == 0.0
        assert abs(density) <= (1e-14 if double else 1e-6)


def in_part(s: Any) -> None:
    """Masked elements of different scales, one of which is read and has a flat prior."""
    scales = s * np.array([1.0, 2.0, 3.0, 4.0])
    u = numpyro.sample("u", dist.Normal(0.4, scales).mask(np.array([True, False, True, False])))
    numpyro.sample("y", dist.Normal(u[np.array([0, 1, 1, 2])], 0.5), obs=Y)


def beside_a_state(s: Any) -> None:
    """In the steps of a chain that is seen: its draws mix the noise of both."""

    def step(state: Any, y: Any) -> Any:
        x = numpyro.sample("x", dist.Normal(state[0], 0.3))
        w = numpyro.sample("w", dist.Normal(0.5 * state[1] + x, s).mask(False))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
        return (x, w), None

    scan(step, (0.4, 0.4), Y)


def walks_in_part(s: Any) -> None:
    walks = dist.GaussianRandomWalk(s, num_steps=4).expand([2]).mask(np.array([True, False]))
    u = numpyro.sample("u", walks)
    numpyro.sample("y", dist.Normal(u[0], 0.5), obs=Y)


OTHERS = [in_part, beside_a_state, walks_in_part]


@pytest.mark.parametrize("latents", lanes(OTHERS, {*OTHERS} - {walks_in_part}))
def test_beside_others(latents: Callable[[Any], None]):
    """The identity, at a scale at which values have half of their digits."""

    def model():
        latents(numpyro.sample("s", dist.HalfNormal(1.0)))

    marg = autmarg.transform(model, marginalize="all")
    compiled, traced = marg.compiled()
    assert compiled.plan.kept == ("s",)

    def error(s: Any) -> Any:
        drawn, density = compiled.recovery.draw_with_density(jax.random.key(0), {"s": s}, traced)
        source = log_density(model, (), {}, {"s": s, **drawn})[0]
        return source - log_density(marg, (), {}, {"s": s})[0] - density

    rounding = 1e-4 if latents is in_part else 1e-9  # of what the source counts at these values
    assert abs(jax.jit(error)(jnp.asarray(1e-10))) < rounding
