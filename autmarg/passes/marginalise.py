"""Rewrite members and their children into a marginal node and a recovery node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from autmarg.errors import RequestError
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Ancestral, Deterministic, Marginal, Node, Recover, Sample
from autmarg.ir.program import Program
from autmarg.passes.detect import check_unchanged, plan_of
from autmarg.plan.plan import Group


@dataclass(frozen=True)
class Marginalise:
    """Integrate the plan's groups out of the program, one after the other.

    Members disappear from the sampled sites; observed children move into a :class:`Marginal`
    node, which stands where the last child stood; kept children become :class:`Ancestral`; a
    :class:`Recover` node at the end draws the members back.
    """

    name = "marginalise"
    rule = "linear Gaussian"

    def apply(self, program: Program) -> Program:
        """The rewritten program."""
        for rewritten in self.rewrites(program):
            program = rewritten
        return program

    def rewrites(self, program: Program) -> Iterator[Program]:
        """The program after each group.

        Raises:
            RequestError: there is no plan, or a pass in between changed what it is about.
        """
        for group in plan_of(program, self.name).groups:
            nodes = (*group.members, *group.children, *group.observed)
            check_unchanged(program, nodes, self.name)
            _check_readers(program, group)
            program = self._without(program, group)
            yield program

    def _without(self, program: Program, group: Group) -> Program:
        """One group integrated out."""
        density = GaussianMarginal(group.system, group.schedule, lambda: group.elements)
        gone = {m.name for m in group.members} | {n.name for n in group.observed}
        children = {n.name for n in group.children}
        last = max(i for i, n in enumerate(program.nodes) if n.name in gone | children)
        sites = {n.name for n in program.latents}
        parents = frozenset(group.system.inputs) & sites
        marginal = Marginal(
            group.name, parents, program.nodes[last].place,
            observed=group.observed, children=tuple(c.name for c in group.children),
            density=density, structure=tuple(cost.structure for cost in group.costs),
        )  # fmt: skip
        nodes: list[Node] = []
        for i, node in enumerate(program.nodes):
            if isinstance(node, Sample) and node.name in children:
                nodes.append(_ancestral(node, group.name))
            elif node.name not in gone:
                nodes.append(node)
            if i == last:
                nodes.append(marginal)
        recover = Recover(
            "recover(" + ", ".join(m.name for m in group.members) + ")", parents, None,
            members=group.members, marginal=group.name, density=density, rule=self.rule,
        )  # fmt: skip
        return program.replace_nodes([*nodes, recover])


def _check_readers(program: Program, group: Group) -> None:
    known = {n.name for n in (*group.members, *group.children, *group.observed)}
    for member in group.members:
        for node in program.children(member.name):
            if node.name not in known and not isinstance(node, Deterministic):
                raise RequestError(
                    f"a pass after 'detect' made '{node.name}' read '{member.name}', which is "
                    "integrated out: expected that pass before 'detect'"
                )


def _ancestral(node: Sample, marginal: str) -> Ancestral:
    own = {f.name: getattr(node, f.name) for f in fields(node)}
    return Ancestral(**own, marginal=marginal)
