"""Likelihoods that are not Gaussian: whitened effects beside the source in its two forms.

Effects by quadrature leave few dimensions, and are sampled by ``marg.sample``: its rate has
adaptation and recovery in it, that of the others only recovery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

import autmarg
from autmarg.sampling.independence import MOST_DIMENSIONS
from examples.benchmarks.independence import rate, sampled
from examples.models.likelihoods import MODELS

QUADRATURE, TUNED = "quadrature", "tuned"
NAMES = tuple(MODELS)
PROGRAMS = ("source", "noncentred", "whiten", TUNED, "auto", QUADRATURE)
_TUNING = 300  # draws that stand-ins are tuned by
_LIMIT = 150.0  # seconds of one chain
_COLUMNS = (
    "dims", "leapfrogs_a_draw", "divergences", "min_ess", "site", "ess_per_1000_gradients",
    "us_a_gradient", "ess_per_s", "compile_s",
)  # fmt: skip


def likelihoods(
    name: str, programs: Sequence[str], seed: int, warmup: int, draws: int
) -> list[dict[str, Any]]:
    """One row for each program: one chain, the least effective size over all latents."""
    model, arguments = MODELS[name]
    options = {"num_warmup": warmup, "num_samples": draws, "limit": _LIMIT, "progress": False}
    args = arguments()
    chains = [each for each in programs if each not in (QUADRATURE, TUNED)]
    found = autmarg.compare(model, *args, programs=chains, seed=seed, **options) if chains else None
    rows = [_row(name, seed, pilot) for pilot in found.pilots] if found else []
    if TUNED in programs:
        (pilot,) = autmarg.compare(
            _tuned(model, args, seed), *args, programs=("given",), seed=seed, **options
        ).pilots
        rows.append(_row(name, seed, pilot) | {"program": TUNED})
    if QUADRATURE in programs:
        rows.append(_by_quadrature(name, model, args, seed, draws))
    return rows


def _tuned(model: Any, args: Any, seed: int) -> autmarg.MarginalizedModel:
    """Whitened, with stand-ins from a short run with those at the mode."""
    marg = autmarg.transform(model, nongaussian="whiten")
    posterior = marg.sample(
        jax.random.key(seed), *args, num_samples=_TUNING, num_chains=1, method="nuts"
    )
    return marg.tune(posterior)


def _by_quadrature(name: str, model: Any, args: Any, seed: int, draws: int) -> dict[str, Any]:
    """By ``marg.sample``, the second of two calls; empty where too many dimensions are left."""
    marg = autmarg.transform(model, nongaussian=QUADRATURE)
    plan = marg.plan(*args)
    row = {"model": name, "program": QUADRATURE, "seed": seed, "note": " ".join(plan.quadrature)}
    if not plan.quadrature or plan.sampled > MOST_DIMENSIONS:
        return row | dict.fromkeys(_COLUMNS)
    sampled(marg, args, jax.random.key(seed), draws, 4)
    posterior, everything, recovery = sampled(marg, args, jax.random.key(seed + 1), draws, 4)
    ess, site, per_second = rate(posterior, everything, recovery)
    known = {"dims": plan.sampled, "min_ess": ess, "site": site, "ess_per_s": per_second}
    return row | dict.fromkeys(_COLUMNS) | known


def _row(name: str, seed: int, pilot: Any) -> dict[str, Any]:
    measured = pilot.measured
    row = {"model": name, "program": pilot.program, "seed": seed, "note": pilot.same or pilot.note}
    if measured is None:
        return row | dict.fromkeys(_COLUMNS)
    values = (
        measured.dimensions, measured.leapfrogs_per_draw, measured.divergences, measured.ess,
        measured.site, measured.ess_per_1000_gradients, 1e6 * measured.gradient_seconds,
        measured.ess_per_second, measured.compile_seconds,
    )  # fmt: skip
    return row | dict(zip(_COLUMNS, values, strict=True))
