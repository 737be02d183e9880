"""The plan: what happens to every site, as a value. How it is shown is in :mod:`autmarg.report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autmarg.analysis.needed import complete
from autmarg.errors import Refusal
from autmarg.ir.nodes import QUADRATURE, NonCentred, Recover
from autmarg.ir.pickled import AsValue
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import with_originals
from autmarg.plan.centring import Centring
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.prediction import Prediction

if TYPE_CHECKING:
    import networkx as nx

    from autmarg.conjugacy.match import Conjugacy
    from autmarg.report.entries import Entry


@dataclass(frozen=True, eq=False)
class Plan(AsValue):
    """What was decided for a program.

    Attributes:
        program: the traced program, normalised.
        groups: what is integrated out as linear Gaussian, connected sets apart.
        conjugacies: what is integrated out after them, by a rule each.
        refusals: one for each latent that stays, with the reason in words and its place.
        centrings: kept latents that could be met through standard noise → whether they are.
        predicted: what the planned program and the source are predicted to take.
        rewritten: the program after all passes, or None before.
        history: every rewrite, in order (:class:`autmarg.passes.pipeline.Step`).
    """

    program: Program
    groups: tuple[ScheduledGroup, ...] = ()
    conjugacies: tuple[Conjugacy, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    centrings: Mapping[str, Centring] = field(default_factory=dict)
    predicted: tuple[Prediction, Prediction] | None = None
    rewritten: Program | None = None
    history: tuple[Any, ...] = ()

    def after(self, rewritten: Program, history: tuple[Any, ...]) -> Plan:
        """The plan with what the passes made of it."""
        gone = {m.name for m in rewritten.integrated}
        refused = {r.site: r for r in self.refusals}
        refusals = tuple(
            refused.get(n.name) or complete(_left(n.name), self.program)
            for n in self.program.latents
            if n.name not in gone and n.name in rewritten
        )
        return replace(
            self,
            program=with_originals(self.program),
            groups=tuple(g for g in self.groups if {m.name for m in g.members} <= gone),
            conjugacies=tuple(c for c in self.conjugacies if c.member.name in gone),
            refusals=refusals,
            rewritten=rewritten,
            history=history,
        )

    @property
    def recovered(self) -> tuple[str, ...]:
        """Names of the sites that recovery gives back, in program order."""
        gone = {m.name for g in self.groups for m in g.members}
        gone |= {c.member.name for c in self.conjugacies}
        if self.rewritten is not None:
            gone = {m.name for m in self.rewritten.integrated}
        return tuple(n.name for n in self.program.latents if n.name in gone)

    @property
    def whitened(self) -> tuple[str, ...]:
        """Those of them that are functions of standard noise, which is sampled instead."""
        found = {m.name for node in self._whitening for m in node.members}
        return tuple(name for name in self.recovered if name in found)

    @property
    def integrated(self) -> tuple[str, ...]:
        """Names of the sites that are integrated out, in program order."""
        whitened = set(self.whitened)
        return tuple(name for name in self.recovered if name not in whitened)

    @property
    def quadrature(self) -> tuple[str, ...]:
        """What is integrated out numerically, with how many nodes and which error: sentences."""
        nodes = () if self.rewritten is None else self.rewritten.nodes
        return tuple(n.why for n in nodes if isinstance(n, Recover) and n.rule == QUADRATURE)

    @property
    def noise(self) -> dict[str, int]:
        """Sites of standard noise → the number of their elements."""
        after = self.rewritten or self.program
        return {node.noise: after[node.noise].size for node in self._whitening}

    @property
    def _whitening(self) -> list[Recover]:
        nodes = () if self.rewritten is None else self.rewritten.nodes
        return [n for n in nodes if isinstance(n, Recover) and n.noise]

    @property
    def sampled(self) -> int:
        """Dimensions that are sampled."""
        return sum(self.dimensions[name] for name in self.kept) + sum(self.noise.values())

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the latent sites that stay sampled, in program order."""
        gone, after = set(self.recovered), self.rewritten or self.program
        names = (n.name for n in self.program.latents if n.name not in gone)
        return tuple(name for name in names if name in after)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The lines of the table."""
        return tuple(_reports().entries(self))

    @property
    def noncentred(self) -> tuple[str, ...]:
        """Names of the kept sites that are met through standard noise, in program order."""
        if self.rewritten is not None:
            return tuple(n.name for n in self.rewritten.nodes if isinstance(n, NonCentred))
        return tuple(name for name, choice in self.centrings.items() if choice.noncentred)

    @cached_property
    def dimensions(self) -> dict[str, int]:
        """Unconstrained dimensions of each latent site, integrated out or sampled."""
        return {n.name: n.dimensions(self.program.tape) for n in self.program.latents}

    @property
    def cost(self) -> Fraction:
        """Multiply-adds of one log-density."""
        return sum((c.flops for g in self.groups for c in g.costs), Fraction(0))

    def explain(self) -> str:
        """The refusals at length: the condition that failed, the user's line, what would help."""
        return _reports().explain(self.refusals)

    def to_networkx(self) -> tuple[nx.DiGraph[Any], nx.DiGraph[Any]]:
        """The program's graph before and after; see :mod:`autmarg.report.graph`."""
        return _reports().before(self), _reports().after(self)

    def to_json(self) -> str:
        """Everything the plan says, as JSON."""
        return _reports().to_json(self)

    def to_dot(self) -> str:
        """Both graphs in Graphviz's language."""
        return _reports().to_dot(self)

    def to_latex(self) -> str:
        """The generative model before and after, as a methods section prints it."""
        return _reports().to_latex(self)

    def to_html(self) -> str:
        """A page with both graphs, the table, the reasons and the texts."""
        return _reports().page(self)

    def figure(self) -> Any:
        """A matplotlib figure of G: which site meets which, in the order of elimination.

        Raises:
            RequestError: matplotlib is not installed, or nothing is integrated out.
        """
        return _reports().figure(self)

    def _repr_html_(self) -> str:
        return _reports().fragment(self)

    def __rich__(self) -> Any:
        return _reports().rich_table(self)

    def __str__(self) -> str:
        return _reports().plan_table(self)

    def __repr__(self) -> str:
        """The table's first line: a plan holds the program, its data and its schedules."""
        return f"<{str(self).splitlines()[0]}>"


def _reports() -> Any:
    """The reports, imported when a plan is shown: they are a later stage."""
    from autmarg import report

    return report


def _left(name: str) -> Refusal:
    return Refusal(name, "no pass", f"'{name}' is sampled, since no pass integrates it out")


__all__ = ["Plan"]
