"""Choose what to integrate out where everything could be: what a draw costs against its worth.

Integrating more out makes every draw worth more and a gradient dearer: where two large factors are
crossed, eliminating one joins the levels of the other into a dense matrix. The choice minimises

    (overhead + seconds of a gradient) · leapfrog steps for each effective draw

over the sets of factors that are sampled instead, non-centred. Seconds come from the sizes of the
stages (:mod:`autmarg.plan.cost`), found on the pattern of G alone, before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autmarg.gaussian.affine import Member
from autmarg.gaussian.quadratic import Pattern
from autmarg.plan.cost import OVERHEAD, seconds
from autmarg.plan.order import SMALL_ROOT, TooLarge, eliminate

# Leapfrog steps for each effective draw, relative to everything integrated out, where the D effects
# of one factor are sampled non-centred: _ONE · D^¼, the power with which the number of steps grows
# (Beskos et al. 2013, Bernoulli 19(5A)); for every further factor _FURTHER times as many. From NUTS
# runs on crossed designs (docs/benchmarks.md): 3.7 (D = 32) to 7.4 (D = 80); 2.5 to 3.6.
_ONE, _FURTHER = 1.6, 2.5
_FACTORS = 4  # up to which all sets of factors are tried


@dataclass(frozen=True)
class Choice:
    """Factors that are better sampled, and predicted seconds of a gradient with and without them.

    ``everything`` is None where integrating everything out would take too much memory, for the
    reason ``why``.
    """

    sampled: tuple[str, ...]
    chosen: float
    everything: float | None
    why: str

    def __str__(self) -> str:
        instead = self.why
        if self.everything is not None:
            instead = f"instead of {_time(self.everything)}"
        return f"sampled since a gradient is then predicted to take {_time(self.chosen)}, {instead}"


def choose(pattern: Pattern, members: Sequence[Member], free: Sequence[str]) -> Choice | None:
    """The best set to sample among the ``free`` members, None where everything should go.

    Raises:
        TooLarge: no set is within the budget.
    """
    large = [m for m in members if m.name in free and m.blocks * m.size > SMALL_ROOT]
    if not large:
        return None
    scores: dict[tuple[str, ...], float] = {}
    times: dict[tuple[str, ...], float] = {}
    refused: TooLarge | None = None
    for sampled in _subsets(sorted(large, key=lambda m: m.blocks * m.size)):
        rest = [m for m in members if m not in sampled]
        names = tuple(m.name for m in sampled)
        try:
            times[names] = _predicted(pattern, rest)
        except TooLarge as found:
            refused = refused or found
            continue
        scores[names] = (OVERHEAD + times[names]) * _steps(sampled)
        if not names and scores[names] <= (OVERHEAD + seconds([], 0)) * _ONE:
            return None  # nothing can be better
    if not scores:
        assert refused is not None
        raise refused
    best = min(scores, key=lambda names: scores[names])
    if best == ():
        return None
    return Choice(best, times[best], times.get(()), str(refused or ""))


def _steps(sampled: Sequence[Member]) -> float:
    """Leapfrog steps for each effective draw, relative to everything integrated out."""
    if not sampled:
        return 1.0
    effects = sum(m.blocks * m.size for m in sampled)
    return _ONE * effects**0.25 * _FURTHER ** (len(sampled) - 1)


def _subsets(large: list[Member]) -> Iterator[tuple[Member, ...]]:
    """None, each, and (of few) all sets of factors, the smaller first."""
    most = len(large) if len(large) <= _FACTORS else 1
    for count in range(most + 1):
        yield from combinations(large, count)


def _predicted(pattern: Pattern, members: list[Member]) -> float:
    """Seconds of a gradient when ``members`` are eliminated."""
    columns = np.concatenate([np.zeros(0, np.int64), *(m.columns.reshape(-1) for m in members)])
    inside = np.zeros(int(pattern.columns.max(initial=0)) + 1, bool)
    inside[columns] = True
    kept = inside[pattern.first] & inside[pattern.second]
    part = Pattern(np.sort(columns), pattern.first[kept], pattern.second[kept])
    return seconds(eliminate(part, members), len(pattern.first))


def _time(value: float) -> str:
    return f"{value * 1e6:,.0f} µs" if value < 1e-3 else f"{value * 1e3:,.3g} ms"


__all__ = ["Choice", "choose"]
