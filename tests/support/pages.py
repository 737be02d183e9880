"""Pages of the documentation: their code, run, and what they say it prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def run(name: str) -> tuple[dict[str, Any], list[str]]:
    """The names that the code of a page defines, and what it printed, a text for each call."""
    path = DOCS / name
    printed: list[str] = []
    scope: dict[str, Any] = {"__name__": "page"}
    scope["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    for code in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(path), "exec", dont_inherit=True), scope)
    return scope, printed


def said(name: str) -> list[str]:
    """The outputs that a page shows."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
