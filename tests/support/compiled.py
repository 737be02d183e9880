"""Small programs as they are traced, and as each pass leaves them."""

from __future__ import annotations

from autmarg.backend.compiled import compile_program
from autmarg.ir.program import Program
from autmarg.passes.default import default_passes
from autmarg.trace.capture import trace_program
from tests.support.programs import CASES, Y


def traced(name: str) -> Program:
    """One of the cases of :mod:`tests.support.programs`, before any pass."""
    return trace_program(CASES[name].model, (Y,), {})[0]


def programs_of(program: Program) -> list[Program]:
    """A program, and what every pass makes of it."""
    found = [program]
    compile_program(program, default_passes(), lambda step: found.append(step.after))
    return found


# Of the reference models: one of those of crossed subjects and items, and the largest.
QUICK = {"insteval", "grouseticks", "fibrosis", "dutch", "gg05", "stroop"}
