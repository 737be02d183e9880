"""Alternating timings, effective sample sizes, tables."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.scipy.special import ndtri
from numpyro.diagnostics import effective_sample_size


@dataclass(frozen=True)
class Timed:
    """Seconds of one step over several rounds: median, least and most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Timed:
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


def bulk_ess(draws: np.ndarray) -> np.ndarray:
    """Bulk effective sample size of [chain, draw, …], of split chains after rank normalisation.

    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian Analysis 16(2). At most
    n log₁₀ n, which is what draws have that swing to and fro: the sum of their autocorrelations
    comes out next to nothing or below it. A latent that never moved has one.
    """
    half = draws.shape[1] // 2
    split = np.concatenate([draws[:, :half], draws[:, half : 2 * half]]).astype(float)
    flat = split.reshape(split.shape[0] * half, -1)
    ranks = flat.argsort(0, kind="stable").argsort(0) + 1
    normal = np.asarray(ndtri((ranks - 0.375) / (len(flat) + 0.25))).reshape(split.shape)
    moved = np.ptp(flat, axis=0) > 0
    sizes = np.ones(flat.shape[1])
    if moved.any():
        columns = normal.reshape(*split.shape[:2], -1)[:, :, moved]
        found, most = effective_sample_size(columns), len(flat) * np.log10(len(flat))
        sizes[moved] = np.where((found > 0) & (found < most), found, most)
    return sizes.reshape(draws.shape[2:])


def min_ess(draws: dict[str, Any]) -> tuple[float, str]:
    """The least bulk ESS over the elements of [chain, draw, …] by site, and its site.

    Of a correlation matrix's factor (sites ``L_…``) only what lies below the diagonal counts.
    """
    least = {}
    for site, values in draws.items():
        values = np.asarray(values)
        if site.startswith("L_"):
            at = np.tril_indices(values.shape[-1], -1)
            values = values[..., at[0], at[1]]
        least[site] = float(np.min(bulk_ess(values)))
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
