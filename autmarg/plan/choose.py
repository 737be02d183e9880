"""Choose what to integrate out where everything could be: what a draw costs against its worth.

Integrating more out makes every draw worth more and a gradient dearer: where two large factors are
crossed, eliminating one joins the levels of the other into a dense matrix. The choice minimises

    (overhead + seconds of a gradient) · leapfrog steps for each effective draw

over the sets of members that are sampled instead. With none of them everything is integrated out,
with all of them the group is as in the source. Seconds come from the sizes of the stages and from
the operations of the source's densities (:mod:`autmarg.plan.pricing`), before anything is compiled;
the number of steps comes from that of the effects and from how well the data know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from autmarg.analysis.rules.base import NotWritten
from autmarg.analysis.work import Work, jaxpr_work
from autmarg.errors import Refusal
from autmarg.gaussian.affine import AffineForm, Member
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.terms import Whitened
from autmarg.gaussian.variance import variance_ratios
from autmarg.plan.groups import Group
from autmarg.plan.order import SMALL_ROOT, TooLarge, eliminate, stages_of
from autmarg.plan.prediction import (
    BASE,
    LOCAL,
    ONE,
    UNWHITENED,
    WELL,
    Effects,
    Prediction,
    in_words,
    steps,
)
from autmarg.plan.pricing import (
    evaluation_seconds,
    overhead,
    seconds,
    source_seconds,
    step_seconds,
    turn_seconds,
)
from autmarg.plan.timing import in_blocks

_COLUMNS = 20_000  # up to which F is found where it decides between no two factors
_FACTORS = 4  # up to which all sets of factors are tried
# The source is taken where its draw is predicted to cost less than _SHARE of any other and those
# of the other take _WHOLE seconds (one for a thousand of them; compiling takes longer), or where
# a gradient of the others is _DEARER times as dear as the source's and does not pay for it.
_SHARE, _WHOLE, _DEARER = 0.8, 1e-3, 5.0
_TIE = 0.95  # of the time, above which a draw of fewer dimensions is taken
# A function of noise takes _IMAGE times as long as a marginal with its scales sampled (0.3 to 1.2
# on examples/models/likelihoods.py).
_IMAGE = 0.7
_GROWN = 20.0  # times as dear, up to which a form in time is not made smaller

NoCost = TooLarge | NotWritten  # why a set of members has no cost
Price = tuple[float, Work, int]  # of a group: its stages, its opaque numbers, products at a step


@dataclass(frozen=True)
class Choice:
    """Members that are better sampled, and what is predicted with and without them.

    ``everything`` is None where integrating everything out would take too much memory, for the
    reason ``why``. ``steps`` is how many times as many leapfrog steps an effective draw then takes.
    Of the sampled, those ``as_written`` are better not non-centred.
    """

    sampled: tuple[str, ...]
    chosen: float
    everything: float | None
    why: str
    steps: float
    as_written: tuple[str, ...] = ()

    def refusal(self, name: str) -> Refusal:
        """Why a member is not integrated out."""
        remedy = "marginalize='all' integrates it out all the same"
        return Refusal(name, "cost", f"'{name}' is {self}", remedy=remedy)

    def __str__(self) -> str:
        words = f"sampled since a gradient is then predicted to take {in_words(self.chosen)}, "
        if self.everything is None:
            return words + self.why
        more = f"for {self.steps:.1f} times as many steps"
        return f"{words}instead of {in_words(self.everything)}, {more}"


class Costs:
    """What a group of a program is predicted to cost with some of its members sampled.

    Args:
        group: the members and what reads them.
        chains: as in :class:`autmarg.plan.select.Request`.
        source: what a gradient of the group as it is written takes, ``rest`` what else there is.
        others: effects that are sampled anyway.
        local: members each of whose effects has a sampled scale of its own.
        again: members to integrate out → their groups, extracted anew.
    """

    def __init__(
        self,
        group: Group,
        chains: str,
        source: Work,
        rest: Work,
        others: Sequence[Effects],
        local: Collection[str],
        again: Callable[[Collection[str]], Sequence[Group] | NotWritten],
    ) -> None:
        self.group, self.chains, self.source = group, chains, source
        self.rest, self.others, self.local, self.again = rest, others, local, again
        self.names = tuple(m.name for m in group.members)
        self._known: dict[tuple[str, ...], list[Price] | NoCost] = {}
        stand_ins = group.stand_ins
        self.stood_in = bool(stand_ins)
        self.whitened = any(not n.integrated for n in stand_ins)
        # Of the source's density, for each of ours by quadrature.
        self.evaluations = max((n.nodes ** len(n.integrated) for n in stand_ins), default=0)
        self.in_time = bool(group.system.form.recurrences or group.system.form.correlated)

    @cached_property
    def effects(self) -> Mapping[str, Effects]:
        """Of every member, were it sampled."""
        form, stats = self.group.system.form, self.group.assembly.summed.stats
        large = sum(_count(m) > SMALL_ROOT for m in form.members)
        matters = large > 1 or (large and form.columns <= _COLUMNS)
        asked = matters and not form.recurrences and not self.stood_in  # pseudo-data fit anything
        ratios = variance_ratios(form, stats) if asked else {}
        fixed = {m.name for m in self.group.members if not m.parents}
        found = {}
        for member in form.members:
            if member.name not in self.names:  # a state without noise
                continue
            ratio = ratios.get(member.name, 0.0) if _count(member) > SMALL_ROOT else 0.0
            known = max(1.0, ratio / WELL)
            length = _longer(form, member, not self.stood_in)
            more = length * (LOCAL if member.name in self.local else 1.0)
            written = known if member.name in fixed | set(self.local) else math.sqrt(known)
            likelihood = UNWHITENED if self.stood_in and _count(member) > SMALL_ROOT else 1.0
            found[member.name] = Effects(
                member.name, _count(member), more * known, more * written, likelihood
            )
        return found

    @cached_property
    def pieces(self) -> list[tuple[str, ...]]:
        """Each large member with those that its prior reads, the smaller first."""
        parents = {m.name: m.parents & set(self.names) for m in self.group.members}
        pieces = []
        for name in sorted(self.names, key=lambda n: self.effects[n].count):
            if self.effects[name].count <= SMALL_ROOT:
                continue
            above, waiting = {name}, [name]
            while waiting:
                new = parents[waiting.pop()] - above
                above |= new
                waiting += new
            pieces.append(tuple(n for n in self.names if n in above))
        return pieces

    def is_source(self, sampled: Collection[str]) -> bool:
        """Whether the group is as it is written when these are sampled."""
        return len(sampled) == len(self.names)

    def prediction(self, names: Collection[str]) -> Prediction | NoCost:
        """With some members sampled; steps are relative to none of them being so."""
        gradient = self.seconds(names, self.rest)
        if isinstance(gradient, NoCost):
            return gradient
        effects = [self.effects[name] for name in names]
        more = steps([*self.others, *effects], self.is_source(names)) / steps(self.others)
        dimensions = sum(each.count for each in effects)
        return Prediction(gradient, dimensions, more)

    def seconds(self, names: Collection[str], rest: Work) -> float | NoCost:
        """Of a gradient of the group, some members sampled, and of the ``rest`` of the program."""
        if self.is_source(names):
            return source_seconds(self.source + rest)
        prices = self._priced(tuple(names))
        if isinstance(prices, NoCost):
            return prices
        total = 0.0
        for stages, work, products in prices:
            total, rest = total + stages + evaluation_seconds(work + rest, products), Work()
        if self.whitened:
            drawn = sum(r.steps for r in self.group.system.form.recurrences)  # one after the other
            total = _IMAGE * total + step_seconds(drawn) + source_seconds(self.source)
            outside = self.group.outside_largest
            total += turn_seconds(len(outside) * int(outside.sum()))
        elif self.stood_in:
            each = self.evaluations * self.source.elements
            total += source_seconds(replace(self.source, elements=each))
        return total

    def _priced(self, names: tuple[str, ...]) -> list[Price] | NoCost:
        """Of each group that is left when these are sampled."""
        if names not in self._known:
            if not names or not self.in_time:
                found = _prices([self.group], self.chains, names)
            else:
                groups = self.again([name for name in self.names if name not in names])
                found = groups if isinstance(groups, NotWritten) else _prices(groups, self.chains)
            self._known[names] = found
        return self._known[names]


def _prices(
    groups: Sequence[Group], chains: str, sampled: Collection[str] = ()
) -> list[Price] | NoCost:
    """The prices of groups, or what stands in the way of the first that has none."""
    prices = []
    for group in groups:
        price = _price(group, chains, sampled)
        if isinstance(price, TooLarge):
            return price
        prices.append(price)
    return prices


def _price(group: Group, chains: str, sampled: Collection[str]) -> Price | TooLarge:
    """Predicted seconds of a group's stages, the work of its opaque numbers, products at a step.

    Some of its members may be sampled where nothing is in time.
    """
    form, assembly = group.system.form, group.assembly
    if form.recurrences:
        planned = stages_of(in_blocks(form, chains), assembly)
    else:
        left = [m for m in form.members if m.name not in sampled]
        planned = eliminate(_pattern_of(assembly.pattern, left), left)
    if isinstance(planned, TooLarge):
        return planned
    whitened = (term for term in assembly.terms if isinstance(term, Whitened))
    white = sum((_whitening(term) for term in whitened), Work())
    work = jaxpr_work(group.system.closed) + white
    return seconds(planned, len(assembly.pattern.first)), work, assembly.products


def _whitening(rows: Whitened) -> Work:
    """What it takes to solve a site's noise factor against its rows, and to square them."""
    blocks, d, columns = rows.shape
    products = blocks * d * columns * (d + columns)
    return Work(products=products, elements=3 * len(rows.known))


