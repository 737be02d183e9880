"""The rows of a CSV file as numbers, the seeds of a program together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.benchmarks.measure import read

_NAN = float("nan")


@dataclass(frozen=True)
class Result:
    """One program on one set, over its seeds.

    Attributes:
        dims: unconstrained dimensions that NUTS moves in.
        seeds: how many chains.
        draws, leapfrogs, div: totals over the seeds.
        min_ess: the least effective size over all elements of all latents; median over the seeds.
        mean_ess: of each site the mean over its elements, of these the mean; mean over the seeds.
        ess: the mean over its elements by site; mean over the seeds.
        compile_s: of the first chain: planning, initial point, compilation of the loop.
        warmup_s, sampling_s, recover_s: means over the seeds.
        cut: why a chain was stopped, or "".
    """

    experiment: str
    set: str
    program: str
    dims: int
    seeds: int
    draws: int
    leapfrogs: int
    div: int
    min_ess: float
    mean_ess: float
    ess: Mapping[str, float]
    compile_s: float
    warmup_s: float
    sampling_s: float
    recover_s: float
    cut: str

    @property
    def each(self) -> float:
        """Draws of one chain."""
        return self.draws / self.seeds

    @property
    def iterations(self) -> float:
        """Draws for each second of sampling."""
        return self.each / self.sampling_s if self.sampling_s and self.draws else _NAN

    @property
    def per_draw(self) -> float:
        """Mean effective draws for each draw: the paper's ESS for each iteration."""
        return self.mean_ess / self.each if self.draws else _NAN

    @property
    def per_second(self) -> float:
        """Least effective draws for each second of sampling.

        Recovery takes some tenths of a second for however few draws, so it is not counted.
        """
        return self.min_ess / self.sampling_s if self.sampling_s and self.draws else _NAN

    @property
    def steps(self) -> float:
        """Leapfrog steps for each draw."""
        return self.leapfrogs / self.draws if self.draws else _NAN

    @property
    def ours(self) -> bool:
        """Whether autmarg made the program."""
        return self.program.startswith("autmarg")


def results(path: Path, experiment: str) -> list[Result]:
    """Those of one experiment, in the order in which they were run."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read(path):
        if row["experiment"] == experiment:
            groups.setdefault((row["set"], row["program"]), []).append(row)
    return [_result(experiment, *key, rows) for key, rows in groups.items()]


def _result(experiment: str, name: str, program: str, rows: Sequence[dict[str, Any]]) -> Result:
    def mean(column: str) -> float:
        values = [float(row[column]) for row in rows if row[column]]
        return float(np.mean(values)) if values else _NAN

    def total(column: str) -> int:
        return sum(int(row[column]) for row in rows)

    least = [float(row["min_ess"]) for row in rows if row["min_ess"]]
    first = rows[0]
    sites = [dict(pair.split("=") for pair in row["ess"].split(";") if pair) for row in rows]
    names = {site: None for each in sites for site in each}
    return Result(
        experiment, name, program, int(first["dims"]), len(rows), total("draws"),
        total("leapfrogs"), total("div"), float(np.median(least)) if least else _NAN,
        mean("mean_ess"),
        {s: float(np.mean([float(each[s]) for each in sites if s in each])) for s in names},
        sum(float(first[c]) for c in ("plan_s", "init_s", "compile_s")),
        mean("warmup_s"), mean("sampling_s"), mean("recover_s"),
        next((row["cut"] for row in rows if row["cut"]), ""),
    )  # fmt: skip
