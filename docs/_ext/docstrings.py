"""``Returns:`` in docstrings is a paragraph: napoleon takes what is before a colon for a type."""

from __future__ import annotations

from typing import Any


def _returns(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    start = next((k for k, line in enumerate(lines) if line == "Returns:"), None)
    if start is None:
        return
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
        end += 1
    body = [line.strip() for line in lines[start + 1 : end]]
    lines[start:end] = [f":returns: {body[0]}", *(f"    {line}".rstrip() for line in body[1:]), ""]


def setup(app: Any) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("autodoc-process-docstring", _returns, priority=400)  # before napoleon, at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
