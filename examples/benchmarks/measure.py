"""Alternating timings, effective sample sizes, tables."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autmarg.pilot.ess import bulk_ess


@dataclass(frozen=True)
class Timed:
    """Seconds of one step over several rounds: median, least and most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Timed:
        """The median, the least and the most of these seconds."""
        values = np.array([*seconds])
        return cls(float(np.median(values)), float(values.min()), float(values.max()))


def alternate(calls: Sequence[Callable[[int], Any]], rounds: int, seconds: float) -> list[Timed]:
    """Time loops of so many steps that each takes some ``seconds``, one after the other, in rounds.

    A call takes the number of steps and returns when they are done.
    """
    steps = []
    for call in calls:
        count = 1
        call(count)  # compiled now
        while (taken := _seconds(call, count)) < seconds / 4:
            count = max(2 * count, int(count * seconds / 3 / max(taken, 1e-6)))
        steps.append(max(1, int(count * seconds / taken)))
    taken = [
        [_seconds(call, n) / n for call, n in zip(calls, steps, strict=True)] for _ in range(rounds)
    ]
    return [Timed.of(each) for each in zip(*taken, strict=True)]


def _seconds(call: Callable[[int], Any], steps: int) -> float:
    started = time.perf_counter()
    call(steps)
    return time.perf_counter() - started


def min_ess(draws: dict[str, Any]) -> tuple[float, str]:
    """The least bulk ESS over the elements of [draw, …] by site, and its site.

    Of a correlation matrix's factor (sites ``L_…``) only what lies below the diagonal counts. A
    latent that never moved has one.
    """
    least = {}
    for site, values in draws.items():
        values = np.asarray(values)
        if site.startswith("L_"):
            at = np.tril_indices(values.shape[-1], -1)
            values = values[..., at[0], at[1]]
        least[site] = float(np.nan_to_num(bulk_ess(values), nan=1.0).min())
    site = min(least, key=least.__getitem__)
    return least[site], site


def table(rows: Sequence[dict[str, Any]], markdown: bool = False) -> str:
    """Rows under the names of their columns, numbers to three digits."""
    if not rows:
        return "(nothing)"
    names = list(rows[0])
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
    edge, between = ("| ", " | ") if markdown else ("", "  ")
    end = " |" if markdown else ""
    lines = [
        edge + between.join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) + end
        for line in cells
    ]
    rule = edge + between.join("-" * w for w in widths) + end
    return "\n".join([lines[0], rule, *lines[1:]])


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return f"{number:,.0f}" if number.is_integer() or abs(number) >= 1000 else f"{number:.3g}"


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a CSV file, which has a header line."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]
