"""The code of docs/whitening.md runs, and the plan has the words of the page."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size

from tests.support import pages


@pytest.mark.slow
def test_the_page_runs_and_prints_what_it_says() -> None:
    scope, printed = pages.run("whitening.md")
    plan, few = pages.said("whitening.md")
    said, found = (re.sub(r"[\d.,]+ (µs|ms)", "#", words) for words in (plan, printed[0]))
    assert found.startswith(said)
    posterior = scope["posterior"]
    (noise,) = (x for name, x in posterior.samples.items() if name.startswith("noise("))
    assert posterior.quality.ess <= effective_sample_size(np.asarray(noise)).min()
    assert scope["effects"]["own"].shape == (600, 120)
    assert "whitened: mean, slope, effect, own" in printed[1]
    assert "sd(effect) = between" in printed[1]
    words = re.compile(r"\d nodes|\de-\d\d nats|\de-\d\d at most")
    assert words.sub("#", printed[2]).startswith(words.sub("#", few))
