"""Likelihoods that are not Gaussian: whitened effects beside the source in its two forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import autmarg
from examples.models.likelihoods import MODELS

NAMES = tuple(MODELS)
PROGRAMS = ("source", "noncentred", "whiten", "auto")
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
    found = autmarg.compare(model, *args, programs=programs, seed=seed, **options)
    return [_row(name, seed, pilot) for pilot in found.pilots]


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
