"""The code of docs/prediction.md runs from an MCMC, and prints what the page says."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpyro.infer import Predictive

from tests.support import pages

pytestmark = pytest.mark.slow

NUMBER = r"\d+(?:\.\d+)?"


@pytest.fixture(scope="module")
def page():
    """The names that the page's code defines."""
    scope, printed = pages.run("prediction.md")
    return scope | {"printed": printed}


def test_the_page_prints_what_it_says(page):
    """Words as they are, numbers to a fifth: chains differ between machines."""
    said = "\n".join(pages.said("prediction.md"))
    printed = "\n".join(page["printed"])
    assert re.sub(NUMBER, "#", said) == re.sub(NUMBER, "#", printed)
    numbers = [[float(x) for x in re.findall(NUMBER, text)] for text in (said, printed)]
    np.testing.assert_allclose(*numbers, rtol=0.2)


def test_an_mcmc_predicts_as_its_draws_do(page):
    """Its chains may be kept apart, and an interval at a known level is NumPyro's."""
    marg, mcmc, key, draws = (page[name] for name in ("marg", "mcmc", "key", "draws"))
    np.testing.assert_array_equal(page["same"]["reaction"], page["new"])
    assert page["curve"].shape == (1000, 21) and page["each"].shape == (1000, 50)
    new = (page["rows"], page["who"], 13)
    apart = marg.predict(key, mcmc, *new, group_by_chain=True)
    np.testing.assert_array_equal(apart["reaction"], page["new"][None])
    run = (page["days"], page["subject"], 12, page["reaction"])
    posterior = marg.recover(key, draws, *run)
    theirs = Predictive(marg.source, posterior)(key, page["rows"][:1], np.array([3]), 12)
    both = np.stack([theirs["reaction"][:, 0], page["known"]])
    assert np.ptp(both.mean(1)) < 5 * both.std() * np.sqrt(2 / 1000)
    assert np.ptp(both.std(1)) < 5 * both.std() * np.sqrt(1 / 1000)
