"""Rewrite members and their children into a marginal node and a recovery node."""

from __future__ import annotations

from dataclasses import dataclass, fields

from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Ancestral, Marginal, Node, Recover, Sample
from autmarg.ir.program import Program
from autmarg.plan.plan import Group


@dataclass(frozen=True)
class Marginalise:
    """Integrate one group out of the program.

    Members disappear from the sampled sites; observed children move into a :class:`Marginal`
    node, which stands where the last child stood; kept children become :class:`Ancestral`; a
    :class:`Recover` node at the end draws the members back.
    """

    group: Group
    name: str = "marginalise"

    def apply(self, program: Program) -> Program:
        """The rewritten program."""
        group = self.group
        density = GaussianMarginal(group.system, group.schedule, lambda: group.elements)
        gone = {m.name for m in group.members} | {n.name for n in group.observed}
        children = {n.name for n in group.children}
        last = max(i for i, n in enumerate(program.nodes) if n.name in gone | children)
        sites = {n.name for n in program.latents}
        parents = frozenset(group.system.inputs) & sites
        marginal = Marginal(
            group.name, parents, program.nodes[last].place,
            observed=group.observed, children=tuple(c.name for c in group.children),
            density=density,
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
            members=group.members, marginal=group.name, density=density,
        )  # fmt: skip
        return program.replace_nodes([*nodes, recover])


def _ancestral(node: Sample, marginal: str) -> Ancestral:
    own = {f.name: getattr(node, f.name) for f in fields(node)}
    return Ancestral(**own, marginal=marginal)
