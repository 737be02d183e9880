"""Run the tasks, print their tables, append to their CSV files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from examples.benchmarks.accelerator import SETS as SYNTHETIC
from examples.benchmarks.accelerator import accelerator
from examples.benchmarks.agreement import agreement
from examples.benchmarks.chains import chains
from examples.benchmarks.cold import cold, one_cold
from examples.benchmarks.filters import STEPS, filters
from examples.benchmarks.floors import floors, sizes
from examples.benchmarks.gradients import gradients
from examples.benchmarks.independence import independence
from examples.benchmarks.likelihoods import NAMES as LIKELIHOODS
from examples.benchmarks.likelihoods import PROGRAMS, likelihoods
from examples.benchmarks.lme4 import lme4, missing
from examples.benchmarks.measure import append, read, table
from examples.benchmarks.methods import METHODS, Method, method, subsets
from examples.benchmarks.precision import precision
from examples.benchmarks.rows import LIKELIHOODS as SURVEYS
from examples.benchmarks.rows import SIZES, rows
from examples.benchmarks.sampling import sampling, summary
from examples.benchmarks.sets import NAMES, Set, load_set

Rows = Sequence[dict[str, Any]]
_SAMPLED = tuple(name for name in METHODS if name != "dense")
_SHORT_TIMED = ("source", "noncentred", "all", "auto")
_CHAINS, _TOGETHER = ("dutch", "dillonE1", "eeg"), (1, 2, 4, 8)
_COLD = ("source", "auto", "sample", "sample-warm")
# (warm-up, draws); large sets take fewer, and the short setting leaves the largest out.
_LENGTH, _LARGE_LENGTH = (500, 1000), (300, 500)
_LARGE, _LARGEST = 20_000, 50_000  # rows
_TABLES = (
    "gradients", "chains", "filters", "sampling", "independence", "likelihoods", "rows",
    "precision", "cold", "floors", "lme4", "agreement", "accelerator",
)  # fmt: skip
_ROOTS = (16, 40, 80, 160, 500, 1142)


def run(options: argparse.Namespace, cores: int) -> None:
    """Do what the command line says, on the cores this process has."""
    _TASKS[options.task](options, cores)


def _length(options: argparse.Namespace, data: Set) -> tuple[int, int]:
    """Warm-up steps and draws."""
    usual = _LARGE_LENGTH if data.rows > _LARGE else _LENGTH
    return options.warmup or usual[0], options.draws or usual[1]


def _methods(options: argparse.Namespace, data: Set, default: Sequence[str]) -> list[Method]:
    asked = options.methods or default
    names = [n for word in asked for n in (subsets(data) if word == "subsets" else [word])]
    return [m for name in names if (m := method(data, name))]


def _keep(options: argparse.Namespace, cores: int, task: str, rows: Rows) -> None:
    rows = [{"cores": cores, **row} for row in rows]
    append(options.out / f"{task}.csv", rows)
    shown = summary(rows) if task == "sampling" else rows
    print(table(shown, options.markdown), end="\n\n", flush=True)


def _gradients(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or NAMES:
        data = load_set(name)
        methods = _methods(options, data, _SHORT_TIMED if options.short else METHODS)
        _keep(
            options, cores, "gradients", gradients(data, methods, options.rounds, options.seconds)
        )


def _chains(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or _CHAINS:
        data = load_set(name)
        for each in _methods(options, data, ("auto", "all")):
            rows = chains(data, each, _TOGETHER, options.rounds, options.seconds)
            _keep(options, cores, "chains", rows)


def _filters(options: argparse.Namespace, cores: int) -> None:
    if find_spec("dynamax") is None:
        print("dynamax is not installed: its filter is not measured", end="\n\n")
    for states in (1, 2):
        for steps in STEPS[: 2 if options.short else None]:
            rows = filters(states, steps, options.rounds, options.seconds)
            _keep(options, cores, "filters", rows)


def _sampling(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or NAMES:
        data = load_set(name)
        if options.short and data.rows > _LARGEST:
            continue
        by_hand = "source" if data.noncentred is None else "noncentred"
        methods = _methods(options, data, (by_hand, "auto") if options.short else _SAMPLED)
        warmup, draws = _length(options, data)
        rows = sampling(data, methods, options.seeds, warmup, draws, options.dense_mass)
        _keep(options, cores, "sampling", rows)


def _independence(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or NAMES:
        data = load_set(name)
        if options.short and data.rows > _LARGEST:
            continue
        rows = independence(data, options.seeds, options.draws or 1000, 4)
        _keep(options, cores, "independence", rows)


def _agreement(options: argparse.Namespace, cores: int) -> None:
    rows: list[dict[str, Any]] = []
    for name in options.sets or NAMES:
        data = load_set(name)
        if not options.sets and data.rows > _LARGEST:
            continue
        rows.append(agreement(data, 0, options.warmup or 1000, options.draws or 2500))
        append(options.out / "agreement.csv", rows[-1:])
        print(table(rows[-1:], options.markdown), end="\n\n", flush=True)
    print(table(rows, options.markdown), end="\n\n", flush=True)


def _accelerator(options: argparse.Namespace, cores: int) -> None:
    rows: list[dict[str, Any]] = []
    for name in options.sets or SYNTHETIC:
        for row in accelerator(load_set(name)):
            rows.append(row)
            append(options.out / "accelerator.csv", [{"cores": cores, **row}])
    print(table(rows, options.markdown), end="\n\n", flush=True)


def _rows(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or SURVEYS:
        found = [rows(name, size, options.rounds, options.seconds) for size in SIZES]
        _keep(options, cores, "rows", found)


def _likelihoods(options: argparse.Namespace, cores: int) -> None:
    programs = options.methods or PROGRAMS
    lengths = options.warmup or 300, options.draws or 400
    for name in options.sets or LIKELIHOODS:
        for seed in range(1 if options.short else options.seeds):
            rows = likelihoods(name, programs, seed, *lengths)
            _keep(options, cores, "likelihoods", rows)


def _precision(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or NAMES:
        data = load_set(name)
        if not options.sets and data.rows > _LARGEST:
            continue
        warmup, draws = _length(options, data)
        rows = precision(data, options.methods or ("all", "auto"), warmup, draws)
        _keep(options, cores, "precision", rows)


def _cold(options: argparse.Namespace, cores: int) -> None:
    for name in options.sets or ["dillonE1"]:
        warmup, draws = options.warmup or 500, options.draws or 1000
        methods = options.methods or _COLD
        repeats = 1 if options.short else options.seeds
        dense = options.dense_mass
        _keep(options, cores, "cold", cold(name, methods, cores, repeats, warmup, draws, dense))


def _one_cold(options: argparse.Namespace, cores: int) -> None:
    name, method_name = options.sets[0], options.methods[0]
    one_cold(name, method_name, options.warmup, options.draws, options.dense_mass)


def _floors(options: argparse.Namespace, cores: int) -> None:
    measured = [(f"root of {n}", n, 1) for n in _ROOTS] if not options.sets else []
    for name in options.sets:
        everything = method(load_set(name), "all")
        measured.append((name, *sizes(everything.marg.plan(*load_set(name).args))))
    rows = [floors(*each, options.rounds, options.seconds) for each in measured if each[1]]
    _keep(options, cores, "floors", rows)


def _lme4(options: argparse.Namespace, cores: int) -> None:
    if why := missing():
        print(f"lme4 was not measured: {why}", end="\n\n")
        return
    found = [lme4(load_set(name), options.rounds) for name in options.sets or NAMES]
    _keep(options, cores, "lme4", [row for row in found if row])


def _everything(options: argparse.Namespace, cores: int) -> None:
    tasks = (_gradients, _chains, _filters, _floors, _lme4, _cold, _independence)
    for task in (*tasks, _likelihoods, _sampling):
        task(options, cores)
    if not options.short:
        _precision(options, cores)


def _table(options: argparse.Namespace, cores: int) -> None:
    """All CSV files of a folder as tables, nothing measured."""
    for task in _TABLES:
        if rows := read(options.out / f"{task}.csv"):
            shown = _summaries(rows) if task == "sampling" else rows
            print(f"## {task}", table(shown, options.markdown), sep="\n\n", end="\n\n")


def _summaries(rows: Rows) -> list[dict[str, Any]]:
    """The summary of sampling for each number of cores."""
    counts = sorted({row["cores"] for row in rows})
    return [
        {"cores": cores, **row}
        for cores in counts
        for row in summary([row for row in rows if row["cores"] == cores])
    ]


_TASKS = {
    "gradients": _gradients,
    "chains": _chains,
    "filters": _filters,
    "sampling": _sampling,
    "independence": _independence,
    "likelihoods": _likelihoods,
    "rows": _rows,
    "precision": _precision,
    "cold": _cold,
    "one-cold": _one_cold,
    "floors": _floors,
    "lme4": _lme4,
    "agreement": _agreement,
    "accelerator": _accelerator,
    "everything": _everything,
    "table": _table,
}
