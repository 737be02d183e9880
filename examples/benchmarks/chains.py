"""What a gradient of several chains at once costs: ``chain_method="vectorized"``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from examples.benchmarks.gradients import AWAY, approach, energy, moving, potential
from examples.benchmarks.measure import alternate
from examples.benchmarks.methods import Method
from examples.benchmarks.sets import Set

_APART = 1e-3  # between the chains' points, in standard deviations of their noise


def chains(
    data: Set, m: Method, counts: Sequence[int], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row a number of chains: microseconds of all their gradients together.

    ``each`` is the time for a chain as a share of what one chain costs that is not vectorised.
    """
    single = potential(m.model, data.args)
    point = approach(single)
    _, both = energy(m.model, data.args)
    together = moving(jax.vmap(both))
    noise = _APART * jax.random.normal(jax.random.key(0), (max(counts), len(point)))
    points = [point + noise[:count] for count in counts]
    calls = [lambda steps: jax.block_until_ready(single.loop(point, steps, AWAY))]
    calls += [
        lambda steps, p=p: jax.block_until_ready(together(jnp.asarray(p), steps, AWAY))
        for p in points
    ]
    first, *times = alternate(calls, rounds, seconds)
    return [
        {
            "set": data.name,
            "method": m.name,
            "dims": single.dimensions,
            "chains": count,
            "us": t.median * 1e6,
            "us_min": t.least * 1e6,
            "us_max": t.most * 1e6,
            "each": t.median / count / first.median,
        }
        for count, t in zip(counts, times, strict=True)
    ]
