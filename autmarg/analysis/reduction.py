"""Derived states without those that are copies, and without those that nothing reads.

A carry that holds the last values of a site (``jnp.roll``, ``concatenate([new, s[:-1]])``, a matrix
product that moves elements on) is a shift register: its elements are copies of others, one or many
steps old. A mean that reads a copy reads the original instead, so that every spelling of a model
has the same states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from autmarg.analysis.domain import Affine, Term
from autmarg.analysis.states import State


class Reduced(NamedTuple):
    """Derived states, and the means of other sites over them."""

    states: dict[str, State]
    means: dict[str, Affine]


@dataclass(frozen=True)
class _Numbers:
    """One number for each element of members and states: where each site's start, in order."""

    names: tuple[str, ...]
    starts: np.ndarray

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> _Numbers:
        return cls(tuple(sizes), np.concatenate([[0], np.cumsum(list(sizes.values()), dtype=int)]))

    @property
    def total(self) -> int:
        return int(self.starts[-1])

    def start(self, name: str) -> int:
        return int(self.starts[self.names.index(name)])

    def site(self, number: np.ndarray) -> np.ndarray:
        """[n] which site each number belongs to."""
        return np.searchsorted(self.starts, number, side="right") - 1


def reduced(
    states: Mapping[str, State], means: Mapping[str, Affine], members: Mapping[str, int]
) -> Reduced:
    """The states that are needed, and all means over them.

    Args:
        states: derived so far.
        means: of all sampled and observed sites.
        members: number of elements of each site that is integrated out.
    """
    if not states:
        return Reduced({}, dict(means))
    numbers = _Numbers.of({**members, **{n: s.mean.size for n, s in states.items()}})
    original, sign = _originals(numbers, states)

    def over_originals(mean: Affine) -> Affine:
        return _moved(mean, numbers, states, original, sign)

    moved = {n: over_originals(m) for n, m in means.items()}
    kept = {n: s._replace(mean=over_originals(s.mean)) for n, s in states.items()}
    needed = _needed(numbers, kept, moved.values())
    return _compressed(numbers, kept, moved, needed)


def _entries(mean: Affine) -> list[tuple[Term, np.ndarray, np.ndarray, np.ndarray]]:
    """Terms with the rows, columns and known factors of their summands that are not zero."""
    found = []
    for term in mean.terms:
        whole = term.arrays(mean.size)
        row, k = np.nonzero(whole.known)
        found.append((term, row, whole.column[row, k], whole.known[row, k]))
    return found


def _originals(numbers: _Numbers, states: Mapping[str, State]) -> tuple[np.ndarray, np.ndarray]:
    """What each element is a copy of (itself, if of none), and the sign of the copy, 0 for zero.

    An element is a copy at every step, or at none.
    """
    original, sign = np.arange(numbers.total), np.ones(numbers.total)
    for name, state in states.items():
        count, first = np.zeros(state.mean.size, int), numbers.start(name)
        for term, row, column, known in _entries(state.mean):
            np.add.at(count, row, 1)
            copies = (np.abs(known) == 1) & (term.lookup is None) & (term.site in numbers.names)
            count[row[~copies]] += 2
            if term.site is not None and term.site in numbers.names:
                original[first + row] = numbers.start(term.site) + column
                sign[first + row] = known
        # An element that is a copy at some steps only would make steps of different width.
        mixed = np.isin(state.element, state.element[count > 1])
        itself = first + np.flatnonzero(mixed | (count == 0))
        original[itself], sign[itself] = itself, 1.0
        sign[first + np.flatnonzero(~mixed & (count == 0))] = 0.0
    while True:  # copies of copies, twice as many at a time
        further = original[original]
        if (further == original).all():
            return original, sign
        sign, original = sign * sign[original], further


def _moved(
    mean: Affine,
    numbers: _Numbers,
    states: Mapping[str, State],
    original: np.ndarray,
    sign: np.ndarray,
) -> Affine:
    """A mean with copies replaced by what they are copies of."""
    terms: list[Term] = []
    for term in mean.terms:
        if term.site is None or term.site not in states:
            terms.append(term)
            continue
        number = numbers.start(term.site) + term.column
        target = original[number]
        site, known = numbers.site(target), term.known * sign[number]
        for k in np.unique(site):
            here = site == k
            column = np.where(here, target - numbers.starts[k], 0).astype(term.column.dtype)
            terms.append(Term(numbers.names[k], column, np.where(here, known, 0.0), term.lookup))
    return replace(mean, terms=tuple(t for t in terms if t.site is None or t.known.any()))


def _needed(numbers: _Numbers, states: Mapping[str, State], means: Any) -> np.ndarray:
    """[total] elements that a sampled or observed site reads, directly or through states."""
    reader, read = [np.zeros(0, int)], [np.zeros(0, int)]
    root = numbers.total
    places = [(s.mean, numbers.start(n)) for n, s in states.items()]
    for mean, first in (*places, *((m, None) for m in means)):
        for term, row, column, _ in _entries(mean):
            if term.site is not None and term.site in states:
                reader.append(np.full(len(row), root) if first is None else first + row)
                read.append(numbers.start(term.site) + column)
    edges: Any = (np.concatenate(reader), np.concatenate(read))
    graph = coo_array((np.ones(len(edges[0])), edges), shape=(root + 1, root + 1)).tocsr()
    found = breadth_first_order(graph, root, return_predecessors=False)
    needed = np.zeros(root, bool)
    needed[found[found < root]] = True
    for name, state in states.items():  # at every step or at none, so that steps are alike
        own = needed[numbers.start(name) :][: len(state.element)]
        own[:] = np.isin(state.element, state.element[own])
    return needed


def _compressed(
    numbers: _Numbers, states: Mapping[str, State], means: Mapping[str, Affine], needed: np.ndarray
) -> Reduced:
    """States of the needed elements alone, and means over these."""
    keep = {n: needed[numbers.start(n) :][: s.mean.size] for n, s in states.items()}
    place = {n: np.maximum(np.cumsum(k) - 1, 0) for n, k in keep.items()}

    def renumbered(mean: Affine) -> Affine:
        terms = [
            replace(t, column=place[t.site][t.column].astype(t.column.dtype))
            if t.site is not None and t.site in states
            else t
            for t in mean.terms
        ]
        return replace(mean, terms=tuple(terms))

    left = {}
    for name, state in states.items():
        if len(rows := np.flatnonzero(keep[name])):
            mean = state.mean.take(rows, (len(rows),))
            left[name] = State(name, renumbered(mean), state.step[rows], state.element[rows])
    return Reduced(left, {n: renumbered(m) for n, m in means.items()})


__all__ = ["Reduced", "reduced"]