def choose(costs: Costs) -> Choice | None:
    """The best set of members to sample, None where everything should go."""
    found = _Predictions(costs)
    found.consider(())
    found.consider(costs.names)
    for sampled in _candidates(found):
        found.consider(sampled)
    best = found.best()
    if best == ():
        return None
    everything = found.predictions.get(())
    taken = found.predictions[best]
    written = [n for n in best if costs.is_source(best) and costs.effects[n].as_written]
    return Choice(
        best,
        taken.gradient,
        everything and everything.gradient,
        str(found.refused or ""),
        taken.steps,
        tuple(written),
    )


class _Predictions:
    """Predictions for sets of members to sample."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.predictions: dict[tuple[str, ...], Prediction] = {}
        self.refused: NoCost | None = None

    def consider(self, sampled: tuple[str, ...]) -> None:
        found = self.costs.prediction(sampled)
        if isinstance(found, Prediction):
            self.predictions[sampled] = found
        else:
            self.refused = self.refused or found

    def least(self) -> tuple[str, ...] | None:
        """The best set but for the source's."""
        names = [n for n in self.predictions if n != self.costs.names]

        def draw(sampled: tuple[str, ...]) -> float:
            return self.predictions[sampled].draw * (1.0 if sampled else _TIE)

        return min(names, key=draw, default=None)

    def best(self) -> tuple[str, ...]:
        """The best set of all."""
        least, source = self.least(), self.predictions[self.costs.names]
        if least is None:
            return self.costs.names
        return self.costs.names if takes_source(source, self.predictions[least]) else least


