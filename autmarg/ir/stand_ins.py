"""Stand-ins, and what they stand in for."""

from __future__ import annotations

from collections.abc import Iterable

from autmarg.ir.nodes import Node, Observe, StandIn
from autmarg.ir.program import Program


def originals(observed: Iterable[Observe]) -> tuple[Observe, ...]:
    """Observed sites as the user wrote them, each once."""
    plain = (n.original if isinstance(n, StandIn) else n for n in observed)
    return tuple({n.name: n for n in plain}.values())


def with_originals(program: Program) -> Program:
    """The program without stand-ins; itself where it has none."""
    if not any(isinstance(n, StandIn) for n in program.nodes):
        return program
    found: dict[str, Node] = {}
    for node in program.nodes:
        own = node.original if isinstance(node, StandIn) else node
        found.setdefault(own.name, own)
    return program.replace_nodes(found.values())
