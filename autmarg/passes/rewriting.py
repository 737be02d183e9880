"""What passes that make several rewrites have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from autmarg.ir.program import Program


class Rewriting(ABC):
    """A pass that yields the program after each of its rewrites; the last is the pass's result."""

    @abstractmethod
    def rewrites(self, program: Program) -> Iterator[Program]:
        """The program after each rewrite."""

    def apply(self, program: Program) -> Program:
        """The rewritten program."""
        for rewritten in self.rewrites(program):
            program = rewritten
        return program
