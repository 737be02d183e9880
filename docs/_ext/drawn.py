"""Draw the pictures: every script in docs/figures writes its SVG files into docs/_drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.util import logging

HERE = Path(__file__).resolve().parents[1]


def _draw(app: Any) -> None:
    out = HERE / "_drawn"
    out.mkdir(exist_ok=True)
    for script in sorted((HERE / "figures").glob("*.py")):
        logging.getLogger(__name__).info("drawing %s", script.name)
        run = subprocess.run(
            [sys.executable, str(script), str(out)], capture_output=True, text=True
        )
        if run.returncode:
            raise ExtensionError(f"{script.name} failed:\n{run.stderr[-2000:]}")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("builder-inited", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
