"""Two classic Beta-Binomial hierarchies: the transformed model is the one that was written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import autmarg

# Tumours in control groups of rats: Tarone (1982); Gelman et al., BDA3, table 5.1, whose last group
# is the current experiment.
TUMOURS = np.repeat(
    [0, 1, 2, 1, 5, 2, 5, 3, 2, 7, 7, 3, 2, 9, 10, 4, 10, 4, 5, 11, 12, 5, 6, 5, 6, 6, 16, 15, 15,
     9, 4],
    [14, 8, 9, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 7, 1, 3, 1, 1, 1, 2, 1, 1, 1, 3, 1, 1, 1, 1, 1],
)  # fmt: skip
RATS = np.array(
    [20] * 7 + [19] * 4 + [18] * 2 + [17] + [20] * 4 + [19] * 2 + [18] * 2 + [25, 24, 23]
    + [20] * 6 + [10, 49, 19, 46, 27, 17, 49, 47, 20, 20, 13, 48, 50] + [20] * 7
    + [48, 19, 19, 19, 22, 46, 49, 20, 20, 23, 19, 22, 20, 20, 20, 52, 47, 46, 24, 14]
)  # fmt: skip
# Hits of 18 players in their first 45 times at bat in 1970: Efron & Morris (1975).
HITS = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])


def hierarchy(successes, trials, scale, alpha):
    """Beta(phi κ, (1 - phi) κ) success rates; κ^-½ is flat where ``alpha`` is ½, as in BDA3."""
    phi = numpyro.sample("phi", dist.Uniform(0, 1))
    kappa = numpyro.sample("kappa", dist.Pareto(scale, alpha))
    with numpyro.plate("groups", len(successes)):
        theta = numpyro.sample("theta", dist.Beta(phi * kappa, (1 - phi) * kappa))
        numpyro.sample("y", dist.Binomial(trials, theta), obs=successes)


CASES = {"rats": (TUMOURS, RATS, 0.1, 0.5), "baseball": (HITS, 45, 1.0, 1.5)}


def test_the_rats_are_the_published_ones():
    assert len(TUMOURS) == len(RATS) == 71
    rates = (TUMOURS / RATS)[:70]
    assert (round(rates.mean(), 3), round(rates.std(), 3)) == (0.136, 0.103)  # BDA3, section 5.1


@pytest.mark.parametrize("name", CASES)
def test_found_and_exact(name, quick_compilation):
    marg = autmarg.transform(hierarchy)
    plan = marg.plan(*CASES[name])
    assert plan.integrated == ("theta",)
    assert f"Beta-Binomial rule, {len(CASES[name][0])} pairs" in str(plan)
    report = autmarg.verify(marg, *CASES[name], points=1, quiet=True)
    assert report.worst < 1e-9 * (report.rows + report.dimensions)


def run(model, case, seed):
    mcmc = MCMC(NUTS(model), num_warmup=1000, num_samples=4000, num_chains=2,
                chain_method="sequential", progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(seed), *case)
    return mcmc


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_long_runs_agree(name):
    """Means and standard deviations of all parameters, within 4.5 Monte Carlo standard errors."""
    case, marg = CASES[name], autmarg.transform(hierarchy)
    source = run(hierarchy, case, 0).get_samples(group_by_chain=True)
    ours = marg.recover(jax.random.key(2), run(marg, case, 1), *case, group_by_chain=True)
    for of in (source, ours):
        of["kappa"] = jnp.log(of["kappa"])
    for site in ("phi", "kappa", "theta"):
        for power in (1, 2):
            a, b = (np.asarray((of[site] - source[site].mean((0, 1))) ** power)
                    for of in (source, ours))  # fmt: skip
            error = np.hypot(*(x.std((0, 1)) / np.sqrt(effective_sample_size(x)) for x in (a, b)))
            z = (a.mean((0, 1)) - b.mean((0, 1))) / error
            print(name, site, power, np.mean(a), np.mean(b), np.abs(z).max(),
                  *(np.min(effective_sample_size(x)) for x in (a, b)))  # fmt: skip
            assert np.abs(z).max() < 4.5
