"""The code of docs/whitening.md runs, and the plan has the words of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "whitening.md"


@pytest.mark.slow
def test_the_page_runs_and_prints_what_it_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    printed: list[str] = []
    scope: dict = {"__name__": "page"}
    scope["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), scope)
    (said,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    said, found = (re.sub(r"[\d.,]+ (µs|ms)", "#", words) for words in (said, printed[0]))
    assert found.startswith(said)
    assert scope["effects"]["own"].shape == (600, 120)
    assert "sd(effect) = between" in printed[1]
