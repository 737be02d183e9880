"""Effective sample sizes of one chain, through NumPyro's estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from numpyro.diagnostics import effective_sample_size

Draws = Mapping[str, Any]
_BLOCK = 2**22  # numbers worked on at once


def bulk_ess(draws: ArrayLike) -> NDArray[np.float64]:
    """Return the bulk effective sample size of each element of one site, flattened.

    Of rank-normalised, split chains (Vehtari et al., Rank-normalization, folding, and localization,
    2021), at most n log₁₀ n; nan where an element never moves. ``draws`` has shape [draws, *site].
    """
    values = np.asarray(draws)
    flat = values.reshape(len(values), -1)
    width = max(1, _BLOCK // max(len(flat), 1))
    blocks = [flat[:, k : k + width] for k in range(0, flat.shape[1], width)]
    return np.concatenate([np.empty(0), *(_ess(block.astype(np.float64)) for block in blocks)])


def _ess(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtri  # scipy.stats takes half a second to import
    from scipy.stats import rankdata

    ranked = ndtri((rankdata(flat, axis=0) - 0.375) / (len(flat) + 0.25))
    half = len(flat) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = effective_sample_size(np.stack([ranked[:half], ranked[half : 2 * half]]))
    most = len(flat) * np.log10(len(flat))  # of draws that swing to and fro it comes out negative
    ess = np.where((ess > 0) & (ess < most), ess, most)
    return np.where(flat.std(axis=0) > 0, ess, np.nan)


def sizes_by_site(
    runs: Sequence[Draws], names: Collection[str]
) -> list[dict[str, NDArray[np.float64]]]:
    """For each run, the bulk ESS of the elements of each site that move in some run.

    An element that moves in no run (the zeros of a Cholesky factor) is a constant of the model and
    is left out. An element that moves in another run only has got stuck: its ESS is zero. Sites
    without such elements are left out.
    """
    found = [{name: bulk_ess(run[name]) for name in names} for run in runs]
    out: list[dict[str, NDArray[np.float64]]] = [{} for _ in runs]
    for name in names:
        moving = ~np.isnan(np.stack([sizes[name] for sizes in found])).all(axis=0)
        if moving.any():
            for sizes, kept in zip(found, out, strict=True):
                kept[name] = np.nan_to_num(sizes[name][moving])
    return out


def smallest(sizes: Mapping[str, NDArray[np.float64]]) -> tuple[float, str]:
    """The least ESS over all elements, and its site; (nan, "") where there are none."""
    least = {name: float(each.min()) for name, each in sizes.items()}
    if not least:
        return float("nan"), ""
    site = min(least, key=least.__getitem__)
    return least[site], site


__all__ = ["Draws", "bulk_ess", "sizes_by_site", "smallest"]
