"""The code of docs/whitening.md runs, and the plan has the words of the page."""

from __future__ import annotations

import re

import pytest

from tests.support import pages


@pytest.mark.slow
def test_the_page_runs_and_prints_what_it_says() -> None:
    scope, printed = pages.run("whitening.md")
    (plan,) = pages.said("whitening.md")
    said, found = (re.sub(r"[\d.,]+ (µs|ms)", "#", words) for words in (plan, printed[0]))
    assert found.startswith(said)
    assert scope["effects"]["own"].shape == (600, 120)
    assert "sd(effect) = between" in printed[1]
