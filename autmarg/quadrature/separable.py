"""Latents whose levels can be integrated out one by one: what each log-density reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autmarg.analysis.elements import SEVERAL, elements_read
from autmarg.analysis.log_densities import with_log_densities
from autmarg.compat.jaxprs import Op
from autmarg.ir.nodes import Sample
from autmarg.ir.tape import Tape
from autmarg.quadrature.sums import LevelSum


@dataclass(frozen=True, eq=False)
class Layers:
    """Log-densities, element by element, of sites that read nested latents.

    Attributes:
        tape: with the log-densities on it.
        terms: their numbers.
        reads: for each term, the level of each latent that each element reads, or none.
        owner: for each latent but the last, the level of the next that each level is within.
        levels: how many each latent has.
    """

    tape: Tape
    terms: tuple[int, ...]
    reads: tuple[tuple[np.ndarray, ...], ...]
    owner: tuple[np.ndarray, ...]
    levels: tuple[int, ...]

    def within(self, i: int, j: int) -> np.ndarray:
        """The level of latent j that each level of latent i < j is within."""
        found = np.arange(self.levels[i])
        for owner in self.owner[i:j]:
            found = owner[found]
        return found

    @cached_property
    def _home(self) -> list[np.ndarray]:
        """For each term, the innermost latent that an element reads; their number for none."""
        home = []
        for each in self.reads:
            read = np.stack([np.asarray(x).reshape(-1) >= 0 for x in each])
            home.append(np.where(read.any(axis=0), read.argmax(axis=0), len(each)))
        return home

    @cached_property
    def sums(self) -> tuple[tuple[LevelSum, ...], ...]:
        """For each latent, what adds up the elements whose innermost it is, term by term."""
        return tuple(
            tuple(
                LevelSum(np.where(home == i, own[i].reshape(-1), -1), count)
                for home, own in zip(self._home, self.reads, strict=True)
            )
            for i, count in enumerate(self.levels)
        )

    @cached_property
    def outside(self) -> tuple[LevelSum, ...]:
        """What adds up the elements that read no level."""
        none = len(self.levels)
        return tuple(LevelSum(np.where(home == none, 0, -1), 1) for home in self._home)

    @cached_property
    def up(self) -> tuple[LevelSum, ...]:
        """For each latent but the last, the sum over the levels within one of the next."""
        return tuple(LevelSum(o, n) for o, n in zip(self.owner, self.levels[1:], strict=True))


def layers_of(tape: Tape, members: Sequence[Sample], others: Sequence[Sample]) -> Layers | None:
    """What the sites read of nested latents, the innermost first; None where they are not nested.

    Args:
        tape: of the sites' expressions.
        members: the latents.
        others: all other sites whose density reads one.
    """
    tape, terms = with_log_densities(tape, [*members, *others])
    terms = [_summand(tape, number) for number in terms]
    found = [elements_read(tape, m.name, terms) for m in members]
    if any((x == SEVERAL).any() for each in found for x in each):
        return None
    reads = tuple(zip(*found, strict=True))
    levels = tuple(m.size for m in members)
    owners = tuple(
        _owner([(each[i], each[i + 1]) for each in reads], levels[i])
        for i in range(len(members) - 1)
    )
    layers = Layers(tape, tuple(terms), reads, owners, levels)
    return layers if all(_agree(layers, each) for each in reads) else None


def _summand(tape: Tape, number: int) -> int:
    """What a log-density is the sum of, as over the axes of an event."""
    equation = tape.producer(number)
    if number in tape.constants or equation is None or equation.op is not Op.REDUCE_SUM:
        return number
    return _summand(tape, equation.inputs[0])


def _owner(pairs: Sequence[tuple[np.ndarray, np.ndarray]], levels: int) -> np.ndarray:
    """An outer level that each inner level is read with; the first where it is read with none."""
    owner = np.zeros(levels, np.int64)
    for inner, outer in pairs:
        both = (inner >= 0) & (outer >= 0)
        owner[inner[both]] = outer[both]
    return owner


def _agree(layers: Layers, own: Sequence[np.ndarray]) -> bool:
    """Whether elements that read an inner level read no other outer one than it is within."""
    count = len(layers.levels)
    for i in range(count):
        for j in range(i + 1, count):
            both = (own[i] >= 0) & (own[j] >= 0)
            if (layers.within(i, j)[own[i][both]] != own[j][both]).any():
                return False
    return True


__all__ = ["Layers", "layers_of"]
