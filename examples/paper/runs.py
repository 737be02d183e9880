"""Run the chains that a CSV file does not have yet, and append a row for each."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from autmarg.pilot.chain import Chain, Sampler
from autmarg.pilot.ess import bulk_ess
from examples.benchmarks.measure import append, read
from examples.benchmarks.methods import Method
from examples.benchmarks.sets import Set
from examples.paper.experiments import EXPERIMENTS, Experiment, Length
from examples.paper.programs import Program

_BATCH = 2000  # draws that are recovered at once: by hand, each takes memory for all rows
_FEWEST = 20  # draws from which effective sizes are reported
KEY = ("experiment", "set", "program", "seed")


def run(options: argparse.Namespace, setting: str, path: Path) -> None:
    """All experiments that the command line names.

    Raises:
        MissingData: a data file is absent.
    """
    started = time.perf_counter()
    for name in options.only:
        experiment = EXPERIMENTS[name]
        length = experiment.lengths[setting]
        if options.limit is not None:
            length = replace(length, limit=options.limit)
        for each in experiment.sets:
            if options.sets and each not in options.sets:
                continue
            data = experiment.data(each, setting)
            print(f"{_clock(started)} {name}: {each}, {data.rows:,} rows", flush=True)
            for program in experiment.programs(data):
                for row in rows(name, experiment, data, program, length, path):
                    append(path, [{**row, "cores": options.cores}])
                    print(f"{_clock(started)}   {_line(row)}", flush=True)


def _clock(started: float) -> str:
    seconds = int(time.perf_counter() - started)
    return f"[{seconds // 60:3d}:{seconds % 60:02d}]"


def _line(row: Mapping[str, Any]) -> str:
    words = f"{row['program']}, seed {row['seed']}: "
    if row["cut"]:
        words += f"{row['cut']}; "
    ess = "no draws" if row["min_ess"] is None else f"min ESS {row['min_ess']:.0f} ({row['at']})"
    return f"{words}{row['draws']} draws in {row['sampling_s']:.1f} s, {ess}"


def rows(
    name: str, experiment: Experiment, data: Set, program: Program, length: Length, path: Path
) -> Any:
    """A row for each seed that the file lacks; after a chain that was stopped there are no more."""
    known = {tuple(row[k] for k in KEY): row for row in read(path)}
    each: Method | None = None
    sampler: Sampler | None = None
    for seed in range(length.seeds):
        key = (name, data.name, program.name, str(seed))
        if key in known:
            if known[key]["cut"]:
                return
            continue
        if each is None or sampler is None:
            jax.clear_caches()  # no program finds small ones that an earlier one has compiled
            each = program.make(data)
            kernel = program.kernel(data, each, **experiment.options)
            sampler = Sampler.of(kernel, data.args, warmup=length.warmup, seed=seed)
        chain = sampler.run(seed, length.draws, limit=length.limit)
        found = dict(zip(KEY, key, strict=True)) | _row(each, sampler, chain, length, seed)
        yield found
        if found["cut"]:
            return


def _row(each: Method, sampler: Sampler, chain: Chain, length: Length, seed: int) -> dict[str, Any]:
    draws, seconds = _recovered(each, sampler, chain, seed)
    sizes = effective(draws)
    least = {site: float(size.min()) for site, size in sizes.items()}
    at = min(least, key=least.__getitem__) if least else None
    means = {site: float(size.mean()) for site, size in sizes.items()}
    return {
        "dims": chain.dimensions,
        "warmup": chain.warmup,
        "draws": len(chain.steps),
        "cut": _cut(chain, length),
        "leapfrogs": chain.gradients,
        "div": int(chain.diverging.sum()),
        "min_ess": least[at] if at else None,
        "at": at,
        "mean_ess": float(np.mean([*means.values()])) if means else None,
        "ess": ";".join(f"{site}={size:.1f}" for site, size in means.items()),
        "plan_s": each.plan_seconds or 0.0,
        "init_s": sampler.init_seconds,
        "compile_s": sampler.compile_seconds,
        "warmup_s": chain.warmup_seconds,
        "sampling_s": chain.sampling_seconds,
        "recover_s": seconds,
    }


def _cut(chain: Chain, length: Length) -> str:
    """Say "over 40 s" with the phase that was not finished, or ""."""
    if not chain.cut:
        return ""
    taken, asked = (
        (chain.warmup, length.warmup)
        if chain.cut == "warm-up"
        else (len(chain.steps), length.draws)
    )
    return f"over {length.limit:g} s: {taken} of {asked} steps of {chain.cut}"


def _recovered(
    each: Method, sampler: Sampler, chain: Chain, seed: int
) -> tuple[dict[str, np.ndarray], float]:
    """Draws of the source's latents, and the seconds of recovery without its compilation."""
    count = len(chain.steps)
    if count < _FEWEST:
        return {}, 0.0
    kept = sampler.constrained(chain.z)
    parts: list[dict[str, Any]] = []
    seconds, last = 0.0, 0
    for start in range(0, count, _BATCH):
        some = {name: value[start : start + _BATCH] for name, value in kept.items()}
        key = jax.random.fold_in(jax.random.key(seed + 1000), start)
        if (size := min(_BATCH, count - start)) != last:
            jax.block_until_ready(each.recover(key, some))  # compiled now
        last, began = size, time.perf_counter()
        found = jax.block_until_ready(each.recover(key, some))
        seconds += time.perf_counter() - began
        parts.append({k: np.asarray(v) for k, v in found.items() if not k.endswith("_decentered")})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}, seconds


def effective(draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bulk ESS of the elements of each site [elements]; constants of the model are left out.

    An element that never moves is a constant (above the diagonal of a Cholesky factor) unless the
    whole chain never moved: its size is then one.
    """
    sizes = {site: bulk_ess(values) for site, values in draws.items()}
    if all(np.isnan(size).all() for size in sizes.values()):
        return {site: np.ones(size.shape) for site, size in sizes.items()}
    moving = {site: size[~np.isnan(size)] for site, size in sizes.items()}
    return {site: size for site, size in moving.items() if size.size}
