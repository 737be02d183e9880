"""Are the posteriors of transformed models calibrated? Simulation-based calibration (SBC).

Parameters are drawn from the prior of the program as its user wrote it, and data from it at these
parameters. Where a posterior is right, the rank of a true value among independent draws from it is
uniform (Cook, Gelman & Rubin 2006, Validation of software for Bayesian models using posterior
quantiles; Talts et al. 2018, Validating Bayesian inference algorithms with SBC). The draws are of
NUTS on the transformed model, with recovery. Ranked is every scalar latent, kept or integrated out,
and the source's joint log-density, which sees what is wrong jointly (Modrák et al. 2023,
Simulation-based calibration checking for Bayesian computation)::

    python examples/calibration.py [--model crossed nested chain distributional]
                                   [--sampler nuts sample] [--datasets 50] [--seed 0]

With ``--sampler sample`` the draws are those of ``marg.sample`` in place of NUTS. So they always
are of the models whose likelihood is not Gaussian (counts to proportions): their effects are
whitened, with stand-ins at the mode of each data set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import autmarg

Values = Mapping[str, np.ndarray]
DRAWS, THINNING, WARMUP, BINS = 99, 10, 400, 10  # 100 ranks, ten a bin
JOINT = "log p(latents, y)"
X = np.linspace(-1.5, 1.5, 30)


def crossed(y=None):
    """A table of 6 × 5 with effects of rows and columns."""
    mu, beta = (numpyro.sample(name, dist.Normal(0, 2)) for name in ("mu", "beta"))
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    rows, columns = numpyro.plate("rows", 6, dim=-2), numpyro.plate("columns", 5, dim=-1)
    with rows:
        u = numpyro.sample("u", dist.Normal(0, tau[0]))
    with columns:
        v = numpyro.sample("v", dist.Normal(mu, tau[1]))
    with rows, columns:
        numpyro.sample("y", dist.Normal(u + v + beta * X.reshape(6, 5), sigma), obs=y)


SCHOOL, TOWN_OF = np.repeat(np.arange(8), 4), np.array([0, 0, 0, 1, 1, 2, 2, 2])
AGE = np.tile([-1.0, -0.3, 0.4, 1.1], 8)


def nested(y=None):
    """Pupils in schools in towns, a school's intercept and slope correlated."""
    alpha, beta = (numpyro.sample(name, dist.Normal(0, 1)) for name in ("alpha", "beta"))
    tau_town = numpyro.sample("tau_town", dist.HalfNormal(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))
    factor = tau[:, None] * numpyro.sample("L", dist.LKJCholesky(2, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("towns", 3):
        town = numpyro.sample("town", dist.Normal(alpha, tau_town))
    with numpyro.plate("schools", 8):
        loc = jnp.stack([town[TOWN_OF], jnp.full(8, beta)], axis=-1)
        school = numpyro.sample("school", dist.MultivariateNormal(loc, scale_tril=factor))
    with numpyro.plate("pupils", len(SCHOOL)):
        mean = school[SCHOOL, 0] + school[SCHOOL, 1] * AGE
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def chain(y=None):
    """A stationary AR(1) around an unknown level, observed with noise at 25 times."""
    phi = numpyro.sample("phi", dist.Uniform(0, 1))
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    tau, sigma = (numpyro.sample(name, dist.HalfNormal(1)) for name in ("tau", "sigma"))

    def step(before, y):
        x = numpyro.sample("x", dist.Normal(mu + phi * (before - mu), tau))
        return x, numpyro.sample("y", dist.Normal(x, sigma), obs=y)

    scan(step, mu, y, length=25)


GROUP = np.arange(30) % 5


def distributional(y=None):
    """Mean and log-scale of the noise both have a slope and effects of 5 groups."""
    a, b = (numpyro.sample(name, dist.Normal(0, 1)) for name in "ab")
    c, d = (numpyro.sample(name, dist.Normal(0, 0.5)) for name in "cd")
    tau, omega = (numpyro.sample(n, dist.HalfNormal(s)) for n, s in (("tau", 1), ("omega", 0.5)))
    with numpyro.plate("groups", 5):
        u = numpyro.sample("u", dist.Normal(a, tau))
        w = numpyro.sample("w", dist.Normal(c, omega))
    with numpyro.plate("rows", 30):
        noise = jnp.exp(w[GROUP] + d * X)
        numpyro.sample("y", dist.Normal(u[GROUP] + b * X, noise), obs=y)


def predictor():
    """A slope, effects of 5 groups, and 30 rows."""
    a, b = (numpyro.sample(name, dist.Normal(0, 1)) for name in "ab")
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("groups", 5):
        u = numpyro.sample("u", dist.Normal(a, tau))
    return u[GROUP] + b * X


def counts(y=None):
    """Poisson, log link."""
    numpyro.sample("y", dist.Poisson(jnp.exp(predictor())), obs=y)


def choices(y=None):
    """Bernoulli, logit link."""
    numpyro.sample("y", dist.Bernoulli(logits=predictor()), obs=y)


def robust(y=None):
    """Student's t with 4 degrees of freedom: its density is not log-concave."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    numpyro.sample("y", dist.StudentT(4.0, predictor(), sigma), obs=y)


def ratings(y=None):
    """Four ordered categories, their cutpoints sampled."""
    steps = numpyro.sample("steps", dist.HalfNormal(1).expand([2]).to_event(1))
    cuts = jnp.concatenate([jnp.array([-1.0]), -1 + jnp.cumsum(steps + 0.1)])
    numpyro.sample("y", dist.OrderedLogistic(predictor(), cuts), obs=y)


def successes(y=None):
    """Binomial of 6 trials, probit link."""
    numpyro.sample("y", dist.Binomial(6, probs=ndtr(predictor())), obs=y)


def overdispersed(y=None):
    """Negative binomial, log link."""
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(predictor()), 2.0), obs=y)


def excess(y=None):
    """Poisson with zeros in excess: its density is not log-concave."""
    numpyro.sample("y", dist.ZeroInflatedPoisson(0.3, jnp.exp(predictor())), obs=y)


def waiting(y=None):
    """Gamma, log link."""
    numpyro.sample("y", dist.Gamma(3.0, 3.0 * jnp.exp(-predictor())), obs=y)


def proportions(y=None):
    """Beta, logit link."""
    mean = jax.nn.sigmoid(predictor())
    numpyro.sample("y", dist.BetaProportion(mean, 6.0), obs=y)


WHITENED = (
    counts, choices, robust, ratings, successes, overdispersed, excess, waiting, proportions,
)  # fmt: skip
MODELS: dict[str, Callable[..., Any]] = {
    model.__name__: model for model in (crossed, nested, chain, distributional, *WHITENED)
}


@dataclass(frozen=True)
class Calibration:
    """Ranks of each scalar's true value, one a data set; divergences among the draws ranked."""

    name: str
    ranks: Values
    integrated: tuple[str, ...]
    divergences: int
    seconds: float

    def __str__(self) -> str:
        datasets = len(self.ranks[JOINT])
        lines = [
            f"{self.name}: {datasets} data sets, {len(self.ranks)} statistics, "
            f"{self.divergences} divergences, {self.seconds:.0f} s",
            f"{'':20}  {'chi²':>6}  df  {'p':>7}",
        ]
        for scalar, ranks in self.ranks.items():
            chi2, p = uniformity(ranks)
            how = "integrated out" if scalar.split("[")[0] in self.integrated else ""
            lines.append(f"{scalar:20}  {chi2:6.2f}  {BINS - 1:2}  {p:7.4f}  {how}".rstrip())
        return "\n".join(lines)


def ranks_of(truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """How many of the draws [data set, draw] are below the true value [data set]."""
    return (draws < truth[:, None]).sum(axis=1)


def uniformity(ranks: np.ndarray) -> tuple[float, float]:
    """χ² of the ranks 0 … `DRAWS` in `BINS` equal bins, and its p-value at BINS - 1 df."""
    counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
    return tuple(map(float, stats.chisquare(counts)))


def scalars(values: Values, lead: int) -> dict[str, np.ndarray]:
    """Each scalar of each site, ``lead`` leading dimensions; of a factor L, what is free in it."""
    return {
        f"{site}{list(at) if at else ''}": np.asarray(value)[(..., *at)]
        for site, value in sorted(values.items())
        for at in np.ndindex(np.shape(value)[lead:])
        if site != "L" or at[0] > at[1]
    }


def calibrate(name: str, datasets: int, seed: int) -> Calibration:
    """Simulate, sample all data sets in one compiled call, recover, rank."""
    started, source = time.perf_counter(), MODELS[name]
    marg = autmarg.transform(source)
    prior_key, key = jax.random.split(jax.random.key(seed))
    truth = dict(Predictive(source, num_samples=datasets)(prior_key))
    data = truth.pop("y")

    def joint(latents: Values, y: Any) -> Any:
        return log_density(source, (y,), {}, latents)[0]

    @jax.jit
    @jax.vmap
    def posterior(key: Any, y: Any) -> Any:
        sampling_key, recovery_key = jax.random.split(key)
        mcmc = MCMC(
            NUTS(marg, target_accept_prob=0.9),
            num_warmup=WARMUP,
            num_samples=DRAWS * THINNING,
            thinning=THINNING,
            progress_bar=False,
        )
        mcmc.run(sampling_key, y)
        draws = marg.recover(recovery_key, mcmc, y)
        draws = {site: draws[site] for site in truth}
        density = jax.vmap(joint, in_axes=(0, None))(draws, y)
        return {**draws, JOINT: density}, mcmc.get_extra_fields()["diverging"].sum()

    draws, divergences = posterior(jax.random.split(key, datasets), data)
    truth[JOINT] = jax.vmap(joint)(truth, data)
    below = scalars(draws, 2)
    ranks = {scalar: ranks_of(x, below[scalar]) for scalar, x in scalars(truth, 1).items()}
    integrated = marg.plan(data[0]).integrated
    seconds = time.perf_counter() - started
    return Calibration(name, ranks, integrated, int(divergences.sum()), seconds)


def calibrate_sample(name: str, datasets: int, seed: int) -> Calibration:
    """The same with draws of ``marg.sample``, one data set after the other."""
    started, source = time.perf_counter(), MODELS[name]
    marg = autmarg.transform(source, nongaussian="whiten")
    prior_key, key = jax.random.split(jax.random.key(seed))
    truth = dict(Predictive(source, num_samples=datasets)(prior_key))
    data = truth.pop("y")
    count = DRAWS * (THINNING if source in WHITENED else 1)

    @jax.jit
    @jax.vmap
    def joint(latents: Values, y: Any) -> Any:
        return log_density(source, (y,), {}, latents)[0]

    runs, nuts = [], 0
    for k, y in enumerate(np.asarray(data)):
        sampling_key, recovery_key = jax.random.split(jax.random.fold_in(key, k))
        posterior = marg.sample(sampling_key, y, num_samples=count, num_chains=1)
        nuts += posterior.method == "nuts"
        draws = marg.recover(recovery_key, posterior)
        draws = {site: x[:: count // DRAWS] for site, x in draws.items()}
        own = {site: draws[site] for site in truth}
        runs.append({**own, JOINT: joint(own, np.broadcast_to(y, (DRAWS, *y.shape)))})
    truth[JOINT] = joint(truth, data)
    below = scalars({n: np.stack([run[n] for run in runs]) for n in runs[0]}, 2)
    ranks = {scalar: ranks_of(x, below[scalar]) for scalar, x in scalars(truth, 1).items()}
    print(f"{name}: {datasets - nuts} by independence sampling, {nuts} by NUTS")
    integrated = marg.plan(np.asarray(data)[0]).integrated
    return Calibration(name, ranks, integrated, 0, time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sampler", choices=("nuts", "sample"), default="nuts")
    parser.add_argument("--datasets", type=int, default=50, help="each (50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bins", type=Path, help="a CSV file for counts of ranks in ten bins")
    options = parser.parse_args()
    lines = ["model,statistic," + ",".join(f"bin{k}" for k in range(10))]
    numpyro.enable_x64()
    smallest, statistics = 1.0, 0
    for name in options.model:
        one_by_one = options.sampler == "sample" or MODELS[name] in WHITENED
        by = calibrate_sample if one_by_one else calibrate
        result = by(name, options.datasets, options.seed)
        print(result, end="\n\n", flush=True)
        statistics += len(result.ranks)
        for scalar, ranks in result.ranks.items():
            counts = np.histogram(ranks, bins=10, range=(0, DRAWS + 1))[0]
            lines.append(f'{name},"{scalar}",' + ",".join(map(str, counts)))
        if options.bins is not None:
            options.bins.write_text("\n".join(lines) + "\n")
        smallest = min([smallest, *(uniformity(r)[1] for r in result.ranks.values())])
    verdict = "uniform" if smallest > 0.01 / statistics else "NOT UNIFORM"
    print(
        f"smallest p of {statistics}: {smallest:.2g}, {verdict} at 0.01 by Bonferroni "
        f"(bound {0.01 / statistics:.2g})"
    )


if __name__ == "__main__":
    main()
