"""The chart of calibration.md, from ``calibration_ranks.csv``.

That file is what ``python examples/calibration.py --datasets 200 --bins FILE`` writes. Draws
``calibration.svg`` into the folder that the first argument names.
"""

from __future__ import annotations

import csv
import sys
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

HERE = Path(__file__).parent
BLUE, GREY = "#2f80c2", "#767676"


def main(out: Path) -> None:
    """Draw counts of ranks in ten bins, all statistics of a model over each other."""
    matplotlib.rc_file(HERE / "matplotlibrc")
    with (HERE / "calibration_ranks.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    models = {name: list(lines) for name, lines in groupby(rows, key=lambda row: row[0])}
    figure = Figure(figsize=(1.8 + 2.2 * len(models), 2.7))
    panels = np.atleast_1d(figure.subplots(1, len(models)))
    for axes, (name, lines) in zip(panels, models.items(), strict=True):
        counts = np.array([row[2:] for row in lines], int)
        low, high = binom.ppf([0.005, 0.995], counts[0].sum(), 0.1)
        axes.axhspan(low, high, color=GREY, alpha=0.2, lw=0)
        for each in counts:
            axes.stairs(each, np.arange(11) * 10, color=BLUE, alpha=0.35, lw=1, baseline=None)
        axes.axhline(counts[0].sum() / 10, color=GREY, lw=1)
        axes.set(ylim=(0, None), xticks=[0, 50, 100])
        axes.set_title(f"{name}, {len(counts)} statistics")
    figure.supxlabel("rank of the true value among 99 draws", color=GREY, fontsize=10)
    figure.savefig(out / "calibration.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
