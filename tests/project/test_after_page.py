"""The code of docs/after.md runs, and prints what the page says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.support import pages

pytest.importorskip("arviz")
pytest.importorskip("h5netcdf")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:arviz"),
    pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto"),
]


def test_the_page_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    """Words as they are, population-level numbers to a fifth: chains differ between machines."""
    monkeypatch.chdir(tmp_path)
    scope, printed = pages.run("after.md")
    table, names = pages.said("after.md")
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
