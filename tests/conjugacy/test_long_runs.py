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
from scipy.special import betaln

import autmarg
from tests.support.lanes import lanes

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


@pytest.mark.parametrize("name", lanes(CASES, ["baseball"]))
def test_found_and_exact(name, quick_compilation):
    marg = autmarg.transform(hierarchy)
    plan = marg.plan(*CASES[name])
    assert plan.integrated == ("theta",)
    assert f"Beta-Binomial rule, {len(CASES[name][0])} pairs" in str(plan)
    report = autmarg.verify(marg, *CASES[name], points=1, quiet=True)
    assert report.worst < 1e-9 * (report.rows + report.dimensions)


def run(model, case, seed):
    """The model as written has a funnel at large kappa, which smaller steps get into."""
    kernel = NUTS(model, target_accept_prob=0.99)
    mcmc = MCMC(kernel, num_warmup=1000, num_samples=4000, num_chains=2,
                chain_method="sequential", progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(seed), *case)
    return mcmc


def quadrature(successes, trials, scale, alpha):
    """Posterior means and standard deviations of phi and log kappa, on a grid, by SciPy."""
    phi, log_kappa = np.linspace(0.05, 0.6, 600)[:, None], np.linspace(np.log(scale), 20, 3000)
    kappa, log_p = np.exp(log_kappa), -alpha * log_kappa
    for y, n in zip(successes, np.broadcast_to(trials, successes.shape), strict=True):
        a, b = phi * kappa, (1 - phi) * kappa
        log_p = log_p + betaln(a + y, b + n - y) - betaln(a, b)
    weight = np.exp(log_p - log_p.max())
    weight /= weight.sum()
    pairs = {"phi": phi, "kappa": log_kappa}
    means = {name: (weight * x).sum() for name, x in pairs.items()}
    return means, {n: (weight * (x - means[n]) ** 2).sum() ** 0.5 for n, x in pairs.items()}


def mean_and_error(x):
    """Of draws [chain, draw, ...]: the mean and its Monte Carlo standard error."""
    size = effective_sample_size(x)
    assert np.min(size) > 200  # else the error is not known
    return x.mean((0, 1)), x.std((0, 1)) / np.sqrt(size)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_long_runs_agree(name):
    """With each other, and with quadrature, within 4.5 Monte Carlo standard errors."""
    case, marg = CASES[name], autmarg.transform(hierarchy)
    source = run(hierarchy, case, 0).get_samples(group_by_chain=True)
    ours = marg.recover(jax.random.key(2), run(marg, case, 1), *case, group_by_chain=True)
    means, spreads = quadrature(*case)
    for of in (source, ours):
        of["kappa"] = jnp.log(of["kappa"])
        for site, mean in means.items():
            found, error = mean_and_error(np.asarray(of[site]))
            assert abs(found - mean) < 4.5 * error
            found, error = mean_and_error(np.asarray(of[site] - mean) ** 2)
            assert abs(found - spreads[site] ** 2) < 4.5 * error
    centre = source["theta"].mean((0, 1))
    for power in (1, 2):
        pairs = (mean_and_error(np.asarray(of["theta"] - centre) ** power) for of in (source, ours))
        (a, of_a), (b, of_b) = pairs
        assert (np.abs(a - b) < 4.5 * np.hypot(of_a, of_b)).all()
