"""What the densities of a program's sites take as they are evaluated: equal rows once."""

from __future__ import annotations

from collections.abc import Collection

from autmarg.aggregation.density import added_rows, long_sites
from autmarg.analysis.admissible import Facts
from autmarg.analysis.work import Work, source_work
from autmarg.ir.nodes import StandIn
from autmarg.ir.stand_ins import with_originals


def evaluated_work(facts: Facts, names: Collection[str] | None = None) -> Work:
    """Of the sites as the user wrote them (of those named, if ``names`` are given)."""
    normalised = facts.normalised
    program = with_originals(normalised.program)
    stood_in = {n.original.name for n in normalised.program.nodes if isinstance(n, StandIn)}
    gaussian = normalised.gaussian.keys() - stood_in
    wanted = {n.name for n in program.nodes} if names is None else set(names)
    long = [n for n in long_sites(program) if n.name in wanted - gaussian]
    rows = {n.name: added_rows(program.tape, n) for n in long}
    added = {name: each.work for name, each in rows.items() if each is not None}
    return sum(added.values(), source_work(program, wanted - added.keys()))


__all__ = ["evaluated_work"]
