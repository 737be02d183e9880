"""The code of docs/passes.md runs, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import autmarg

PAGE = Path(__file__).parents[2] / "docs" / "passes.md"


def test_the_page_runs(capsys):
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL)
    scope: dict = {"__name__": "page"}
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, str(PAGE), "exec", dont_inherit=True), scope)
    printed = capsys.readouterr().out
    default, counts, program, _ = (code for kind, code in blocks if kind == "text")
    assert default in printed and counts in printed
    assert str(scope["program"]) == program.rstrip("\n")
    assert "marginalise (linear Gaussian): mu, theta, y" in printed
    assert isinstance(scope["marg"], autmarg.MarginalizedModel)
    assert len(next(code for _, code in blocks if "class Count" in code).splitlines()) < 20
