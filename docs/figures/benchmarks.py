"""The charts of benchmarks.md, from that page's tables.

Draws ``benchmarks.svg`` and ``sample.svg`` into the folder that the first argument names.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN = "#2f80c2", "#d9763a", "#3f9a63"


def table(header: str) -> list[list[str]]:
    """Cells of the table of benchmarks.md whose first line starts with ``header``."""
    lines = (HERE.parent / "benchmarks.md").read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def numbers(cell: str) -> tuple[float, float, float]:
    """Median, least and most of ``693 (451–733)``."""
    found = [float(n.replace(",", "")) for n in re.findall(r"[\d,.]+", cell)]
    return (found[0], *found[1:3]) if len(found) >= 3 else (found[0],) * 3


def spread(axes, rows, column, colour, label):
    """A dot and a range for each row."""
    for y, row in enumerate(rows):
        middle, least, most = numbers(row[column])
        axes.plot([least, most], [y, y], color=colour, lw=2, alpha=0.6)
        axes.plot(middle, y, "o", ms=5, color=colour, label=label if y == 0 else None)


def nuts(out: Path) -> None:
    """Draw effective draws of NUTS for each second, and the time of a gradient."""
    sampling = table("| set | ESS per second, noncentred |")[::-1]
    gradients = {row[0]: row for row in table("| set | source | noncentred | all | auto |")}
    names = [row[0] for row in sampling]
    figure = Figure(figsize=(10.6, 4.0))
    left, right = figure.subplots(1, 2, sharey=True)
    spread(left, sampling, 1, ORANGE, "non-centred by its user")
    spread(left, sampling, 2, BLUE, "autmarg, the default")
    left.set(xscale="log", yticks=range(len(names)), yticklabels=names)
    left.set_title("smallest ESS for each second of sampling")
    spread(right, [gradients[name] for name in names], 1, ORANGE, "as written")
    spread(right, [gradients[name] for name in names], 4, BLUE, "autmarg, the default")
    right.set(xscale="log")
    right.set_title("a gradient, microseconds")
    for axes in (left, right):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
        axes.grid(axis="x")
    figure.savefig(out / "benchmarks.svg", metadata={"Date": None})


def sample(out: Path) -> None:
    """Draw effective draws of ``marg.sample`` for each second, and the seconds of a process."""
    rates = table("| set | non-centred NUTS | `sample` |")[::-1]
    cold = table("| set | source | `sample`, cold |")[::-1]
    figure = Figure(figsize=(10.6, 4.0))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    spread(left, rates, 1, ORANGE, "NUTS, non-centred by its user")
    spread(left, rates, 2, BLUE, "marg.sample")
    left.set(xscale="log", yticks=range(len(rates)), yticklabels=[row[0] for row in rates])
    left.set_title("smallest ESS for each second")
    bars = (("source", 1, ORANGE), ("sample, cold", 2, BLUE), ("sample, warm cache", 4, GREEN))
    for k, (label, column, colour) in enumerate(bars):
        at = [y + 0.26 * (1 - k) for y in range(len(cold))]
        right.barh(at, [numbers(row[column])[0] for row in cold], 0.22, color=colour, label=label)
    right.set(yticks=range(len(cold)), yticklabels=[row[0] for row in cold])
    right.set_title("seconds from a new process to 1,000 draws")
    for axes, columns in ((left, 2), (right, 3)):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=columns)
        axes.grid(axis="x")
    figure.savefig(out / "sample.svg", metadata={"Date": None})


if __name__ == "__main__":
    matplotlib.rc_file(HERE / "matplotlibrc")
    for draw in (nuts, sample):
        draw(Path(sys.argv[1]))
