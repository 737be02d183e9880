"""How wide a chain's filter is: the elements of a state, and the later columns beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autmarg.gaussian.chains.places import steps_of
from autmarg.gaussian.chains.recurrence import Recurrence, places_of
from autmarg.gaussian.pattern import Pattern, filled, pairs_of
from autmarg.gaussian.ragged import padded

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


@dataclass(frozen=True, eq=False)
class Width:
    """What a state of a recurrence holds, and the later columns that its chains meet.

    Attributes:
        lag, place: [D] the columns of a state, v_{t-lag}[place], lag by lag.
        later: [B, R] later columns of each chain, -1 padded; ``chain`` [·] that of each.
    """

    lag: Int[np.ndarray, "D"]
    place: Int[np.ndarray, "D"]
    later: Int[np.ndarray, "B R"]
    chain: Int[np.ndarray, "met"]

    @property
    def state(self) -> int:
        """D."""
        return len(self.lag)

    def pairs(self) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
        """All ordered pairs of later columns of one chain, by their numbers through all chains."""
        return pairs_of(self.chain, (self.later >= 0).sum(axis=1))

    def filled(
        self,
        pattern: Pattern,
        recurrence: Recurrence,
        left: Int[np.ndarray, "P"],
        right: Int[np.ndarray, "P"],
    ) -> tuple[Pattern, Int[np.ndarray, "P"]]:
        """The pattern without the recurrence, and the place in it of each pair."""
        _, chain = _places(recurrence, pattern)
        rest = np.setdiff1d(pattern.columns, recurrence.columns.reshape(-1))
        return filled(pattern, chain, rest, self.later[self.later >= 0], left, right)

    def left(self, pattern: Pattern, recurrence: Recurrence) -> Pattern:
        """The pattern without the recurrence."""
        return self.filled(pattern, recurrence, *self.pairs())[0]

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        recurrence: Recurrence,
        states: Int[np.ndarray, "states"],
        read: Bool[np.ndarray, "columns"],
    ) -> Width | None:
        """None where the columns do not go step by step.

        That is where chains meet each other, or where they meet ``states``, columns of recurrences
        that are still to be eliminated. ``read`` [columns] says which columns rows read.
        """
        step, chain = _places(recurrence, pattern)
        first, second = pattern.first, pattern.second
        own = (step[first] >= 0) & (step[second] >= 0)
        if (chain[first] != chain[second])[own].any() or _meets(chain >= 0, pattern, states):
            return None
        used = recurrence.columns >= 0
        at = np.zeros(len(step), int)
        at[recurrence.columns[used]] = np.nonzero(used)[2]
        pairs = own & (first != second)
        i, j = first[pairs], second[pairs]
        last = np.maximum(step[i], step[j])
        kept = np.zeros(recurrence.width, int)
        for column in (i, j):
            np.maximum.at(kept, at[column], last - step[column] + 1)
        alone = recurrence.columns[used & read[recurrence.columns]]
        np.maximum.at(kept, at[alone], 1)
        np.maximum.at(kept, recurrence.reads[:, 3], recurrence.reads[:, 2])
        kept[:] = np.maximum(kept, 0 if kept.any() else 1)
        if not recurrence.even:
            kept[:] = kept.max()  # every place alike, so that draws keep padding apart
        later, at_chain = _later(pattern, recurrence, chain)
        return cls(*places_of(kept), later, at_chain)


def _meets(
    own: Bool[np.ndarray, "columns"], pattern: Pattern, states: Int[np.ndarray, "states"]
) -> bool:
    """Whether a column of ``own`` has an entry with one of ``states``."""
    theirs = np.zeros(len(own), bool)
    theirs[states] = True
    i, j = pattern.first, pattern.second
    return bool(((own[i] & theirs[j]) | (theirs[i] & own[j])).any())


def _places(
    recurrence: Recurrence, pattern: Pattern
) -> tuple[Int[np.ndarray, "columns"], Int[np.ndarray, "columns"]]:
    """Step and chain of every column, -1 outside."""
    size = int(max(pattern.columns.max(initial=0), recurrence.columns.max(initial=0))) + 1
    step, chain, _ = steps_of(recurrence.columns, size).T
    return step, chain


def _later(
    pattern: Pattern, recurrence: Recurrence, chain: Int[np.ndarray, "columns"]
) -> tuple[Int[np.ndarray, "B R"], Int[np.ndarray, "met"]]:
    """[B, R] later columns by chain, -1 padded, and the chain of each."""
    first, second = chain[pattern.first], chain[pattern.second]
    forward, backward = (first >= 0) & (second < 0), (first < 0) & (second >= 0)
    b, _ = (recurrence.outside >= 0).nonzero()
    at = np.concatenate([first[forward], second[backward], b])
    column = np.concatenate(
        [
            pattern.second[forward],
            pattern.first[backward],
            recurrence.outside[recurrence.outside >= 0],
        ]
    )
    at, column = np.unique(np.stack([at, column], axis=1), axis=0).T
    return padded(at, column, recurrence.chains), at
