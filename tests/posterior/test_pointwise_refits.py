"""Leave-one-out by importance sampling over θ alone, against fits without what is left out."""

from __future__ import annotations

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy.special import logsumexp

import autmarg

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


def reaction_times(days, subject, keep, y):
    alpha, beta = (numpyro.sample(n, dist.Normal(m, 100)) for n, m in (("a", 250), ("b", 0)))
    sigma = numpyro.sample("sigma", dist.HalfNormal(50))
    tau = numpyro.sample("tau", dist.HalfNormal(50).expand([2]).to_event(1))
    with numpyro.plate("subjects", 18):
        u = numpyro.sample("u", dist.Normal(0, tau).to_event(1))
    mean = alpha + u[subject, 0] + (beta + u[subject, 1]) * days
    with numpyro.plate("rows", len(days)):
        numpyro.sample("y", dist.Normal(mean, sigma).mask(keep), obs=y)


def counties(x, county, keep, y):
    a, b = (numpyro.sample(name, dist.Normal(0, 2)) for name in "ab")
    tau, sigma = (numpyro.sample(name, dist.HalfNormal(1)) for name in ("tau", "sigma"))
    with numpyro.plate("counties", 8):
        u = numpyro.sample("u", dist.Normal(a, tau))
    numpyro.sample("y", dist.Normal(u[county] + b * x, sigma).mask(keep), obs=y)


def draws(marg, args, seed):
    mcmc = MCMC(NUTS(marg), num_warmup=400, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(seed), *args)
    return mcmc


def compare(model, args, left, **options):
    """ELPD of each of ``left`` (number → rows) by PSIS less that by fits without these rows; and
    the latter's Monte Carlo error."""
    x, group, y = args
    marg, every = autmarg.transform(model), np.ones(len(y), bool)
    mcmc = draws(marg, (x, group, every, y), 0)
    whole = marg.log_likelihood(mcmc, x, group, every, y, group_by_chain=True, **options)
    loo = az.loo(
        az.from_dict(posterior=mcmc.get_samples(True), log_likelihood=whole), pointwise=True
    )
    refits, errors = [], []
    for number, rows in left.items():
        keep = every.copy()
        keep[rows] = False
        refit = draws(marg, (x, group, keep, y), 1 + number)
        terms = marg.log_likelihood(refit, x, group, every, y, other_data=True, **options)
        own = np.asarray(terms["y"][:, number])
        refits.append(logsumexp(own) - np.log(len(own)))
        weight = np.exp(own - own.max())
        errors.append(weight.std() / weight.mean() / np.sqrt(len(own) / 4))
    numbers = list(left)
    difference = loo.loo_i.to_numpy()[numbers] - np.array(refits)
    # Importance sampling says by k where it cannot be trusted: for a subject unlike the others.
    sound = loo.pareto_k.to_numpy()[numbers] < 0.7
    assert sound.sum() >= len(sound) - 2
    return difference[sound], np.array(errors)[sound]


def test_leaving_out_each_subject(data):
    table = data("sleepstudy")
    subject = np.unique(table["subject"], return_inverse=True)[1]
    args = table["days"].astype(float), subject, table["reaction"]
    left = {k: np.flatnonzero(subject == k) for k in range(18)}
    difference, error = compare(reaction_times, args, left, which="group", by="subject")
    assert (np.abs(difference) < 5 * error + 0.05).all()
    assert abs(difference.sum()) < 5 * np.sqrt(np.square(error).sum())


def test_leaving_out_single_rows():
    rng = np.random.default_rng(0)
    county, x = np.sort(rng.integers(0, 8, 60)), rng.normal(size=60)
    y = rng.normal(size=8)[county] + 0.5 * x + 0.7 * rng.normal(size=60)
    left = {k: np.array([k]) for k in range(0, 60, 6)}
    difference, error = compare(counties, (x, county, y), left, which="marginal")
    assert (np.abs(difference) < 5 * error + 0.02).all()
