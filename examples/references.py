"""Do models whose likelihood is not Gaussian have the posteriors that others have published?

Each model is transformed with ``nongaussian="whiten"`` (some with ``"quadrature"``, too), sampled
with ``marg.sample`` and recovered. Mean and log standard deviation of each scalar are held against
the reference, in Monte-Carlo standard errors (MCSE) of the difference. A reference is what
posteriordb or inference_gym publish or, where they publish the model and its data alone, a long run
of NumPyro's NUTS on the source's non-centred spelling::

    git clone --depth 1 https://github.com/stan-dev/posteriordb
    git clone --depth 1 https://github.com/tensorflow/probability
    python -m examples.references FOLDER-OF-BOTH [names] [--draws 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import numpyro
from numpyro.infer import MCMC, NUTS

import autmarg
from examples.agreement import Draws, scalars, summary
from examples.models import posteriors
from examples.published import (
    Arguments,
    Figure,
    Figures,
    answers,
    counts,
    gym_figures,
    posteriordb_data,
    posteriordb_figures,
    returns,
)

CHAINS, LEAST_REFERENCE = 4, 4000


@dataclass(frozen=True)
class Case:
    """A model, what reads its data and its reference, and how its effects are left out.

    Attributes:
        model: as its author wrote it.
        arguments: folder of both repositories → the arguments.
        published: folder → the reference; None where the source has to be sampled.
        ways: values of ``nongaussian``.
        draws: of each chain, in units of those that are asked for.
    """

    model: Callable[..., None]
    arguments: Callable[[Path], Arguments]
    published: Callable[[Path], Figures] | None = None
    ways: tuple[str, ...] = ("whiten",)
    draws: float = 1.0


@dataclass(frozen=True)
class Row:
    """A line of the table: largest |z| of means and of log sds, and where they are."""

    scalars: int
    least: float
    least_reference: float
    mean: tuple[float, str]
    log_sd: tuple[float, str]
    beyond_2: int

    def __str__(self) -> str:
        worst = (f"{z:.2f} {at}" for z, at in (self.mean, self.log_sd))
        far = f"{self.beyond_2} of {2 * self.scalars}"
        sizes = f"{self.least_reference:,.0f} | {self.least:,.0f}"
        return f"{self.scalars} | {sizes} | {' | '.join(worst)} | {far}"


BOTH = ("whiten", "quadrature")
CASES: dict[str, Case] = {
    "gp_pois_regr": Case(
        posteriors.gp_pois_regr,
        posteriordb_data("gp_pois_regr", "x", "k"),
        posteriordb_figures("gp_pois_regr-gp_pois_regr"),
        draws=2,
    ),
    "item_response_theory": Case(
        posteriors.item_response_theory, answers, gym_figures("synthetic_item_response_theory")
    ),
    "stochastic_volatility": Case(
        posteriors.stochastic_volatility,
        returns,
        gym_figures("stochastic_volatility_sp500_small"),
        draws=2,
    ),
    "log_gaussian_cox_process": Case(
        posteriors.log_gaussian_cox_process,
        counts,
        gym_figures("synthetic_log_gaussian_cox_process"),
    ),
    "seeds": Case(
        posteriors.seeds, posteriordb_data("seeds_data", "x1", "x2", "N", "n"), None, BOTH, 2
    ),
    "surgical": Case(
        posteriors.surgical, posteriordb_data("surgical_data", "n", "r"), None, BOTH, 2
    ),
    "falcons": Case(
        posteriors.falcons, posteriordb_data("GLMM_Poisson_data", "year", "C"), None, BOTH, 2
    ),
    "irt_2pl": Case(posteriors.irt_2pl, posteriordb_data("irt_2pl", "y")),
}


def figure(x: np.ndarray) -> Figure:
    """A scalar's figures from draws [chain, draw]."""
    (mean, sd), (error, _), size = summary(x)
    return Figure(mean, error, sd, size)


