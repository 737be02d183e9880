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
from examples.data import load
from examples.models import REFERENCE
from examples.models.reference import Model

Draws = Mapping[str, np.ndarray]
CHAINS, WARMUP, MIN_ESS, LIMIT = 2, 1000, 1000, 4.0


@dataclass(frozen=True)
class Case:
    """A centred model, its non-centred spelling, and the way from the latter's draws to the former.

    ``latents`` maps draws, with any leading dimensions, to all latent sites of ``centred``.
    """

    arguments: Callable[[], tuple[Any, ...]]
    centred: Model
    noncentred: Model
    latents: Callable[[Draws], Draws]


@dataclass(frozen=True)
class Run:
    """One program's draws of all centred latents, (chain, draw, …), and what they took."""

    draws: Draws
    divergences: int
    seconds: float


@dataclass(frozen=True)
class Agreement:
    """The two runs, their sizes, and the differences of all scalar latents in MCSE."""

    name: str
    source: Run
    transformed: Run
    min_ess: tuple[float, float]
    means: dict[str, float]
    sds: dict[str, float]

    def __str__(self) -> str:
        lines = [f"{self.name}, {len(self.means)} scalar latents", ""]
        lines += [f"{'':12}  {'worst |difference|':>18}  {'at':12}  beyond 2 MCSE"]
        for title, differences in (("means", self.means), ("sds", self.sds)):
            at = max(differences, key=lambda latent: abs(differences[latent]))
            beyond = np.mean(np.abs(list(differences.values())) > 2)
            worst = f"{abs(differences[at]):.2f} MCSE"
            lines.append(f"{title:12}  {worst:>18}  {at:12}  {beyond:13.1%}")
        lines += ["", f"{'program':12}  {'draws':>8}  {'min ESS':>8}  divergences  seconds"]
        runs = {"source": self.source, "autmarg": self.transformed}
        for (title, run), ess in zip(runs.items(), self.min_ess, strict=True):
            chains, draws = next(iter(run.draws.values())).shape[:2]
            size = f"{chains}x{draws}"
            numbers = f"{ess:8.0f}  {run.divergences:11d}  {run.seconds:7.0f}"
            lines.append(f"{title:12}  {size:>8}  {numbers}")
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


def sleepstudy_arguments() -> tuple[np.ndarray, ...]:
    data = load("sleepstudy")
    return data["subject"], data["days"], data["reaction"]


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


def _reference(name: str, latents: Callable[[Draws], Draws]) -> Case:
    model = REFERENCE[name]
    return Case(model.arguments, model.first, model.spellings["noncentred"], latents)


CASES: dict[str, Case] = {
    "sleepstudy": Case(
        sleepstudy_arguments,
        sleepstudy,
        partial(sleepstudy, centred=False),
        partial(correlated, effects="u"),
    ),
    "dutch": _reference("dutch", partial(correlated, effects="u v")),
    "grouseticks": _reference("grouseticks", with_group_means),
}


def scalars(draws: Draws) -> dict[str, np.ndarray]:
    """Each scalar latent's draws (chain, draw); of a correlation's factor L, what is free in it."""
    return {
        f"{site}{list(at) if at else ''}": values[:, :, *at]
        for site, values in sorted(draws.items())
        for at in np.ndindex(values.shape[2:])
        if not site.startswith("L_") or at[0] > at[1]
    }


def ess(x: np.ndarray) -> float:
    """Effective sample size from split chains (chain, draw), as in Vehtari et al. (2021)."""
    half = x.shape[1] // 2
    return float(effective_sample_size(np.concatenate([x[:, :half], x[:, half : 2 * half]])))


def summary(x: np.ndarray) -> tuple[float, float, float, float, float]:
    """Mean, sd, the MCSE of each, and the smaller of the two effective sample sizes.

    As ``mcse_mean`` and ``mcse_sd`` of the R package posterior 1.4 (Vehtari et al. 2021,
    Rank-normalization, folding, and localization): sd / sqrt(ESS), and by the delta method from
    the variance v = mean of d², d = x - mean: sqrt((mean of d⁴ - v²) / ESS(d²) / (4 v)).
    """
    squares = (x - x.mean()) ** 2
    size, size_squares, variance = ess(x), ess(squares), squares.mean()
    of_sd = np.sqrt((np.mean(squares**2) - variance**2) / size_squares / (4 * variance))
    return x.mean(), np.sqrt(variance), np.sqrt(variance / size), of_sd, min(size, size_squares)


def sample(model: Model, args: tuple[Any, ...], latents, key: Any, draws: int, **settings) -> Run:
    """NUTS, ``draws`` a chain at a time until every latent's ESS is at least `MIN_ESS`."""
    started = time.perf_counter()
    mcmc = MCMC(NUTS(model, **settings), num_warmup=WARMUP, num_samples=draws, num_chains=CHAINS,
                chain_method="vectorized", progress_bar=False)  # fmt: skip
    parts, divergences, enough = [], 0, False
    while not enough:
        key, sampling_key, latents_key = jax.random.split(key, 3)
        mcmc.run(sampling_key, *args)
        mcmc.post_warmup_state = mcmc.last_state
        divergences += int(mcmc.get_extra_fields()["diverging"].sum())
        parts.append(jax.device_get(latents(latents_key, mcmc.get_samples(group_by_chain=True))))
        joined = {site: np.concatenate([p[site] for p in parts], axis=1) for site in parts[0]}
        enough = min(summary(x)[-1] for x in scalars(joined).values()) >= MIN_ESS
    return Run(joined, divergences, time.perf_counter() - started)


def agreement(name: str, draws: int = 10_000, seed: int = 0) -> Agreement:
    """Both runs of one data set, and the differences of their posteriors."""
    case, keys = CASES[name], jax.random.split(jax.random.key(seed), 2)
    args, marg = case.arguments(), autmarg.transform(case.centred)

    def centre(_: Any, noncentred: Draws) -> Draws:
        return case.latents(jax.device_get(noncentred))

    def recover(key: Any, kept: Draws) -> Draws:
        return marg.recover(key, kept, *args)

    source = sample(case.noncentred, args, centre, keys[0], draws, target_accept_prob=0.99)
    transformed = sample(marg, args, recover, keys[1], draws)
    before, after = (scalars(run.draws) for run in (source, transformed))
    if set(before) != set(after):
        raise ValueError(f"{name}: the programs differ in {set(before) ^ set(after)}")
    means, sds, sizes = {}, {}, []
    for latent in before:
        a, b = summary(before[latent]), summary(after[latent])
        means[latent] = (a[0] - b[0]) / np.hypot(a[2], b[2])
        sds[latent] = (a[1] - b[1]) / np.hypot(a[3], b[3])
        sizes.append((a[4], b[4]))
    least = np.min(sizes, axis=0)
    return Agreement(name, source, transformed, (least[0], least[1]), means, sds)


def main() -> None:
    """Print the table of each data set that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(CASES)}; all")
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
