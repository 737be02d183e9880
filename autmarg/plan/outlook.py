"""Predictions for a whole program: as it is planned, and as it is written.

A program is its groups (members with what reads them) and whatever else has a density. A gradient
takes the sum of them, an effective draw as many leapfrog steps as all that is sampled asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autmarg.analysis.admissible import Facts
from autmarg.analysis.rules.base import NotWritten
from autmarg.analysis.work import Work, source_work
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.stand_ins import with_originals
from autmarg.plan.choose import Choice, Costs, choose
from autmarg.plan.evaluated import evaluated_work
from autmarg.plan.groups import Group, groups_of
from autmarg.plan.order import SMALL_ROOT
from autmarg.plan.prediction import BASE, UNWHITENED, WHITENED, Effects, Prediction, steps
from autmarg.plan.pricing import source_seconds
from autmarg.plan.select import Request

if TYPE_CHECKING:
    from autmarg.conjugacy.match import Conjugacy

_SCALES = 8  # sampled scales from which they are taken to be one for each effect


@dataclass(frozen=True, eq=False)
class Outlook:
    """The groups of a program with what they cost, before anything is chosen.

    Attributes:
        facts: of the program, all of it.
        costs: one for each group.
        others: effects that no group has.
    """

    facts: Facts
    costs: tuple[Costs, ...]
    others: tuple[Effects, ...]

    @classmethod
    def of(cls, facts: Facts, request: Request, groups: Sequence[Group]) -> Outlook:
        """Of a program whose members make these groups."""
        program = facts.normalised.program
        inside = {m.name for group in groups for m in group.members}
        kept = [n for n in program.latents if n.name not in inside and n.size > SMALL_ROOT]
        others = tuple(Effects(n.name, n.size, likelihood=_likelihood(facts, n)) for n in kept)
        return cls(facts, tuple(_costs(facts, request, p, others) for p in groups), others)

    def chosen(self) -> dict[str, Choice]:
        """Members that are better sampled, with the choice that says so."""
        found: dict[str, Choice] = {}
        for costs in self.costs:
            if costs.stood_in:
                continue  # everything in it is sampled, as noise, or was asked to be summed over
            if (choice := choose(costs)) is not None:
                found |= dict.fromkeys(choice.sampled, choice)
        return found

    def predictions(
        self, sampled: Collection[str], conjugacies: Sequence[Conjugacy]
    ) -> tuple[Prediction, Prediction]:
        """Of the program with some members sampled, and of the source.

        What is integrated out has a schedule already, so that all of it has a cost.
        """
        program, costs = self.facts.normalised.program, self.costs
        names = [[n for n in each.names if n in sampled] for each in costs]
        pairs = list(zip(costs, names, strict=True))
        folded = {c.member.name for c in conjugacies}
        everything = [*self.others, *(e for each in costs for e in each.effects.values())]
        gone = {n for each, some in pairs for n in each.names if n not in some} | folded
        white = {n for each in costs if each.whitened for n in each.names}
        left = [e for e in everything if e.name not in gone]
        left += [
            Effects("noise", c.group.system.form.columns, WHITENED) for c in costs if c.whitened
        ]
        inside = {n.name for each in costs for n in each.group.sites}
        known = {site.name for c in conjugacies for site in c.observed}
        rest = evaluated_work(self.facts, {n.name for n in program.nodes} - inside - known)
        gradient = 0.0 if costs else source_seconds(rest)
        for each, some in pairs:
            seconds, rest = each.seconds(some, rest), Work()
            assert isinstance(seconds, float)
            gradient += seconds
        sizes = {n.name: n.dimensions(program.tape) for n in program.latents}
        dimensions = sum(size for name, size in sizes.items() if name not in gone - white)
        source = source_seconds(source_work(with_originals(program)))
        return (
            Prediction(gradient, dimensions, BASE * steps(left, not gone)),
            Prediction(source, sum(sizes.values()), BASE * steps(everything, True)),
        )


def _costs(facts: Facts, request: Request, group: Group, others: Sequence[Effects]) -> Costs:
    program = facts.normalised.program
    own = {n.name for n in group.sites}
    rest = {n.name for n in program.nodes} - own

    def again(names: Collection[str]) -> tuple[Group, ...] | NotWritten:
        return groups_of(facts, [m for m in group.members if m.name in names])

    source, besides = (evaluated_work(facts, names) for names in (own, rest))
    return Costs(group, request.chains, source, besides, others, _local(facts, group), again)


def _likelihood(facts: Facts, latent: Sample) -> float:
    """How many times as many steps it takes because of what reads it."""
    gaussian = facts.normalised.gaussian
    if latent.name not in gaussian:
        return 1.0
    read = facts.normalised.program.children(latent.name)
    observed = [n for n in read if isinstance(n, Observe)]
    affine = (
        n.name in gaussian and latent.name not in facts.degree(gaussian[n.name].loc).nonlinear
        for n in observed
    )
    return 1.0 if all(affine) else UNWHITENED


def _local(facts: Facts, group: Group) -> set[str]:
    """Members whose prior's scale reads a latent of nearly as many elements."""
    program, found = facts.normalised.program, set()
    sizes = {n.name: n.size for n in program.latents if n.size >= _SCALES}
    for member in group.members:
        scale = facts.normalised.gaussian[member.name].scale
        read = program.tape.dependencies([] if scale is None else [scale])
        if any(sizes.get(name, 0) >= member.size / 2 for name in read):
            found.add(member.name)
    return found
