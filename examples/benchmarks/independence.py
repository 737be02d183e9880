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
    posterior = marg.sample(jax.random.key(0), *data.args, num_samples=draws, num_chains=chains)
    jax.block_until_ready(marg.recover(jax.random.key(1), posterior, progress=False))
    first = time.perf_counter() - started
    rows = []
    for seed in range(1, seeds + 1):
        key = jax.random.key(seed)
        posterior = marg.sample(key, *data.args, num_samples=draws, num_chains=chains)
        started = time.perf_counter()
        recovered = marg.recover(key, posterior, progress=False)
        everything = jax.device_get(jax.block_until_ready(recovered))
        recovery = time.perf_counter() - started
        rows.append(_row(data, seed, posterior, everything, recovery, first))
    return rows


def _row(
    data: Set, seed: int, posterior: autmarg.Posterior, draws: Any, recovery: float, first: float
) -> dict[str, Any]:
    quality, latents = posterior.quality, {n: x for n, x in draws.items() if np.size(x)}
    ess, site = min_ess(latents)
    seconds = {k: v for k, v in quality.seconds.items() if k not in _ONCE}
    count = posterior.num_chains * posterior.num_samples
    return {
        "set": data.name,
        "method": posterior.method,
        "seed": seed,
        "draws": count,
        "min_ess": ess,
        "at": site,
        "ess_per_s": ess / (sum(seconds.values()) + recovery),
        "adapt_s": seconds.get("mode", 0.0) + seconds.get("adapt", 0.0),
        "sample_s": seconds.get("sample", 0.0) + seconds.get("sites", 0.0),
        "recover_s": recovery,
        "densities": quality.evaluations,
        "accepted": quality.acceptance,
        "k_hat": quality.pareto_shape,
        "first_s": first,
    }
