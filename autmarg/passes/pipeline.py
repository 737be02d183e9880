"""The pass protocol and the pipeline with its one callback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autmarg.ir.program import Program, check


class Pass(Protocol):
    """A rewriting pass: a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str: ...

    def apply(self, program: Program) -> Program: ...


@dataclass(frozen=True)
class Step:
    """What one pass did: its name, the program before and after, and how long it took."""

    name: str
    before: Program
    after: Program
    seconds: float


@dataclass(frozen=True)
class Pipeline:
    """Passes in order; ``after`` is called with every :class:`Step` (to print, time or verify)."""

    passes: tuple[Pass, ...]
    after: Callable[[Step], None] | None = None

    def run(self, program: Program) -> Program:
        """Apply all passes; every program that comes out is checked."""
        for each in self.passes:
            start = time.perf_counter()
            result = check(each.apply(program))
            if self.after is not None:
                self.after(Step(each.name, program, result, time.perf_counter() - start))
            program = result
        return program
