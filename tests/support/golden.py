"""Golden texts: files in sections that a reader can browse, held to what the code makes of them.

A section is a line ``== title`` and the text below it. With ``AUTMARG_TEST_REWRITE=1`` the sections
that a test checks are written anew: read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_TITLE = re.compile(r"^== (.+)\n", re.MULTILINE)


def sections(path: Path) -> dict[str, str]:
    """Texts of a file by their titles; what stands above the first title is for readers only."""
    _, *parts = _TITLE.split(path.read_text(encoding="utf-8"))
    return {title: text.strip("\n") for title, text in zip(parts[::2], parts[1::2], strict=True)}


def check(path: Path, **found: str) -> None:
    """The sections of these titles are the texts that were found."""
    if os.environ.get("AUTMARG_TEST_REWRITE"):
        head = _TITLE.split(path.read_text(encoding="utf-8"))[0]
        texts = (f"== {title}\n{text}\n" for title, text in (sections(path) | found).items())
        path.write_text(head + "\n".join(texts), encoding="utf-8")
    expected = sections(path)
    for title, text in found.items():
        assert text == expected[title], f"{path.name}, {title}"
