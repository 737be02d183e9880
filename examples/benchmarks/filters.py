"""Chains: the filters of the transformed program beside dynamax's on the same model."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

import autmarg
from examples.benchmarks.gradients import AWAY, moving
from examples.benchmarks.measure import alternate

STEPS = (1_000, 10_000, 100_000)
_INITIAL = 10.0  # sd of the first state


def scales_of(states: int) -> tuple[str, ...]:
    """Names of the scales of the states' innovations, and of the noise."""
    return (*("level", "slope")[:states], "noise")


def state_space(states: int, y: Any) -> None:
    """A random walk (one state) or a local linear trend (two), observed with noise."""
    scales = [numpyro.sample(name, dist.HalfNormal(1)) for name in scales_of(states)]

    def step(carry: tuple[Any, ...], observed: Any) -> tuple[tuple[Any, ...], None]:
        slope = carry[1:]
        after = [numpyro.sample("b", dist.Normal(slope[0], scales[1]))] if slope else []
        mean = numpyro.sample("x", dist.Normal(sum(carry), scales[0]))
        numpyro.sample("y", dist.Normal(mean, scales[-1]), obs=observed)
        return (mean, *after), None

    first = [numpyro.sample(f"x{k}", dist.Normal(0, _INITIAL)) for k in range(states)]
    scan(step, tuple(first), y)


def filters(states: int, steps: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row a filter: microseconds of log p(y, scales) with its gradient."""
    rng = np.random.default_rng(0)
    y = jnp.asarray(np.cumsum(0.5 * rng.normal(size=steps)) + rng.normal(size=steps))
    functions: dict[str, Callable[[Any], Any]] = {
        f"autmarg, {chains}": _transformed(states, y, chains)
        for chains in ("sequential", "parallel")
    }
    if find_spec("dynamax") is not None:
        functions["dynamax"] = _dynamax(states, y)
    point = jnp.array([0.5, 0.1, 1.0] if states == 2 else [0.5, 1.0])
    loops, first = [], []
    for function in functions.values():
        loop = moving(jax.value_and_grad(function))
        loops.append(lambda count, loop=loop: jax.block_until_ready(loop(point, count, AWAY)))
        started = time.perf_counter()
        _, value = loops[-1](1)
        first.append((time.perf_counter() - started, float(value)))
    times = alternate(loops, rounds, seconds)
    return [
        {"states": states, "steps": steps, "filter": name, "us": t.median * 1e6}
        | {"us_min": t.least * 1e6, "us_max": t.most * 1e6, "ratio": t.median / times[0].median}
        | {"first_s": taken, "log_density": value}
        for name, t, (taken, value) in zip(functions, times, first, strict=True)
    ]


def _transformed(states: int, y: Any, chains: str) -> Callable[[Any], Any]:
    marg = autmarg.transform(partial(state_space, states), chains=chains)
    marg.plan(y)

    def density(scales: Any) -> Any:
        return log_density(marg, (y,), {}, dict(zip(scales_of(states), scales, strict=True)))[0]

    return density


def _dynamax(states: int, y: Any) -> Callable[[Any], Any]:
    from dynamax.linear_gaussian_ssm import lgssm_filter
    from dynamax.linear_gaussian_ssm.inference import make_lgssm_params

    transition = jnp.eye(states).at[0, -1].set(1.0)
    emission = jnp.eye(1, states)
    first = _INITIAL**2 * transition @ transition.T

    def density(scales: Any) -> Any:
        noise = jnp.diag(scales[:-1] ** 2)
        params = make_lgssm_params(
            jnp.zeros(states), first + noise, transition, noise, emission, scales[-1:, None] ** 2
        )
        filtered = lgssm_filter(params, y[:, None])
        return filtered.marginal_loglik + dist.HalfNormal(1).log_prob(scales).sum()

    return density
