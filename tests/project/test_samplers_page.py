"""The code of docs/samplers.md runs, and other samplers have the posterior that NUTS has."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS

from tests.support import pages

pytest.importorskip("blackjax")


@pytest.mark.slow
def test_the_page_runs_and_all_samplers_agree() -> None:
    """Means within five standard errors of long chains, deviations within a fifth."""
    scope, _ = pages.run("samplers.md")
    mcmc = MCMC(NUTS(scope["model"]), num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(9), *scope["args"])
    expected = mcmc.get_samples()
    assert set(scope["posteriors"]) == {"HMC", "BarkerMH", "BlackJAX", "SVI"}
    for found in scope["posteriors"].values():
        for site in ("slope", "u"):
            mean, deviation = expected[site].mean(0), expected[site].std(0)
            error = np.abs(found[site].mean(0) - mean) / deviation
            assert error.max() < 0.35  # five standard errors at 200 effective draws
            np.testing.assert_allclose(found[site].std(0), deviation, rtol=0.2)
