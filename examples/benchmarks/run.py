"""Run the tasks, print their tables, append to their CSV files."""

from __future__ import annotations

import argparse

from examples.benchmarks.gradients import gradients
from examples.benchmarks.measure import append, table
from examples.benchmarks.methods import METHODS, method
from examples.benchmarks.sets import NAMES, load_set


def run(options: argparse.Namespace, cores: int) -> None:
    """Do what the command line says, on the cores this process has."""
    for name in options.sets or NAMES:
        data = load_set(name)
        methods = [m for name in options.methods or METHODS if (m := method(data, name))]
        rows = gradients(data, methods, options.rounds, options.seconds)
        rows = [{"cores": cores, **row} for row in rows]
        print(table(rows, options.markdown), end="\n\n", flush=True)
        append(options.out / "gradients.csv", rows)
