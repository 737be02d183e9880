"""Rewrite members and their children into a marginal node and a recovery node."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace

from autmarg.errors import RequestError, named
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import (
    QUADRATURE,
    WHITENED,
    Ancestral,
    Deterministic,
    Marginal,
    Node,
    Observe,
    Recover,
    Sample,
    StandIn,
    of_sites,
)
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import originals, with_originals
from autmarg.passes.detect import check_unchanged, plan_of
from autmarg.passes.quadrature import quadrature_of
from autmarg.passes.whiten import density_of
from autmarg.plan.groups import ScheduledGroup
from autmarg.quadrature.density import QuadratureMarginal
from autmarg.whitening.density import WhitenedMarginal
from autmarg.whitening.surrogate import standard_noise


@dataclass(frozen=True)
class Marginalise:
    """Integrate the plan's groups out of the program, one after the other.

    Members disappear from the sampled sites; observed children move into a :class:`Marginal`
    node, which stands where the last child stood; kept children become :class:`Ancestral`; a
    :class:`Recover` node at the end draws the members back. Where a child is a stand-in for a site
    that is not Gaussian, members become functions of standard noise, a sampled site, instead, or
    are integrated out by quadrature.
    """

    name = "marginalise"
    rule = "linear Gaussian"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program after each group.

        Raises:
            RequestError: there is no plan, or a pass in between changed what it is about.
        """
        for group in plan_of(program, self.name).groups:
            nodes = (*group.members, *group.children, *group.observed)
            check_unchanged(program, nodes, self.name)
            check_readers(program, group.members, {n.name for n in nodes})
            if group.is_by_quadrature:
                program = _numerically(program, group)
            elif group.stand_ins:
                program = _whitened(program, group)
            else:
                program = self._without(program, group)
            yield program
        if any(isinstance(n, StandIn) for n in program.nodes):
            yield with_originals(program)

    def _without(self, program: Program, group: ScheduledGroup) -> Program:
        """One group integrated out."""
        recover = _recover(group, GaussianMarginal.of(group), self.rule)
        return integrated_out(program, recover, group.observed, group.children, group.structure)


def _recover(
    group: ScheduledGroup,
    density: GaussianMarginal | WhitenedMarginal | QuadratureMarginal,
    rule: str,
    noise: str = "",
) -> Recover:
    return Recover(
        of_sites("recover", group.members), density.inputs, None,
        members=group.members, marginal=group.name, density=density, rule=rule, noise=noise,
    )  # fmt: skip


def _whitened(program: Program, group: ScheduledGroup) -> Program:
    """One group, its members as functions of standard noise."""
    density = density_of(program, group)
    program, noise = standard_noise(program, density.noise, density.columns)
    recover = _recover(group, density, WHITENED, density.noise)
    # (noise first: it is met before the marginal that reads it)
    program = program.replace_nodes((noise, *program.nodes))
    instead = {n.name for n in group.observed}
    observed = originals(group.observed)
    return integrated_out(program, recover, observed, group.children, group.structure, instead)


def _numerically(program: Program, group: ScheduledGroup) -> Program:
    """One group integrated out by quadrature."""
    density = quadrature_of(program, group)
    error = max(n.error for n in group.stand_ins)
    names = named([m.name for m in density.members])
    why = (
        f"{names}: by quadrature with {density.nodes} nodes for each integral; twice as many "
        f"change log p(y | θ) by {error:.0e} nats at most at the mode and points around it"
    )
    recover = replace(_recover(group, density, QUADRATURE), why=why)
    words = tuple(f"{m.size:,} integrals, {density.nodes} nodes" for m in density.members)
    instead, observed = {n.name for n in group.observed}, originals(group.observed)
    return integrated_out(program, recover, observed, group.children, words, instead)


def integrated_out(
    program: Program,
    recover: Recover,
    observed: tuple[Observe, ...],
    children: tuple[Sample, ...] = (),
    structure: tuple[str, ...] = (),
    instead: Collection[str] = (),
) -> Program:
    """The program with the marginal of some sites in place of ``recover``'s members.

    Args:
        program: to rewrite.
        recover: goes to the end; its parents are all inputs of its density.
        observed, children: everything whose density reads a member, known or kept.
        structure: how it is evaluated, in words.
        instead: names of other nodes in whose place the new ones stand.
    """
    gone = {m.name for m in recover.members} | {n.name for n in observed} | {*instead}
    kept = {n.name for n in children}
    here = (i for i, n in enumerate(program.nodes) if n.name in gone | kept)
    last = max(i for i in here if not isinstance(program.nodes[i], Recover))
    parents = recover.parents & {n.name for n in program.latents}
    marginal = Marginal(
        recover.marginal, parents, program.nodes[last].place, observed=observed,
        children=tuple(c.name for c in children), density=recover.density,
        structure=structure,
    )  # fmt: skip
    nodes: list[Node] = []
    for i, node in enumerate(program.nodes):
        if isinstance(node, Sample) and node.name in kept:
            nodes.append(_ancestral(node, recover.marginal))
        elif node.name not in gone:
            nodes.append(node)
        if i == last:
            nodes.append(marginal)
    return program.replace_nodes([*nodes, replace(recover, parents=parents)])


def check_readers(program: Program, members: tuple[Sample, ...], known: Collection[str]) -> None:
    """Raise where another site than the ``known`` ones has come to read a member.

    Raises:
        RequestError: a pass after the plan was made did that.
    """
    for member in members:
        for node in program.children(member.name):
            if node.name not in known and not isinstance(node, Deterministic):
                raise RequestError(
                    f"a pass after 'detect' made '{node.name}' read '{member.name}', which is "
                    "integrated out: expected that pass before 'detect'"
                )


def _ancestral(node: Sample, marginal: str) -> Ancestral:
    own = {f.name: getattr(node, f.name) for f in fields(node)}
    return Ancestral(**own, marginal=marginal)
