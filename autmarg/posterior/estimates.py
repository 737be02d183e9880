"""Means, intervals and diagnostics of named quantities, one row each; numbers by ArviZ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autmarg.posterior.stored import LEAD, needed

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataArray

Rows = dict[str, np.ndarray]  # draws [chains, draws] by the row's name


def rows_of(array: DataArray) -> Rows:
    """Every element of a site [chain, draw, …], named ``u[308, slope]`` by its coordinates."""
    dims = [d for d in array.dims if d not in LEAD]
    values = array.transpose(*LEAD, *dims).values
    labels = [array.coords[d].values if d in array.coords else range(array.sizes[d]) for d in dims]
    found: Rows = {}
    for index in np.ndindex(*values.shape[2:]):
        inside = ", ".join(str(own[k]) for own, k in zip(labels, index, strict=True))
        name = f"{array.name}[{inside}]" if inside else str(array.name)
        found[name if name not in found else f"{name} ({len(found)})"] = values[(..., *index)]
    return found


def estimates(rows: Rows, prob: float) -> DataFrame:
    """A table with one row for each quantity.

    Args:
        rows: draws [chains, draws] by name.
        prob: probability of the interval, which leaves as much out below as above.

    Returns:
        Columns mean, sd, the interval's two ends, ess_bulk, ess_tail, r_hat, mcse (of the mean).
    """
    pandas = needed("pandas", "summary")
    columns = ["mean", "sd", *interval(prob), "ess_bulk", "ess_tail", "r_hat", "mcse"]
    if not rows:
        return pandas.DataFrame(columns=columns, dtype=float)
    draws = np.stack(list(rows.values()), axis=-1)
    tail = (1 - prob) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=(0, 1))
    table = [draws.mean((0, 1)), draws.std((0, 1), ddof=1), low, high, *_diagnostics(draws)]
    return pandas.DataFrame(np.stack(table, -1), index=list(rows), columns=columns)


def interval(prob: float) -> tuple[str, str]:
    """Names of an interval's ends: "2.5%" and "97.5%"."""
    tail = 50 * (1 - prob)
    return f"{tail:.4g}%", f"{100 - tail:.4g}%"


def _diagnostics(draws: np.ndarray) -> list[np.ndarray]:
    """Bulk and tail effective sample sizes, R̂ and the mean's Monte Carlo error."""
    arviz, xarray = needed("arviz", "summary"), needed("xarray", "summary")
    data = xarray.Dataset({"x": ((*LEAD, "row"), draws)})
    with np.errstate(invalid="ignore", divide="ignore"):  # of draws that are all alike
        found = [
            arviz.ess(data, method="bulk"), arviz.ess(data, method="tail"), arviz.rhat(data),
            arviz.mcse(data, method="mean"),
        ]  # fmt: skip
    return [np.asarray(each["x"]) for each in found]


def shown(table: DataFrame) -> DataFrame:
    """The table as text: three digits of each standard deviation, and means to the same place."""
    text: dict[str, Sequence[str]] = {}
    places = [_places(sd) for sd in table["sd"]]
    for name in table.columns:
        if name.startswith("ess"):
            text[name] = [_number(value, 0) for value in table[name]]
        elif name == "r_hat":
            text[name] = [_number(value, 3) for value in table[name]]
        else:
            more = int(name == "mcse")
            text[name] = [_number(v, k + more) for v, k in zip(table[name], places, strict=True)]
    return needed("pandas", "summary").DataFrame(text, index=table.index)


def _places(sd: float) -> int:
    """Decimals for three digits of a standard deviation."""
    if not math.isfinite(sd) or sd <= 0:
        return 3
    return min(max(0, 2 - math.floor(math.log10(sd))), 12)


def _number(value: Any, places: int) -> str:
    return "–" if not math.isfinite(value) else f"{value:,.{places}f}"


def largest(rows: Mapping[str, np.ndarray], sizes: Mapping[str, float], count: int) -> Rows:
    """The ``count`` rows with the largest absolute mean in units of ``sizes``."""
    strength = {n: abs(float(np.mean(x))) / sizes.get(n, 1.0) for n, x in rows.items()}
    ranked = sorted(rows, key=lambda n: -strength[n] if math.isfinite(strength[n]) else 0.0)
    return {name: rows[name] for name in ranked[:count]}


__all__ = ["Rows", "estimates", "interval", "largest", "rows_of", "shown"]
