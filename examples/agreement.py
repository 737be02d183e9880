"""Do the transformed models have the posterior of the models that their users wrote?

For each data set, a long NUTS run of the source's non-centred spelling (ordinary NumPyro, target
acceptance 0.99) is held against NUTS with default settings on the transform of the centred
spelling, with recovery. Compared are the posterior mean and standard deviation of every scalar
latent, recovered ones included, in Monte-Carlo standard errors (MCSE) of their difference::

    python examples/agreement.py [sleepstudy dutch grouseticks] [--draws 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import autmarg
from examples.models import REFERENCE
from examples.models.published import columns
from examples.models.reference import Model, Reference, sites

Draws = Mapping[str, np.ndarray]
CHAINS, WARMUP, MIN_ESS = 2, 1000, 1000


@dataclass(frozen=True)
class Run:
    """One program's draws (chain, draw) of each scalar latent, and what they took."""

    draws: Draws
    min_ess: float
    divergences: int
    seconds: float


@dataclass(frozen=True)
class Agreement:
    """The two runs, and each scalar latent's difference in mean and in sd, in MCSE."""

    name: str
    runs: dict[str, Run]
    differences: dict[str, dict[str, float]]

    def worst(self, statistic: str) -> tuple[float, str]:
        """The largest absolute difference of the "mean" or the "sd", and where it is."""
        return max((abs(z), latent) for latent, z in self.differences[statistic].items())

    def __str__(self) -> str:
        lines = [f"{self.name:11}  worst |difference|  at            beyond 2 MCSE"]
        for statistic, scores in self.differences.items():
            (worst, at), far = self.worst(statistic), np.abs([*scores.values()]) > 2
            lines.append(f"{statistic:11}  {worst:13.2f} MCSE  {at:12}  {far.sum()} of {far.size}")
        lines.append(f"{'':11}     draws  min ESS  divergences  seconds")
        for program, run in self.runs.items():
            size = "x".join(map(str, next(iter(run.draws.values())).shape))
            cells = f"{run.min_ess:7.0f}  {run.divergences:11d}  {run.seconds:7.0f}"
            lines.append(f"{program:11}  {size:>8}  {cells}")
        return "\n".join(lines)


def sleepstudy(subject, days, reaction=None, *, centred: bool = True):
    """reaction ~ 1 + days + (1 + days | subject), the two effects of a subject correlated."""
    alpha = numpyro.sample("alpha", dist.Normal(250, 100))
    beta = numpyro.sample("beta", dist.Normal(0, 50))
    sigma = numpyro.sample("sigma", dist.HalfNormal(50))
    tau = numpyro.sample("tau_u", dist.HalfNormal(np.array([50.0, 20.0])).to_event(1))
    T = tau[:, None] * numpyro.sample("L_u", dist.LKJCholesky(2))
    with numpyro.plate("subjects", len(np.unique(subject))):
        if centred:
            u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
        else:
            u = numpyro.sample("z_u", dist.Normal(0, 1).expand([2]).to_event(1)) @ T.T
    with numpyro.plate("rows", len(days)):
        mean = alpha + u[subject, 0] + days * (beta + u[subject, 1])
        numpyro.sample("reaction", dist.Normal(mean, sigma), obs=reaction)


def correlated(draws: Draws, effects: str) -> Draws:
    """Each effect u as z_u (diag(tau_u) L_u)', in place of z_u."""
    out = dict(draws)
    for u in effects.split():
        factor = out[f"tau_{u}"][..., None] * out[f"L_{u}"]
        out[u] = out.pop(f"z_{u}") @ np.swapaxes(factor, -1, -2)
    return out


def with_group_means(draws: Draws) -> Draws:
    """Broods and locations as m + s z, in place of z."""
    out = dict(draws)
    for group in ("brood", "location"):
        mean, scale = (out[f"{letter}_{group[0]}"][..., None] for letter in "ms")
        out[group] = mean + scale * out.pop(f"z_{group}")
    return out


SLEEPSTUDY = Reference(
    "sleepstudy",
    columns("sleepstudy", "subject", "days", "reaction"),
    {"centred": sleepstudy, "noncentred": partial(sleepstudy, centred=False)},
    {"centred": sites("u alpha beta"), "noncentred": sites("z_u alpha beta")},
)
# A model, and what takes draws of its non-centred spelling to all latents of its first one.
CASES: dict[str, tuple[Reference, Callable[[Draws], Draws]]] = {
    "sleepstudy": (SLEEPSTUDY, partial(correlated, effects="u")),
    "dutch": (REFERENCE["dutch"], partial(correlated, effects="u v")),
    "grouseticks": (REFERENCE["grouseticks"], with_group_means),
}


