"""Posteriors of ``marg.sample`` against long runs of NumPyro's own NUTS, in standard errors.

NUTS samples the model with everything integrated out, from NumPyro's start, in NumPyro's loop.
Compared are the mean and the log of the standard deviation of each scalar that both sampled. What
is recovered from them is the same function of either.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC

import autmarg
from examples.agreement import scalars, summary
from examples.benchmarks.sets import Set

BOUND = 4.0  # Monte-Carlo standard errors
CHAINS = 4


def agreement(data: Set, seed: int, warmup: int, draws: int) -> dict[str, Any]:
    """One row: the largest differences, and how many were looked at."""
    marg = autmarg.transform(data.source)
    started = time.perf_counter()
    key = jax.random.key(seed)
    found = marg.sample(key, *data.args, num_samples=draws, num_chains=CHAINS)
    sampled = time.perf_counter()
    kernel = autmarg.transform(data.source, marginalize="all").nuts()
    mcmc = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=CHAINS,
        chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(seed + 1000), *data.args)
    run = scalars(jax.device_get(mcmc.get_samples(group_by_chain=True)))
    finished = time.perf_counter()
    own = scalars(jax.device_get(found.get_samples(group_by_chain=True)))
    return {
        "set": data.name,
        "method": found.method,
        **_differences({n: (x, run[n]) for n, x in own.items() if n in run}),
        "div": int(mcmc.get_extra_fields()["diverging"].sum()),
        "sample_s": sampled - started,
        "nuts_s": finished - sampled,
        "why": found.reason,
    }


def _differences(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """The largest |z| of the means and of the log deviations of draws [chain, draw] by scalar."""
    scores: dict[str, list[tuple[float, str]]] = {"mean": [], "log_sd": []}
    least = [np.inf, np.inf]
    for name, both in pairs.items():
        (a, a_error, a_size), (b, b_error, b_size) = map(summary, both)
        mean, _ = np.abs(a - b) / np.hypot(a_error, b_error)
        log_sd = abs(np.log(a[1] / b[1])) / np.hypot(a_error[1] / a[1], b_error[1] / b[1])
        scores["mean"].append((float(mean), name))
        scores["log_sd"].append((float(log_sd), name))
        least = [min(least[0], a_size), min(least[1], b_size)]
    every = np.array([z for found in scores.values() for z, _ in found])
    return {
        "scalars": len(pairs),
        "mean": max(scores["mean"])[0],
        "at": max(scores["mean"])[1],
        "log_sd": max(scores["log_sd"])[0],
        "at_sd": max(scores["log_sd"])[1],
        "beyond_2": int((every > 2).sum()),
        "comparisons": len(every),
        "ess": least[0],
        "ess_nuts": least[1],
    }
