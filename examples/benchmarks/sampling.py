"""NUTS on one program: what a draw costs, and how many independent ones there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpyro.infer import NUTS

from autmarg.pilot.chain import Sampler
from examples.benchmarks.measure import min_ess
from examples.benchmarks.methods import Method
from examples.benchmarks.sets import Set


def sampling(
    data: Set,
    methods: Sequence[Method],
    seeds: int,
    warmup: int,
    draws: int,
    dense_mass: bool = False,
) -> list[dict[str, Any]]:
    """One row for each method and seed."""
    rows = []
    for each in methods:
        kernel = each.marg.nuts() if dense_mass and each.marg else NUTS(each.model)
        sampler = Sampler.of(kernel, data.args, warmup=warmup)
        for seed in range(seeds):
            chain = sampler.run(seed, draws)
            kept = sampler.constrained(chain.z)
            key = jax.random.key(seed + 1000)
            jax.block_until_ready(each.recover(key, kept))  # compiled now
            started = time.perf_counter()
            everything = jax.device_get(jax.block_until_ready(each.recover(key, kept)))
            recovery = time.perf_counter() - started
            rows.append(_row(data, each, sampler, seed, chain, everything, recovery))
    return rows


def _row(data: Set, each: Method, sampler: Sampler, seed: int, chain: Any, draws: Any, recovery):
    ess, site = min_ess(draws)
    seconds = chain.sampling_seconds
    return {
        "set": data.name,
        "method": each.name,
        "seed": seed,
        "dims": chain.dimensions,
        "draws": len(chain.steps),
        "leapfrogs": float(chain.steps.mean()),
        "div": int(chain.diverging.sum()),
        "min_ess": ess,
        "at": site,
        "ess_per_s": ess / (seconds + recovery),
        "sampling_s": seconds,
        "recover_s": recovery,
        "warmup_s": chain.warmup_seconds,
        "us_leapfrog": seconds / chain.gradients * 1e6,
        "init_s": sampler.init_seconds,
        "compile_s": sampler.compile_seconds,
        "plan_s": each.plan_seconds,
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each set and method: medians over the seeds, and the range of ESS per second."""
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["method"]), []).append(row)
    out = []
    for (name, method), group in groups.items():
        rates = sorted(float(row["ess_per_s"]) for row in group)
        middle = {
            key: float(np.median([float(row[key]) for row in group]))
            for key in ("dims", "leapfrogs", "min_ess", "sampling_s", "recover_s", "us_leapfrog")
        }
        out.append(
            {"set": name, "method": method, **middle}
            | {"div": sum(int(row["div"]) for row in group)}
            | {"ess_per_s": float(np.median(rates)), "least": rates[0], "most": rates[-1]}
            | {"at": max((row["at"] for row in group), key=[r["at"] for r in group].count)}
        )
    return out
