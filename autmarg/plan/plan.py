"""The plan: what happens to every site, as a value that prints as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import sympy

from autmarg.analysis.admissible import Facts, admissible
from autmarg.analysis.extract import LinearSystem, extract
from autmarg.analysis.rules.base import CannotExtract
from autmarg.errors import Refusal
from autmarg.gaussian.schedule import Schedule
from autmarg.ir.nodes import Deterministic, Node, Observe, Sample
from autmarg.ir.program import Program
from autmarg.plan.centring import Centring, centrings
from autmarg.plan.cost import Cost, stage_cost
from autmarg.plan.order import schedule
from autmarg.plan.select import Request, select


@dataclass(frozen=True, eq=False)
class Group:
    """Members that are integrated out together, with every other site that reads one of them.

    Attributes:
        members: sites integrated out, parents before children.
        observed: observed sites, in program order.
        children: kept latents whose mean depends on a member.
        system: their affine form; ``schedule`` eliminates it.
    """

    members: tuple[Sample, ...]
    observed: tuple[Observe, ...]
    children: tuple[Sample, ...]
    system: LinearSystem
    schedule: Schedule

    @cached_property
    def elements(self) -> Schedule:
        """The schedule for conditional variances, made when they are first asked for."""
        return schedule(self.system.form.with_elements())

    @property
    def name(self) -> str:
        """The name of the marginal node: its observed sites, or else its members."""
        sites = self.observed or self.children or self.members
        return "marginal(" + ", ".join(s.name for s in sites) + ")"

    @property
    def costs(self) -> tuple[Cost, ...]:
        """What each stage costs, in order."""
        return tuple(stage_cost(stage) for stage in self.schedule.stages)


@dataclass(frozen=True)
class Entry:
    """One line of the plan: a site, what happens to it, why, and how.

    ``size`` is a latent's unconstrained dimensions, an observed site's elements.
    """

    site: str
    size: int
    action: str
    why: str
    structure: str = ""
    cost: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """What was decided for a program.

    Attributes:
        program: the traced program, normalised.
        groups: what is integrated out, connected sets apart.
        refusals: one for each latent that stays, with the reason in words and its place.
        centrings: kept latents that could be met through standard noise → whether they are.
        entries: the lines of the table.
    """

    program: Program
    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]
    centrings: Mapping[str, Centring]
    entries: tuple[Entry, ...]

    @property
    def integrated(self) -> tuple[str, ...]:
        """Names of the sites that are integrated out, in program order."""
        gone = {m.name for g in self.groups for m in g.members}
        return tuple(n.name for n in self.program.latents if n.name in gone)

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the latent sites that stay sampled, in program order."""
        gone = set(self.integrated)
        return tuple(n.name for n in self.program.latents if n.name not in gone)

    @property
    def noncentred(self) -> tuple[str, ...]:
        """Names of the kept sites that are met through standard noise, in program order."""
        return tuple(name for name, choice in self.centrings.items() if choice.noncentred)

    @property
    def dimensions(self) -> dict[str, int]:
        """Unconstrained dimensions of each latent site, integrated out or sampled."""
        sizes = {entry.site: entry.size for entry in self.entries}
        return {n.name: sizes[n.name] for n in self.program.latents}

    @property
    def cost(self) -> sympy.Expr:
        """Multiply-adds of one log-density, in the sizes of each stage."""
        return sympy.Add(*(c.flops for g in self.groups for c in g.costs))

    def __str__(self) -> str:
        from autmarg.report.table import plan_table

        return plan_table(self)


