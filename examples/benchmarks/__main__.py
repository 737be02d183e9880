"""``python -m examples.benchmarks``: what is measured, and on how many cores.

Cores are chosen before JAX is imported, so this file imports nothing that imports it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

TASKS = (
    "gradients", "chains", "filters", "sampling", "independence", "likelihoods", "rows",
    "precision", "cold", "floors", "lme4", "agreement", "accelerator", "everything", "table",
    "one-cold",
)  # fmt: skip


def main() -> None:
    options = parser().parse_args()
    cores = [int(c) for c in options.cores]
    if options.task in ("table", "one-cold"):
        cores = cores[:1]
    if len(cores) > 1:
        words = [w for w in sys.argv[1:] if w not in ("--cores", *options.cores)]
        for count in cores:
            command = [sys.executable, "-m", "examples.benchmarks", *words, "--cores", str(count)]
            subprocess.run(command, check=True)
        return
    pin(cores[0])
    os.environ["JAX_ENABLE_X64"] = "0" if options.float32 else "1"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # compilation is part of what is measured
    from examples.benchmarks.run import run

    run(options, cores[0])


def pin(cores: int) -> None:
    """Keep to the first cores of those this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:cores])
    if cores == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def parser() -> argparse.ArgumentParser:
    of = argparse.ArgumentParser(prog="python -m examples.benchmarks", description=__doc__)
    of.add_argument("task", choices=TASKS, metavar="task", help=", ".join(TASKS[:-1]))
    of.add_argument("--sets", nargs="+", default=[], help="reference or synthetic sets (all 13)")
    of.add_argument(
        "--methods",
        nargs="+",
        default=[],
        help="methods (all that apply), or subsets: each set of factors and the fixed effects",
    )
    of.add_argument("--cores", nargs="+", default=["1"], help="numbers of cores, each in turn")
    of.add_argument("--rounds", type=int, default=7, help="rounds of alternating timings")
    of.add_argument("--seconds", type=float, default=0.3, help="of one loop in a round")
    of.add_argument("--seeds", type=int, default=3)
    of.add_argument("--warmup", type=int, default=None)
    of.add_argument("--draws", type=int, default=None)
    of.add_argument("--dense-mass", action="store_true", help="marg.nuts() where there is one")
    of.add_argument("--short", action="store_true", help="few methods: under an hour in all")
    of.add_argument("--markdown", action="store_true", help="tables as Markdown")
    of.add_argument("--float32", action="store_true")
    of.add_argument("--out", type=Path, default=Path("benchmark-results"), help="folder of CSVs")
    return of


if __name__ == "__main__":
    main()
