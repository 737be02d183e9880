"""The tables and figures of Lai, Domke & Sheldon (NeurIPS 2024), measured again.

    python -m examples.paper                      # the short setting: under 20 minutes
    python -m examples.paper --long               # the counts of the paper: days
    python -m examples.paper --only insteval grouseticks
    python -m examples.paper figures              # draw the CSV file again, measure nothing

A row is appended to the CSV file in ``--out`` when a chain has finished, and a rerun goes on from
there. Cores are chosen before JAX is imported, so this file imports nothing that imports it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from examples.benchmarks.__main__ import pin

NAMES = ("insteval", "grouseticks", "times", "cognitive")


def parser() -> argparse.ArgumentParser:
    of = argparse.ArgumentParser(
        prog="python -m examples.paper", description=(__doc__ or "").splitlines()[0]
    )
    of.add_argument("task", nargs="?", choices=("run", "figures"), default="run")
    length = of.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="few draws (the default)")
    length.add_argument("--long", action="store_true", help="the counts of the paper")
    of.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="EXPERIMENT")
    of.add_argument("--sets", nargs="+", help="of an experiment, only these data sets")
    of.add_argument("--cores", type=int, default=1, help="keep to so many cores")
    of.add_argument("--limit", type=float, help="seconds for a chain, instead of the setting's")
    of.add_argument("--out", type=Path, default=Path("paper-results"), help="folder of the results")
    return of


def main() -> int:
    options = parser().parse_args()
    pin(options.cores)
    os.environ["JAX_ENABLE_X64"] = "1"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # compilation is part of what is measured
    from examples.data import MissingData
    from examples.paper.report import report
    from examples.paper.runs import run

    setting = "long" if options.long else "short"
    path = options.out / f"{setting}.csv"
    try:
        if options.task == "run":
            run(options, setting, path)
    except MissingData as missing:
        print(missing, file=sys.stderr)
        return 1
    return report(path, options.out, setting)


if __name__ == "__main__":
    sys.exit(main())