def takes_source(source: Prediction, other: Prediction) -> bool:
    """Whether the source is predicted to be so much cheaper than another that it is taken."""
    cheaper = source.draw < _SHARE * other.draw and BASE * other.draw > _WHOLE
    dear = other.gradient > _DEARER * source.gradient and source.draw < other.draw
    return cheaper or dear


def _candidates(found: _Predictions) -> Iterator[tuple[str, ...]]:
    """Further sets to consider, each after those before it have been.

    Where chains are filtered every set is a form of its own, so they are grown one member at a time
    and only while a gradient is much dearer than the source's.
    """
    costs, pieces = found.costs, found.costs.pieces
    whole, source = found.predictions.get(()), found.predictions[costs.names]
    least = seconds([], 0) + evaluation_seconds(costs.rest, 0)
    if whole is not None and overhead(0) + whole.gradient <= ONE * (overhead(0) + least):
        return  # nothing can be better
    most = len(pieces) if len(pieces) <= _FACTORS else 1
    if not costs.in_time:
        for count in range(1, most + 1):
            yield from (_union(costs, some) for some in combinations(pieces, count))
        return
    chosen: tuple[str, ...] = ()
    for _ in range(most):
        now = found.predictions.get(chosen)
        if now is not None and now.gradient <= _GROWN * source.gradient:
            return
        wider = [
            w for p in pieces if (w := _union(costs, [chosen, p])) not in (chosen, costs.names)
        ]
        yield from wider
        chosen = min(
            (w for w in wider if w in found.predictions),
            key=lambda w: found.predictions[w].draw,
            default=costs.names,
        )


def _union(costs: Costs, sets: Iterable[Collection[str]]) -> tuple[str, ...]:
    """The members of several sets, in order."""
    together = {name for names in sets for name in names}
    return tuple(name for name in costs.names if name in together)


def _longer(form: AffineForm, member: Member, by_rows: bool) -> float:
    """How many times as many leapfrog steps a sampled member takes as its length asks for.

    The increments of a walk of T steps, and the values, have posteriors whose condition goes with T
    at worst (for increments σ and noise s it is 1 + (2Tσ/πs)², for values 1 + (2s/σ)²), and the
    number of steps goes with its root. So it is with the d elements of a Gaussian process. (NUTS on
    examples/benchmarks/strangers.py, gradients for each effective draw: 288 for the increments of a
    walk of 100 steps, 284 predicted; 250 for its values; 24,000 for two chains in one sum.) Unless
    it is Gaussian rows that read a process (``by_rows``): counts took 66 gradients over 144 cells,
    where 80 are predicted without its length and 960 with it.
    """
    length = member.size if by_rows and member.size > SMALL_ROOT else 1
    for each in form.recurrences:
        steps_of = np.isin(each.columns, member.columns).any(axis=(1, 2))
        length = max(length, int(steps_of.sum()))
    return math.sqrt(length)


def _count(member: Member) -> int:
    return member.blocks * member.size


def _pattern_of(pattern: Pattern, members: Sequence[Member]) -> Pattern:
    """The pattern of G when only ``members`` are eliminated."""
    columns = np.concatenate([np.zeros(0, np.int64), *(m.columns.reshape(-1) for m in members)])
    inside = np.zeros(int(pattern.columns.max(initial=0)) + 1, bool)
    inside[columns] = True
    kept = inside[pattern.first] & inside[pattern.second]
    return Pattern(np.sort(columns), pattern.first[kept], pattern.second[kept])


__all__ = ["Choice", "Costs", "choose", "takes_source"]
