"""``marg.sample``: effective draws a second with adaptation and recovery, and by which method."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

import autmarg
from examples.benchmarks.measure import min_ess
from examples.benchmarks.sets import Set

_ONCE = ("plan", "trace", "compile")  # phases that a second call does not repeat, or hardly


def independence(data: Set, seeds: int, draws: int, chains: int) -> list[dict[str, Any]]:
    """One row for each seed; the first call compiles and is left out of all but ``first_s``."""
    marg = autmarg.transform(data.source)
    started = time.perf_counter()
    sampled(marg, data.args, jax.random.key(0), draws, chains)
    first = time.perf_counter() - started
    rows = []
    for seed in range(1, seeds + 1):
        posterior, everything, recovery = sampled(
            marg, data.args, jax.random.key(seed), draws, chains
        )
        rows.append(_row(data, seed, posterior, everything, recovery, first))
    return rows


def sampled(
    marg: Any, args: tuple[Any, ...], key: Any, draws: int, chains: int
) -> tuple[autmarg.Posterior, dict[str, Any], float]:
    """What ``marg.sample`` returns, draws of all latents, and the seconds that these took."""
    posterior = marg.sample(key, *args, num_samples=draws, num_chains=chains)
    started = time.perf_counter()
    recovered = marg.recover(key, posterior, progress=False)
    everything = jax.device_get(jax.block_until_ready(recovered))
    return posterior, everything, time.perf_counter() - started


def rate(posterior: autmarg.Posterior, draws: Any, recovery: float) -> tuple[float, str, float]:
    """The least effective size over all latents, of which, and how many of it a second."""
    ess, site = min_ess({n: x for n, x in draws.items() if np.size(x)})
    seconds = sum(s for phase, s in posterior.quality.seconds.items() if phase not in _ONCE)
    return ess, site, ess / (seconds + recovery)


def _row(
    data: Set, seed: int, posterior: autmarg.Posterior, draws: Any, recovery: float, first: float
) -> dict[str, Any]:
    quality, (ess, site, per_second) = posterior.quality, rate(posterior, draws, recovery)
    seconds = quality.seconds
    count = posterior.num_chains * posterior.num_samples
    return {
        "set": data.name,
        "method": posterior.method,
        "seed": seed,
        "draws": count,
        "min_ess": ess,
        "at": site,
        "ess_per_s": per_second,
        "adapt_s": seconds.get("mode", 0.0) + seconds.get("adapt", 0.0),
        "sample_s": seconds.get("sample", 0.0) + seconds.get("sites", 0.0),
        "recover_s": recovery,
        "densities": quality.evaluations,
        "accepted": quality.acceptance,
        "k_hat": quality.pareto_shape,
        "first_s": first,
    }
