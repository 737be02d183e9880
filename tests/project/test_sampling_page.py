"""The code of docs/sampling.md runs, and the report has the words of the page."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.support import pages


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:arviz")
def test_the_page_runs_and_prints_what_it_says() -> None:
    scope, printed = pages.run("sampling.md")
    (said,) = pages.said("sampling.md")
    words = [re.sub(r"-?[\d.,]+", "#", report) for report in (said, printed[0])]
    assert words[0] == words[1]
    assert scope["everything"]["effect"].shape == (4000, 20)
    own = scope["posterior"].quality.evidence.log_evidence
    assert abs(scope["evidence"].log_evidence - own) < 0.05
    mean = np.asarray(scope["mcmc"].get_samples()["spread"]).mean()
    assert abs(mean - np.asarray(scope["everything"]["spread"]).mean()) < 0.05
