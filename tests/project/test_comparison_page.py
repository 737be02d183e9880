"""The code of docs/comparison.md runs, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_prints_what_it_says(capsys):
    before = jax.config.read("jax_enable_x64")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    exec(compile(code, "comparison.md", "exec"), {"__name__": "page"})
    assert jax.config.read("jax_enable_x64") == before
    said = "\n".join(re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL))
    assert capsys.readouterr().out.strip() == said.strip()
