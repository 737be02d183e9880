"""What is integrated out together: connected members, with every other site that reads one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autmarg.analysis.admissible import Facts
from autmarg.analysis.extract import LinearSystem, extract
from autmarg.analysis.rules.base import NotWritten
from autmarg.gaussian.assembly import Assembly
from autmarg.gaussian.schedule import Schedule
from autmarg.gaussian.stages.cost import Cost
from autmarg.ir.nodes import Deterministic, Node, Observe, Sample, StandIn, of_sites
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import originals
from autmarg.plan.order import assemble, schedule
from autmarg.plan.timing import in_blocks


@dataclass(frozen=True, eq=False)
class Group:
    """Members that are integrated out together, before their order of elimination is decided.

    Attributes:
        members: sites integrated out, parents before children.
        observed: observed sites that read them, in program order.
        children: kept latents whose mean depends on a member.
        system: their affine form, ``assembly`` its cross-products.
    """

    members: tuple[Sample, ...]
    observed: tuple[Observe, ...]
    children: tuple[Sample, ...]
    system: LinearSystem
    assembly: Assembly

    @property
    def stand_ins(self) -> tuple[StandIn, ...]:
        """Those of the observed sites that stand in for others; then it is a surrogate."""
        return tuple(n for n in self.observed if isinstance(n, StandIn))

    @property
    def is_by_quadrature(self) -> bool:
        """Whether the members are integrated out numerically."""
        return any(n.integrated for n in self.stand_ins)

    @property
    def pieces(self) -> tuple[tuple[str, ...], ...]:
        """Names of members whose stand-ins know the others at the mode; none where none do."""
        return tuple(dict.fromkeys(n.piece for n in self.stand_ins if n.piece))

    @property
    def outside_largest(self) -> np.ndarray:
        """Which columns are outside the largest piece; none where there are no pieces."""
        form = self.system.form
        sizes = {m.name: m.blocks * m.size for m in form.members}
        largest = max(self.pieces, key=lambda names: sum(sizes[name] for name in names), default=())
        inside = np.full(form.columns, not self.pieces)
        for member in form.members:
            if member.name in largest:
                inside[member.columns.reshape(-1)] = True
        for chain in form.recurrences:  # states, which have no names
            columns = chain.columns[chain.columns >= 0]
            inside[columns] |= inside[columns].any()
        return ~inside

    @property
    def sites(self) -> tuple[Sample, ...]:
        """All whose density it has."""
        return (*self.members, *self.children, *self.observed)

    def scheduled(self, chains: str) -> ScheduledGroup:
        """The same with its order of elimination; ``chains`` is as in :class:`Request`.

        Raises:
            RequestError: it is beyond the budget of memory.
        """
        planned = schedule(in_blocks(self.system.form, chains), self.assembly)
        return ScheduledGroup(**vars(self), schedule=planned)


@dataclass(frozen=True, eq=False)
class ScheduledGroup(Group):
    """Members that are integrated out together; ``schedule`` eliminates their affine form."""

    schedule: Schedule

    def variances(self) -> Schedule:
        """The schedule of the form with a row for each element, for conditional variances."""
        form = self.schedule.form.with_elements()
        return schedule(form, assemble(form))

    @property
    def name(self) -> str:
        """The name of the marginal node: its observed sites, or else its members."""
        sites = originals(self.observed) or self.children or self.members
        return of_sites("marginal", sites)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """What each stage costs, in order."""
        return tuple(stage.cost for stage in self.schedule.stages)

    @property
    def structure(self) -> tuple[str, ...]:
        """How each stage eliminates, in words."""
        return tuple(cost.structure for cost in self.costs)


def _readers(program: Program, name: str) -> list[Node]:
    return [c for c in program.children(name) if not isinstance(c, Deterministic)]


def connected(program: Program, members: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Members that share a child, or of which one reads another, belong together."""
    sets: list[set[str]] = []
    for member in members:
        own = {member.name, *(child.name for child in _readers(program, member.name))}
        touched = [each for each in sets if each & own]
        sets = [each for each in sets if not each & own] + [own.union(*touched)]
    found = [tuple(m for m in members if m.name in each) for each in sets]
    return sorted(found, key=lambda each: members.index(each[0]))


def groups_of(facts: Facts, members: Sequence[Sample]) -> tuple[Group, ...] | NotWritten:
    """Members in connected sets with what reads them; or the first mean that is not written out.

    Raises:
        ModelError: the data contradict the model (an index out of range, NaN among the data).
    """
    groups = []
    for each in connected(facts.normalised.program, members):
        group = _group_of(facts, each)
        if isinstance(group, NotWritten):
            return group
        groups.append(group)
    return tuple(groups)


def _group_of(facts: Facts, members: tuple[Sample, ...]) -> Group | NotWritten:
    """A connected set of members with what reads it."""
    program = facts.normalised.program
    names = {m.name for m in members}
    readers = {c.name for m in members for c in _readers(program, m.name)} - names
    children = tuple(n for n in program.nodes if n.name in readers and isinstance(n, Sample))
    system = extract(facts, members, children)
    if isinstance(system, NotWritten):
        return system
    return Group(
        members,
        tuple(c for c in children if isinstance(c, Observe)),
        tuple(c for c in children if not isinstance(c, Observe)),
        system,
        assemble(system.form),
    )
