"""The charts of benchmarks.md, from that page's tables.

Draws ``benchmarks.svg`` into the folder that the first argument names.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BLUE, ORANGE = "#2f80c2", "#d9763a"


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


def main(out: Path) -> None:
    """Draw effective draws for each second, and the time of a gradient."""
    matplotlib.rc_file(HERE / "matplotlibrc")
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
