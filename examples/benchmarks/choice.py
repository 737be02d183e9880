"""What the default chooses beside the source, everything non-centred and everything integrated out.

    python -m examples.benchmarks.choice --cores 1                  # all programs: some 25 minutes
    python -m examples.benchmarks.choice --only poisson_groups      # these programs

One chain each. ``ess/grad`` is the least effective sample size over the source's latents for each
thousand gradients, which a busy machine leaves as it is; ``ess/s`` is for the seconds of sampling,
without those of compilation, of warm-up and of the recovery.
``grad`` is the time of a leapfrog step beside the source's, ``share`` the default's ess/s as a
share of the best of all. Programs that are the same by their plans are measured once.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro

import autmarg
from autmarg.passes.registry import load_plugins
from examples.benchmarks.gradients import energy
from examples.benchmarks.measure import append, min_ess, table
from examples.benchmarks.methods import Method
from examples.benchmarks.sampling import Sampler
from examples.benchmarks.sets import NAMES, Set, load_set
from examples.benchmarks.strangers import STRANGERS, arguments

_SETS = tuple(name for name in NAMES if name != "insteval")  # its everything takes minutes
_OPTIONS: dict[str, dict[str, Any]] = {
    "noncentred": {"marginalize": [], "reparameterize": "noncentred"},
    "auto": {},
    "all": {"marginalize": "all"},
}
_SECONDS = 120.0  # for a chain, beyond which it is not run


@dataclass(frozen=True, eq=False)
class Run:
    """One chain: gradients, the least effective size and its site, seconds of it and of a step."""

    dimensions: int
    gradients: int
    divergences: int
    ess: float
    site: str
    seconds: float
    step: float


def load(name: str) -> Set:
    """One of the strangers' programs, or a reference set."""
    if name in STRANGERS:
        args = arguments(name)
        return Set(name, args, STRANGERS[name][0], None, dict, "", (), ())
    return load_set(name)


def measured(data: Set, warmup: int, draws: int) -> list[dict[str, Any]]:
    """A row for each program of one set."""
    source = Method("source", data.source, lambda key, draws: draws)
    methods, latents = {"source": source}, list[str]()
    plans: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {"source": ((), ())}
    for name, options in _OPTIONS.items():
        marg = autmarg.transform(data.source, **options)
        plan = marg.plan(*data.args)
        plans[name] = plan.integrated, plan.noncentred
        methods[name] = Method(name, marg, _recovery(marg, data), None, marg)
        latents = [n.name for n in plan.program.latents]
    runs: dict[Any, Run | None] = {}
    for name, plan in plans.items():
        if plan not in runs:
            runs[plan] = _run(data, methods[name], latents, warmup, draws)
    rates = {name: _rate(runs[plan]) for name, plan in plans.items()}
    first = runs[plans["source"]]
    rows = []
    for name, plan in plans.items():
        share = rates["auto"] / max(rates.values()) if name == "auto" else None
        rows.append(
            {"set": data.name, "program": name}
            | _columns(runs[plan], first)
            | {"share": share, "integrated": " ".join(plan[0]), "non-centred": " ".join(plan[1])}
        )
    return rows


def _columns(run: Run | None, first: Run | None) -> dict[str, Any]:
    return {
        "dims": run and run.dimensions,
        "gradients": run and run.gradients,
        "div": run and run.divergences,
        "min_ess": run and run.ess,
        "at": run and run.site,
        "ess/grad": run and 1000 * run.ess / run.gradients,
        "ess/s": run and run.ess / run.seconds,
        "grad": run and first and run.step / first.step,
    }


def _rate(run: Run | None) -> float:
    return 0.0 if run is None else run.ess / run.seconds


def _recovery(marg: Any, data: Set) -> Any:
    def recover(key: Any, draws: Mapping[str, Any]) -> Any:
        return jax.block_until_ready(marg.recover(key, draws, *data.args, progress=False))

    return recover


def _run(data: Set, method: Method, latents: list[str], warmup: int, draws: int) -> Run | None:
    """A chain; None where a gradient alone takes too long for it."""
    if _gradient_seconds(method, data.args) * 7 * (warmup + draws) > _SECONDS:
        return None
    sampler = Sampler.of(data, method, warmup, dense_mass=False)
    chain = sampler.run(0, draws)
    constrain = jax.jit(jax.vmap(sampler.kernel.postprocess_fn(data.args, {})))
    kept = dict(constrain(chain["z"]))
    everything = jax.device_get(method.recover(jax.random.key(1000), kept))
    ess, site = min_ess({name: everything[name] for name in latents})
    gradients = int(chain["steps"].sum())
    dimensions = sum(int(np.prod(v.shape[1:])) for v in jax.tree.leaves(chain["z"]))
    seconds, divergences = chain["sampling_s"], int(chain["diverging"].sum())
    return Run(dimensions, gradients, divergences, ess, site, seconds, seconds / gradients)


def _gradient_seconds(method: Method, args: tuple[Any, ...]) -> float:
    """The least of a few gradients; the first compiles."""
    start, both = energy(method.model, args)
    compiled = jax.jit(both)
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        jax.block_until_ready(compiled(start))
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    """Measure what the command line names, print a table for each, append to a CSV file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of programs and sets")
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--cores", type=int, help="keep to so many cores")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("choice.csv"))
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    numpyro.enable_x64()
    load_plugins()
    for name in options.only or (*STRANGERS, *_SETS):
        rows = measured(load(name), options.warmup, options.draws)
        append(options.out, rows)
        print(table(rows, options.markdown), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
