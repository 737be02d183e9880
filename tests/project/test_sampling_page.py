"""The code of docs/sampling.md runs, and the report has the words of the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "sampling.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:arviz")
def test_the_page_runs_and_prints_what_it_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    printed: list[str] = []
    scope: dict = {"__name__": "page"}
    scope["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), scope)
    (said,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    words = [re.sub(r"-?[\d.,]+", "#", report) for report in (said, printed[0])]
    assert words[0] == words[1]
    assert scope["everything"]["effect"].shape == (4000, 20)
    own = scope["posterior"].quality.evidence.log_evidence
    assert abs(scope["evidence"].log_evidence - own) < 0.05
    mean = np.asarray(scope["mcmc"].get_samples()["spread"]).mean()
    assert abs(mean - np.asarray(scope["everything"]["spread"]).mean()) < 0.05
