"""Print the tables of a CSV file, and draw its figures where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from examples.paper.tables import tables


def report(path: Path, folder: Path, setting: str) -> int:
    """The exit status: 1 where there is nothing to show."""
    found = tables(path)
    if not found:
        print(f"{path} has no rows: run python -m examples.paper first", file=sys.stderr)
        return 1
    text = "\n\n".join(f"## {name}\n\n{each}" for name, each in found.items())
    print(f"\n{text}\n")
    (folder / f"tables-{setting}.md").write_text(text + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is None:
        print("figures need matplotlib: pip install matplotlib", file=sys.stderr)
        return 0
    from examples.paper.figures import figures

    for file in figures(path, folder):
        print(file)
    return 0
