"""Choose what to integrate out where everything could be: what a draw costs against its worth.

Integrating more out makes every draw worth more and a gradient dearer: where two large factors are
crossed, eliminating one joins the levels of the other into a dense matrix. The choice minimises

    (overhead + seconds of a gradient) · leapfrog steps for each effective draw

over the sets of factors that are sampled instead, non-centred. Seconds come from the sizes of the
stages (:mod:`autmarg.plan.cost`), found on the pattern of G alone, before anything is compiled; the
number of steps comes from that of the effects and from how well the data know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autmarg.gaussian.affine import Member
from autmarg.gaussian.quadratic import Pattern
from autmarg.plan.cost import overhead, seconds
from autmarg.plan.order import SMALL_ROOT, TooLarge, eliminate

# Leapfrog steps for each effective draw, relative to everything integrated out, where the D effects
# of one factor are sampled non-centred: _ONE · D^¼, the power with which the number of steps grows
# (Beskos et al. 2013, Bernoulli 19(5A)); for every further factor _FURTHER times as many. Effects
# that the data know well make the posterior of their standard noise narrow and bent along their
# scale: F/_WELL times as many, F being the ratio of the variances between levels and within.
# From NUTS runs (docs/benchmarks.md): 1.9 to 3.1 (D = 32, F < 6), 3.0 (D = 80, F = 17), 2.6
# (D = 160, F = 71), 6.6 (D = 668, F = 32), 164 (D = 40, F = 2,350); for a further factor 1.2 to 5.
_ONE, _FURTHER, _WELL = 1.1, 2.0, 100.0
_FACTORS = 4  # up to which all sets of factors are tried


@dataclass(frozen=True)
class Choice:
    """Factors that are better sampled, and predicted seconds of a gradient with and without them.

    ``everything`` is None where integrating everything out would take too much memory, for the
    reason ``why``. ``steps`` is how many times as many leapfrog steps an effective draw then takes.
    """

    sampled: tuple[str, ...]
    chosen: float
    everything: float | None
    why: str
    steps: float

    def __str__(self) -> str:
        words = f"sampled since a gradient is then predicted to take {_time(self.chosen)}, "
        if self.everything is None:
            return words + self.why
        steps = f"for {self.steps:.1f} times as many steps"
        return f"{words}instead of {_time(self.everything)}, {steps}"


def choose(
    pattern: Pattern,
    members: Sequence[Member],
    free: Sequence[str],
    ratios: Callable[[], Mapping[str, float]],
) -> Choice | None:
    """The best set to sample among the ``free`` members, None where everything should go.

    ``ratios`` gives the members' variance ratios F that are known; it is asked where it matters.

    Raises:
        TooLarge: no set is within the budget.
    """
    large = [m for m in members if m.name in free and _effects(m) > SMALL_ROOT]
    if not large:
        return None
    refused: TooLarge | None = None
    times: dict[tuple[str, ...], float] = {}
    try:
        times[()] = _predicted(pattern, list(members))
        if overhead(0) + times[()] <= (overhead(0) + seconds([], 0)) * _ONE:
            return None  # nothing can be better
    except TooLarge as found:
        refused = found
    known = ratios()

    def steps(sampled: Sequence[Member]) -> float:
        return _steps(sampled, [known.get(m.name, 0.0) for m in sampled])

    scores = {names: overhead(0) + time for names, time in times.items()}
    for sampled in _subsets(sorted(large, key=_effects)):
        rest = [m for m in members if m not in sampled]
        names = tuple(m.name for m in sampled)
        try:
            times[names] = _predicted(pattern, rest)
        except TooLarge as found:
            refused = refused or found
            continue
        dimensions = sum(map(_effects, sampled))
        scores[names] = (overhead(dimensions) + times[names]) * steps(sampled)
    if not scores:
        assert refused is not None
        raise refused
    best = min(scores, key=lambda names: scores[names])
    if best == ():
        return None
    more = steps([m for m in large if m.name in best])
    return Choice(best, times[best], times.get(()), str(refused or ""), more)


def _steps(sampled: Sequence[Member], ratios: Sequence[float]) -> float:
    """Leapfrog steps for each effective draw, relative to everything integrated out."""
    effects = sum(map(_effects, sampled))
    known = math.prod(max(1.0, ratio / _WELL) for ratio in ratios)
    return _ONE * effects**0.25 * _FURTHER ** (len(sampled) - 1) * known


def _effects(member: Member) -> int:
    return member.blocks * member.size


def _subsets(large: list[Member]) -> Iterator[tuple[Member, ...]]:
    """Each, and (of few) all sets of factors, the smaller first."""
    most = len(large) if len(large) <= _FACTORS else 1
    for count in range(1, most + 1):
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
