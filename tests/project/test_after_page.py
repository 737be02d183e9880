"""The code of docs/after.md runs, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("arviz")
pytest.importorskip("h5netcdf")
PAGE = Path(__file__).parents[2] / "docs" / "after.md"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:arviz"),
    pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto"),
]


def test_the_page_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    """Words as they are, population-level numbers to a fifth: chains differ between machines."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    printed: list[str] = []
    scope: dict = {"__name__": "page"}
    scope["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), scope)
    table, names = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    assert names == "\n".join(printed[1:])
    for said, found in zip(table.splitlines()[:12], printed[0].splitlines(), strict=False):
        assert re.split(r"\s{2,}", said)[0] == re.split(r"\s{2,}", found)[0]
    said = re.search(r"beta +(\S+)", table)
    assert said is not None
    np.testing.assert_allclose(scope["table"].population["mean"]["beta"], float(said[1]), rtol=0.2)
    assert scope["again"]["u"].shape == (1000, 10, 2)
    assert scope["loo"].n_data_points == 80
    assert all(row.startswith("u[") for row in scope["table"].effects.index)
    assert "days" in scope["table"].groups.index[1]
    for name in ("effects.png", "shrinkage.png"):
        assert (tmp_path / name).stat().st_size > 10_000
