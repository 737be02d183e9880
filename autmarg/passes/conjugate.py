"""Integrate latents with a conjugate prior out, by the rules of ``autmarg.conjugacy``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autmarg.ir.nodes import Recover, of_sites
from autmarg.ir.program import Program
from autmarg.passes.detect import check_unchanged, plan_of
from autmarg.passes.marginalise import check_readers, integrated_out


@dataclass(frozen=True)
class Conjugate:
    """Apply the plan's conjugacies, one after the other: each replaces a latent and its children
    by their marginal likelihood, and recovery draws the latent from its posterior."""

    name = "conjugate"
    rule = "conjugacy"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program after each.

        Raises:
            RequestError: there is no plan, or a pass in between changed what it is about.
        """
        plan = plan_of(program, self.name)
        if not plan.conjugacies:
            return
        # Rules need SymPy, which is slow to import.
        from autmarg.conjugacy.conjugate import ConjugateMarginal
        from autmarg.conjugacy.unread import UnreadPrior

        for found in plan.conjugacies:
            if any(group.name not in program for group in found.groups):
                continue  # its pass was taken out of the list, so nothing shares the latent
            inside = {n.name for g in found.groups for n in g.observed}
            own = tuple(n for n in found.observed if n.name not in inside)
            shared = {g.name for g in found.groups}
            check_unchanged(program, (found.member, *own), self.name)
            check_readers(program, (found.member,), shared | {n.name for n in own})
            members = (found.member, *(m for g in found.groups for m in g.members))
            density = UnreadPrior(found.member, plan.program.tape)
            if found.update is not None:
                density = ConjugateMarginal(found.update)
            recover = Recover(
                of_sites("recover", members), density.inputs, None, members=members,
                marginal=found.name, density=density, rule=found.rule, why=found.why,
            )  # fmt: skip
            instead = shared | {of_sites("recover", g.members) for g in found.groups}
            structure = tuple(words for g in found.groups for words in g.structure)
            program = integrated_out(program, recover, found.observed, (), structure, instead)
            yield program