def make_plan(facts: Facts, request: Request) -> Plan:
    """Decide what happens to every site of a program.

    Raises:
        RequestError: a request cannot be met.
        ModelError: the data contradict the model (an index out of range, NaN among the data).
    """
    program = facts.normalised.program
    judged = admissible(facts)
    while True:
        selection = select(program, judged, request)
        try:
            groups = tuple(_group(facts, part) for part in _connected(program, selection.members))
            break
        except CannotExtract as obstacle:
            judged = judged.without(obstacle)
    refusals = tuple(
        selection.refusals[n.name] for n in program.latents if n.name in selection.refusals
    )
    choices = centrings(program, {m.name for m in selection.members}, request)
    entries = tuple(_entries(program, groups, selection.refusals, choices))
    return Plan(program, groups, refusals, choices, entries)


def _readers(program: Program, name: str) -> list[Node]:
    return [c for c in program.children(name) if not isinstance(c, Deterministic)]


def _connected(program: Program, members: tuple[Sample, ...]) -> list[tuple[Sample, ...]]:
    """Members that share a child, or of which one reads another, belong together."""
    graph = nx.Graph()
    for member in members:
        graph.add_node(member.name)
        graph.add_edges_from((member.name, child.name) for child in _readers(program, member.name))
    parts = [tuple(m for m in members if m.name in c) for c in nx.connected_components(graph)]
    return sorted(parts, key=lambda part: members.index(part[0]))


def _group(facts: Facts, members: tuple[Sample, ...]) -> Group:
    program = facts.normalised.program
    names = {m.name for m in members}
    readers = {c.name for m in members for c in _readers(program, m.name)} - names
    children = tuple(n for n in program.nodes if n.name in readers and isinstance(n, Sample))
    system = extract(facts, members, children)
    return Group(
        members,
        tuple(c for c in children if isinstance(c, Observe)),
        tuple(c for c in children if not isinstance(c, Observe)),
        system,
        schedule(system.form),
    )


def _entries(
    program: Program,
    groups: tuple[Group, ...],
    refusals: dict[str, Refusal],
    choices: Mapping[str, Centring],
) -> list[Entry]:
    entries = []
    place = {m.name: g for g in groups for m in g.members}
    density = {n.name: g for g in groups for n in (*g.observed, *g.children)}
    for node in program.nodes:
        if isinstance(node, Sample) and node.name in place:
            size = node.dimensions(program.tape)
            entries.append(_member_entry(node, size, place[node.name]))
        elif isinstance(node, Observe):
            group = density.get(node.name)
            why = f"given {_names(group.members)}" if group else "reads no integrated site"
            action = "observed, marginal" if group else "observed"
            entries.append(Entry(node.name, node.size, action, why))
        elif isinstance(node, Sample):
            action, why = "sampled", str(refusals[node.name])
            if node.name in density:
                action = "sampled, density in marginal"
            if choice := choices.get(node.name):
                action = "sampled, non-centred" if choice.noncentred else action
                why = f"{why}; {choice.why}"
            entries.append(Entry(node.name, node.dimensions(program.tape), action, why))
        elif isinstance(node, Deterministic):
            later = node.parents & set(place)
            why = f"reads {', '.join(sorted(later))}" if later else "reads no integrated site"
            entries.append(Entry(node.name, 0, "after recovery" if later else "computed", why))
    return entries


def _names(members: tuple[Sample, ...]) -> str:
    return ", ".join(m.name for m in members)


def _member_entry(node: Sample, size: int, group: Group) -> Entry:
    member = next(m for m in group.schedule.form.members if m.name == node.name)
    for k, stage in enumerate(group.schedule.stages, start=1):
        if (stage.columns.reshape(-1) == member.offset).any():
            readers = _names_of_readers(group, node)
            why = f"mean of {readers} affine in it" if readers else "no other density reads it"
            cost = stage_cost(stage)
            how = f"{k}: {cost.structure}"
            return Entry(node.name, size, "integrated out", why, how, str(cost))
    raise AssertionError(f"no stage eliminates {node.name}")


def _names_of_readers(group: Group, node: Node) -> str:
    readers = [
        n.name for n in (*group.members, *group.children, *group.observed) if node.name in n.parents
    ]
    return ", ".join(readers)


__all__ = ["Entry", "Group", "Plan", "make_plan"]