def scalars(draws: Draws) -> dict[str, np.ndarray]:
    """Each scalar latent's draws (chain, draw); of a correlation's factor L, what is free in it."""
    return {
        f"{site}{list(at) if at else ''}": np.asarray(values)[:, :, *at]
        for site, values in sorted(draws.items())
        for at in np.ndindex(values.shape[2:])
        if not site.startswith("L_") or at[0] > at[1]
    }


def summary(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(Mean, sd), the MCSE of each, and the smaller of the two effective sample sizes (ESS).

    ESS is of split chains; MCSE as in the R package posterior (after Vehtari et al. 2021,
    Rank-normalization, folding, and localization): sd / sqrt(ESS), and by the delta method, with
    d = x - mean and v = mean of d², sqrt((mean of d⁴ - v²) / ESS(d²) / (4 v)).
    """
    half = x.shape[1] // 2
    split = np.concatenate([x[:, :half], x[:, half : 2 * half]])
    squares = (split - split.mean()) ** 2
    variance = squares.mean()
    spread = np.array([variance, (np.mean(squares**2) - variance**2) / (4 * variance)])
    sizes = np.array([effective_sample_size(split), effective_sample_size(squares)])
    return np.array([split.mean(), np.sqrt(variance)]), np.sqrt(spread / sizes), float(sizes.min())


def sample(model: Model, args: tuple[Any, ...], latents, key: Any, draws: int, **settings) -> Run:
    """NUTS, ``draws`` a chain at a time until every latent's ESS is at least `MIN_ESS`."""
    started, how = time.perf_counter(), {"chain_method": "vectorized", "num_chains": CHAINS}
    nuts = NUTS(model, **settings)
    mcmc = MCMC(nuts, num_warmup=WARMUP, num_samples=draws, progress_bar=False, **how)
    parts, divergences, least = [], 0, 0.0
    while least < MIN_ESS:
        key, sampling_key, latents_key = jax.random.split(key, 3)
        mcmc.run(sampling_key, *args)
        mcmc.post_warmup_state = mcmc.last_state
        divergences += int(mcmc.get_extra_fields()["diverging"].sum())
        sampled = jax.device_get(mcmc.get_samples(group_by_chain=True))
        parts.append(scalars(latents(latents_key, sampled)))
        joined = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
        least = float(np.min([summary(x)[-1] for x in joined.values()]))  # nan if any is
    return Run(joined, least, divergences, time.perf_counter() - started)


def agreement(name: str, draws: int = 10_000, seed: int = 0) -> Agreement:
    """Sample both programs of one data set, and compare their posteriors."""
    (reference, latents), keys = CASES[name], jax.random.split(jax.random.key(seed), 2)
    args, marg = reference.arguments(), autmarg.transform(reference.first)
    noncentred = (reference.spellings["noncentred"], args, lambda _, draws: latents(draws))
    source = sample(*noncentred, keys[0], draws, target_accept_prob=0.99)
    recovered = (marg, args, lambda key, kept: marg.recover(key, kept, *args))
    transformed = sample(*recovered, keys[1], draws)
    if set(source.draws) != set(transformed.draws):
        raise ValueError(f"{name}: the programs have different latents")
    differences: dict[str, dict[str, float]] = {"mean": {}, "sd": {}}
    for latent, x in source.draws.items():
        (a, a_error, _), (b, b_error, _) = summary(x), summary(transformed.draws[latent])
        z = (a - b) / np.hypot(a_error, b_error)
        differences["mean"][latent], differences["sd"][latent] = map(float, z)
    return Agreement(name, {"source": source, "autmarg": transformed}, differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"data sets of {', '.join(CASES)}; or all")
    parser.add_argument("--draws", type=int, default=10_000, help="a chain, at least (10,000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.names) - set(CASES):
        parser.error(f"no data set {', '.join(sorted(unknown))}; expected {', '.join(CASES)}")
    numpyro.enable_x64()
    for name in options.names or CASES:
        print(agreement(name, options.draws, options.seed), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
