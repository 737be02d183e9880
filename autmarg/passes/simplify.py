"""Drop what nothing reads any more."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autmarg.ir.program import Program


@dataclass(frozen=True)
class Simplify:
    """Take expressions and constants off the tape that no node reads."""

    name = "simplify"

    def apply(self, program: Program) -> Program:
        """The program on a smaller tape; numbers stay as they are."""
        tape, roots = program.tape, [v for node in program.nodes for v in node.numbers]
        equations = tuple(tape.slice(roots))
        read = {*roots, *(v for e in equations for v in e.inputs)}
        constants = {v: c for v, c in tape.constants.items() if v in read}
        return replace(program, tape=replace(tape, equations=equations, constants=constants))
