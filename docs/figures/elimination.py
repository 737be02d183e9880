"""The picture of how.md: coefficients, G, G without the schools, and the way back.

Draws ``elimination.svg`` into the folder that the first argument names. The model is that of the
page: 12 pupils in 4 schools, a mean and a slope; columns are ordered as they are eliminated.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

SCHOOLS, PUPILS = 4, 12
NAMES = [*(f"u[{k}]" for k in range(SCHOOLS)), "mean", "slope"]
GREEN, ORANGE, PALE = "#3f9a63", "#d9763a", "#7676762e"


def cells(axes, filled, colours, names=True):
    """Draw a matrix: filled cells in their colours, the others as an outline."""
    rows, columns = filled.shape
    for i, j in np.ndindex(rows, columns):
        colour = colours[i][j] if filled[i, j] else "none"
        edge = "none" if colour == "none" and not names else PALE
        axes.add_patch(Rectangle((j, i), 0.92, 0.92, fc=colour, ec=edge, lw=0.6))
    axes.set(xlim=(-0.1, columns), ylim=(rows, -0.1), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def main(out: Path) -> None:
    """Draw the four panels."""
    matplotlib.rc_file(Path(__file__).parent / "matplotlibrc")
    school = np.repeat(np.arange(SCHOOLS), PUPILS // SCHOOLS)
    reads = np.column_stack([school[:, None] == np.arange(SCHOOLS), np.ones((PUPILS, 2), bool)])
    size = SCHOOLS + 2
    met = (reads.T @ reads.astype(int)) > 0
    colours = [[GREEN if min(i, j) < SCHOOLS else ORANGE for j in range(size)] for i in range(size)]

    figure = Figure(figsize=(10.6, 3.3))
    panels = figure.subplots(1, 4)
    cells(panels[0], reads, [[GREEN if j < SCHOOLS else ORANGE for j in range(size)]] * PUPILS)
    panels[0].set_title("A: what each pupil reads")
    cells(panels[1], met, colours)
    panels[1].set_title("G: who meets whom")
    left = met.copy()
    left[:SCHOOLS] = left[:, :SCHOOLS] = False
    cells(panels[2], left, colours)
    panels[2].set_title("schools eliminated")
    cells(panels[3], np.tril(met), colours)
    panels[3].set_title("factor, read backwards")
    for panel in panels:
        rows = PUPILS if panel is panels[0] else size
        for j, name in enumerate(NAMES):
            panel.text(j + 0.46, rows + 0.25, name, rotation=90, ha="center", va="top", fontsize=8)
    panels[0].set_ylabel("12 pupils")
    for k, label in enumerate(["corner first,", "then schools"]):
        panels[3].text(3.2, 0.6 + 0.75 * k, label, fontsize=8)
    figure.savefig(out / "elimination.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
