"""What the default chooses beside the source, everything non-centred and everything integrated out.

    python -m examples.benchmarks.choice --cores 1                  # all programs: some 40 minutes
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
from pathlib import Path
from typing import Any

import numpyro

import autmarg
from autmarg.passes.registry import load_plugins
from examples.benchmarks.measure import append, table
from examples.benchmarks.sets import NAMES, Set, load_set
from examples.benchmarks.strangers import STRANGERS, arguments

_SETS = tuple(name for name in NAMES if name != "insteval")  # its everything takes minutes
_PROGRAMS = ("source", "noncentred", "auto", "all")


def load(name: str) -> Set:
    """One of the strangers' programs, or a reference set."""
    if name in STRANGERS:
        args = arguments(name)
        return Set(name, args, STRANGERS[name][0], None, dict, "", (), ())
    return load_set(name)


def measured(data: Set, warmup: int, draws: int) -> list[dict[str, Any]]:
    """A row for each program of one set."""
    comparison = autmarg.compare(
        data.source, *data.args, num_warmup=warmup, num_samples=draws, programs=_PROGRAMS,
        progress=False,
    )  # fmt: skip
    first = comparison["source"].measured
    rates = {pilot.program: _rate(pilot.measured) for pilot in comparison.pilots}
    rows = []
    for pilot in comparison.pilots:
        share = rates["auto"] / max(rates.values()) if pilot.program == "auto" else None
        sites = {"integrated": pilot.integrated, "non-centred": pilot.noncentred}
        rows.append(
            {"set": data.name, "program": pilot.program}
            | _columns(pilot.measured, first)
            | {"share": share}
            | {name: " ".join(some) for name, some in sites.items()}
        )
    return rows


def _columns(run: Any, first: Any) -> dict[str, Any]:
    return {
        "dims": run and run.dimensions,
        "gradients": run and run.leapfrogs,
        "div": run and run.divergences,
        "min_ess": run and run.ess,
        "at": run and run.site,
        "ess/grad": run and run.ess_per_1000_gradients,
        "ess/s": run and _rate(run),
        "grad": run and first and run.gradient_seconds / first.gradient_seconds,
    }


def _rate(run: Any) -> float:
    return run.ess_per_second if run and run.draws else 0.0


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