def compared(ours: Draws, reference: Figures) -> Row:
    """Draws [chain, draw] against figures, scalar by scalar.

    The reference's log sd has the MCSE sqrt((κ - 1) / (4 size)). Its kurtosis κ is not published;
    ours stands in for it.
    """
    missing = set(reference) - set(ours)
    if missing:
        raise ValueError(f"the reference has {sorted(missing)[0]}, and no draws do")
    scores: dict[str, list[tuple[float, str]]] = {"mean": [], "log_sd": []}
    sizes = []
    for name, there in reference.items():
        (mean, sd), (error, sd_error), size = summary(ours[name])
        kurtosis = np.mean((ours[name] - mean) ** 4) / sd**4
        there_error = np.sqrt((kurtosis - 1) / (4 * there.size))
        z = abs(mean - there.mean) / np.hypot(error, there.mean_error)
        z_sd = abs(np.log(sd / there.sd)) / np.hypot(sd_error / sd, there_error)
        scores["mean"].append((float(z), name))
        scores["log_sd"].append((float(z_sd), name))
        sizes.append(size)
    beyond = sum(z > 2 for kind in scores.values() for z, _ in kind)
    least = min(each.size for each in reference.values())
    worst = {kind: max(found) for kind, found in scores.items()}
    return Row(len(reference), min(sizes), least, worst["mean"], worst["log_sd"], beyond)


def long_run(case: Case, args: Arguments, seed: int, draws: int = 10_000) -> Figures:
    """NumPyro's NUTS on the non-centred source, until each scalar has `LEAST_REFERENCE`."""
    nuts = NUTS(partial(case.model, centred=False), target_accept_prob=0.95)
    mcmc = MCMC(
        nuts, num_warmup=2000, num_samples=draws, num_chains=CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(seed + 1000), *args)
    found = jax.device_get(mcmc.get_samples(group_by_chain=True))
    kept = {name: x for name, x in found.items() if not name.startswith("z_")}
    figures = {name: figure(x) for name, x in scalars(kept).items()}
    if min(each.size for each in figures.values()) < LEAST_REFERENCE:
        return long_run(case, args, seed, 2 * draws)
    return figures


def transformed(case: Case, way: str, args: Arguments, seed: int, draws: int) -> Draws:
    """Draws [chain, draw] of each scalar of the source, by `marg.sample` and recovery."""
    marg = autmarg.transform(case.model, nongaussian=way)
    keys = jax.random.split(jax.random.key(seed))
    posterior = marg.sample(keys[0], *args, num_samples=draws, num_chains=CHAINS)
    return scalars(jax.device_get(marg.recover(keys[1], posterior, group_by_chain=True)))


def rows(name: str, folder: Path, draws: int, seed: int) -> Iterator[tuple[str, Row]]:
    """A case's lines, each with its way."""
    case = CASES[name]
    args = case.arguments(folder)
    reference = case.published(folder) if case.published else long_run(case, args, seed)
    for way in case.ways:
        yield way, compared(transformed(case, way, args, seed, int(draws * case.draws)), reference)


def main() -> None:
    parser = argparse.ArgumentParser(description="Posteriors against references.")
    parser.add_argument("folder", type=Path, help="where posteriordb/ and probability/ are")
    parser.add_argument("names", nargs="*", help=f"{', '.join(CASES)}; or all")
    parser.add_argument("--draws", type=int, default=2000, help="a chain (2,000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numpyro.enable_x64()
    print("model | way | reference | scalars | ESS there | ESS here | mean | log sd | beyond 2 | s")
    for name in options.names or CASES:
        started = time.perf_counter()
        kind = "published" if CASES[name].published else "long run"
        for way, row in rows(name, options.folder, options.draws, options.seed):
            took = time.perf_counter() - started
            print(f"{name} | {way} | {kind} | {row} | {took:.0f}", flush=True)


if __name__ == "__main__":
    main()
