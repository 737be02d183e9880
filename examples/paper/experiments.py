"""What is run on what, for how long, in the short and in the long setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from examples.benchmarks.opponents import Factor
from examples.benchmarks.sets import Set, load_set
from examples.paper.programs import Program, classes, combinations, timed, usual

_STUDENTS, _INSTRUCTORS = 1500, 300  # of the evaluations in the short setting
COGNITIVE = (
    "dillonE1", "dutch", "eeg", "english", "gg05", "mandarin", "mandarin2", "pupil", "stroop",
)  # fmt: skip


@dataclass(frozen=True)
class Length:
    """Warm-up steps, draws, seeds, and the seconds after which a chain is stopped."""

    warmup: int
    draws: int
    seeds: int
    limit: float


# The paper ran five seeds with 10,000 warm-up steps and 100,000 draws each.
_PAPER = Length(10_000, 100_000, 5, 24 * 3600.0)


@dataclass(frozen=True, eq=False)
class Experiment:
    """One experiment of the paper.

    Attributes:
        sets: names of its data sets.
        programs: those of a set.
        lengths: for each setting.
        options: of the kernel.
        shrunk: what makes a data set smaller in the short setting, if anything does.
    """

    sets: tuple[str, ...]
    programs: Callable[[Set], Iterator[Program]]
    lengths: Mapping[str, Length]
    options: Mapping[str, Any] = field(default_factory=dict)
    shrunk: Callable[[Set], Set] | None = None

    def data(self, name: str, setting: str) -> Set:
        """A data set in a setting.

        Raises:
            MissingData: its file is absent.
        """
        data = load_set(name)
        return self.shrunk(data) if self.shrunk and setting == "short" else data


def part_of_evaluations(data: Set) -> Set:
    """The evaluations that the first students gave the first instructors."""
    student, instructor = data.args[:2]
    return part(data, (student < _STUDENTS) & (instructor < _INSTRUCTORS))


def part(data: Set, rows: np.ndarray) -> Set:
    """Some rows of a set, their levels numbered anew; ``rows`` is a mask [rows]."""
    codes = {id(f.level): np.unique(f.level[rows], return_inverse=True)[1] for f in data.factors}
    args = tuple(codes[id(a)] if id(a) in codes else a[rows] for a in data.args)
    factors = [Factor(f.effects, codes[id(f.level)], f.columns[rows]) for f in data.factors]
    return replace(data, args=args, factors=tuple(sorted(factors, key=lambda f: -f.size)))


EXPERIMENTS: dict[str, Experiment] = {
    "insteval": Experiment(
        ("insteval",),
        classes,
        {"short": Length(500, 1000, 1, 60.0), "long": _PAPER},
        {"max_tree_depth": 12},
        part_of_evaluations,
    ),
    "grouseticks": Experiment(
        ("grouseticks",),
        combinations,
        {"short": Length(500, 1000, 2, 40.0), "long": replace(_PAPER, draws=10_000)},
    ),
    "times": Experiment(
        ("electric", "fibrosis"), timed, {"short": Length(500, 1000, 1, 40.0), "long": _PAPER}
    ),
    "cognitive": Experiment(COGNITIVE, usual, {"short": Length(300, 400, 1, 40.0), "long": _PAPER}),
}
