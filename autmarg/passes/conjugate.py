"""Integrate latents with a conjugate prior out, by the rules of ``autmarg.rules``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autmarg.ir.nodes import Recover, of_sites
from autmarg.ir.program import Program
from autmarg.passes.detect import check_unchanged, plan_of
from autmarg.passes.marginalise import check_readers, integrated_out
from autmarg.passes.rewriting import Rewriting


@dataclass(frozen=True)
class Conjugate(Rewriting):
    """Apply the plan's conjugacies, one after the other: each replaces a latent and its children
    by their marginal likelihood, and recovery draws the latent from its posterior."""

    name = "conjugate"
    rule = "conjugacy"

    def rewrites(self, program: Program) -> Iterator[Program]:
        """The program after each.

        Raises:
            RequestError: there is no plan, or a pass in between changed what it is about.
        """
        for found in plan_of(program, self.name).conjugacies:
            nodes = (found.member, *found.observed)
            check_unchanged(program, nodes, self.name)
            check_readers(program, (found.member,), nodes)
            recover = Recover(
                of_sites("recover", (found.member,)), found.density.inputs, None,
                members=(found.member,), marginal=found.name, density=found.density,
                rule=found.rule, why=found.why,
            )  # fmt: skip
            program = integrated_out(program, recover, found.observed)
            yield program
