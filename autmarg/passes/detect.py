"""Decide, on the graph as it is, what the later passes do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from autmarg.analysis.admissible import facts_of
from autmarg.analysis.sites import normalise
from autmarg.errors import RequestError
from autmarg.ir.nodes import Node
from autmarg.ir.program import Program
from autmarg.plan.decide import choose, judge, schedule
from autmarg.plan.plan import Plan
from autmarg.plan.select import Request


@dataclass(frozen=True)
class Detect:
    """Find what can be integrated out and put the plan beside the graph (``program.plan``).

    Every site is read as a Gaussian where it is one, the parts of its density are written onto the
    tape, and what is known is folded.
    """

    request: Request = field(default_factory=Request)
    name = "detect"

    def apply(self, program: Program) -> Program:
        """The program on its folded tape, with its plan."""
        facts = facts_of(normalise(program))
        draft = judge(facts, self.request)  # what can be integrated out
        chosen = choose(draft)  # what pays
        plan = schedule(chosen)  # in which order, and in which form the rest is sampled
        return replace(plan.program, plan=plan)

    def sampling(self, names: Collection[str]) -> Detect:
        """The same, asked nothing of the sites ``names``, and not to re-express others."""
        asked = self.request.marginalize
        keep = tuple(n for n in self.request.keep if n not in names)
        every = "all" if isinstance(asked, str) else asked
        return replace(self, request=Request(every, keep, "off", self.request.chains))


def plan_of(program: Program, by: str) -> Plan:
    """The plan beside a graph.

    Raises:
        RequestError: no pass has made one.
    """
    if program.plan is None:
        raise RequestError(f"pass '{by}' needs a plan: expected 'detect' before it in the list")
    return program.plan


def check_unchanged(program: Program, nodes: tuple[Node, ...], by: str) -> None:
    """Raise unless the plan of a graph still holds for some of its sites.

    Raises:
        RequestError: a pass in between changed a site or an expression that it reads.
    """
    seen = plan_of(program, by).program
    for node in nodes:
        same = program[node.name] is seen[node.name] if node.name in program else False
        if not same or not program.tape.agrees(seen.tape, node.numbers):
            raise RequestError(
                f"a pass between 'detect' and '{by}' changed '{node.name}', so what was decided "
                "for it no longer holds: expected that pass before 'detect'"
            )
