"""NUTS on one program: what a draw costs, and how many independent ones there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpyro.infer import NUTS

from examples.benchmarks.measure import min_ess
from examples.benchmarks.methods import Method
from examples.benchmarks.sets import Set

CHUNK = 50  # steps in one compiled call; warm-up and draws are multiples of it


@dataclass(frozen=True, eq=False)
class Sampler:
    """A NUTS kernel with its chunk of steps compiled; one serves all seeds."""

    kernel: Any
    args: tuple[Any, ...]
    step: Callable[[Any], tuple[Any, Any]]
    warmup: int
    init_seconds: float
    compile_seconds: float

    @classmethod
    def of(cls, data: Set, method: Method, warmup: int, dense_mass: bool) -> Sampler:
        """Initialise (with seed 0) and compile."""
        kernel = method.marg.nuts() if dense_mass and method.marg else NUTS(method.model)
        started = time.perf_counter()
        state = kernel.init(jax.random.key(0), warmup, model_args=data.args)
        ready = time.perf_counter()

        def chunk(state: Any) -> tuple[Any, Any]:
            def one(state: Any, _: Any) -> tuple[Any, Any]:
                state = kernel.sample(state, data.args, {})
                return state, (state.z, state.num_steps, state.diverging)

            return jax.lax.scan(one, state, None, length=CHUNK)

        step = jax.jit(chunk).lower(state).compile()
        compiled = time.perf_counter() - ready
        return cls(kernel, data.args, step, warmup, ready - started, compiled)

    def run(self, seed: int, draws: int) -> dict[str, Any]:
        """Unconstrained draws, steps and divergences of one chain, and seconds."""
        state = self.kernel.init(jax.random.key(seed), self.warmup, model_args=self.args)
        warm = time.perf_counter()
        for _ in range(self.warmup // CHUNK):
            state, _ = self.step(state)
        jax.block_until_ready(state)
        started, parts = time.perf_counter(), []
        for _ in range(draws // CHUNK):
            state, out = self.step(state)
            parts.append(out)
        jax.block_until_ready(parts)
        seconds = time.perf_counter() - started
        z, steps, diverging = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
        return {
            "z": z,
            "steps": steps,
            "diverging": diverging,
            "warmup_s": started - warm,
            "sampling_s": seconds,
        }


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
        sampler = Sampler.of(data, each, warmup, dense_mass)
        constrain = jax.jit(jax.vmap(sampler.kernel.postprocess_fn(data.args, {})))
        for seed in range(seeds):
            chain = sampler.run(seed, draws)
            kept = dict(constrain(chain["z"]))
            key = jax.random.key(seed + 1000)
            jax.block_until_ready(each.recover(key, kept))  # compiled now
            started = time.perf_counter()
            everything = jax.device_get(jax.block_until_ready(each.recover(key, kept)))
            recovery = time.perf_counter() - started
            rows.append(_row(data, each, sampler, seed, chain, everything, recovery))
    return rows


def _row(data: Set, each: Method, sampler: Sampler, seed: int, chain: Any, draws: Any, recovery):
    ess, site = min_ess(draws)
    steps, seconds = chain["steps"], chain["sampling_s"]
    return {
        "set": data.name,
        "method": each.name,
        "seed": seed,
        "dims": sum(int(np.prod(v.shape[1:])) for v in jax.tree.leaves(chain["z"])),
        "draws": len(steps),
        "leapfrogs": float(steps.mean()),
        "div": int(chain["diverging"].sum()),
        "min_ess": ess,
        "at": site,
        "ess_per_s": ess / (seconds + recovery),
        "sampling_s": seconds,
        "recover_s": recovery,
        "warmup_s": chain["warmup_s"],
        "us_leapfrog": seconds / steps.sum() * 1e6,
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
