"""Data and published posteriors, read from clones of posteriordb and of TensorFlow Probability.

Each reader takes the folder in which the two clones are, ``posteriordb`` and ``probability``.
Nothing of them is copied here.
"""

from __future__ import annotations

import json
import runpy
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATABASE = "posteriordb/posterior_database"
GYM = "probability/spinoffs/inference_gym/inference_gym"
TRUSTED = 50_000  # of the 500,000 draws of a ground truth: the size for sds is not published
KINDS = ("MEAN", "MEAN_STANDARD_ERROR", "STANDARD_DEVIATION")
Arguments = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Figure:
    """A scalar's posterior mean and sd, the mean's MCSE, and the effective sample size."""

    mean: float
    mean_error: float
    sd: float
    size: float


Figures = Mapping[str, Figure]


def posteriordb_data(name: str, *columns: str) -> Callable[[Path], Arguments]:
    """What reads columns of a data set of posteriordb."""

    def read(folder: Path) -> Arguments:
        file = folder / f"{DATABASE}/data/data/{name}.json.zip"
        with zipfile.ZipFile(file) as zipped:
            data = json.loads(zipped.read(f"{name}.json"))
        return tuple(np.asarray(data[column]) for column in columns)

    return read


def posteriordb_figures(name: str) -> Callable[[Path], Figures]:
    """What reads posteriordb's summary statistics; the sd is from the mean and the mean square."""

    def read(folder: Path) -> Figures:
        kinds = folder / DATABASE / "reference_posteriors/summary_statistics"
        first, second = (
            json.loads((kinds / kind / kind / f"{name}.json").read_text())
            for kind in ("mean_value", "mean_squared_value")
        )
        figures = {}
        for i, latent in enumerate(first["names"]):
            mean, error = first["mean_value"][i], first["mcse_mean"][i]
            variance = second["mean_squared_value"][i] - mean**2
            site, _, at = latent.rstrip("]").partition("[")
            here = f"{site}[{int(at) - 1}]" if at else site
            figures[here] = Figure(mean, error, variance**0.5, variance / error**2)
        return figures

    return read


def gym_figures(name: str) -> Callable[[Path], Figures]:
    """What reads a ground truth of inference_gym."""

    def read(folder: Path) -> Figures:
        truth = runpy.run_path(str(folder / GYM / f"targets/ground_truth/{name}.py"))
        figures = {}
        for key in truth:
            if not (key.startswith("IDENTITY_") and key.endswith("_MEAN_STANDARD_ERROR")):
                continue
            stem = key.removesuffix("_MEAN_STANDARD_ERROR")
            mean, error, sd = (truth[f"{stem}_{kind}"] for kind in KINDS)
            for at in np.ndindex(mean.shape):
                site = stem.removeprefix("IDENTITY_").lower()
                size = min((sd[at] / error[at]) ** 2, TRUSTED)
                figures[_ours(site, at)] = Figure(mean[at], error[at], sd[at], size)
        return figures

    return read


def _ours(site: str, at: tuple[int, ...]) -> str:
    """Our name of a scalar of inference_gym: the first day of volatilities is a separate site."""
    if site != "log_volatility":
        return f"{site}{list(at) if at else ''}"
    return f"later[{at[0] - 1}]" if at[0] else "first"


def _gym_data(folder: Path, name: str) -> dict[str, np.ndarray]:
    return runpy.run_path(str(folder / GYM / f"internal/datasets/{name}.py"))


def answers(folder: Path) -> Arguments:
    """Students, questions, and whether the answer is right."""
    data = _gym_data(folder, "synthetic_item_response_theory")
    return data["STUDENT_IDS"], data["QUESTION_IDS"], data["CORRECT"]


def returns(folder: Path) -> Arguments:
    """The S&P 500's last hundred daily changes, less their mean."""
    prices = _gym_data(folder, "sp500_closing_prices")["CLOSING_PRICES"]
    differences = np.diff(prices)[-100:]
    return (differences - differences.mean(),)


def counts(folder: Path) -> Arguments:
    """Places and counts in inference_gym's order, which its seed shuffles."""
    data = _gym_data(folder, "synthetic_log_gaussian_cox_process")
    order = np.arange(len(data["COUNTS"]))
    np.random.RandomState(1337).shuffle(order)
    return data["LOCATIONS"][order], data["COUNTS"][order]
