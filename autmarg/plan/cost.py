"""What a stage costs, as sympy expressions in its sizes.

N rows are compiled away into meetings; M is the number of blocks, d their width, E the meetings of
a block with a later column, P the pairs of meetings, D the columns left for a later stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy

from autmarg.gaussian.stages import BatchedBlocks

M, D, d, E, P = sympy.symbols("M D d E P", positive=True, integer=True)


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one log-density in symbols, and the symbols' values."""

    structure: str
    formula: sympy.Expr
    values: tuple[tuple[sympy.Symbol, int], ...]

    @property
    def flops(self) -> sympy.Expr:
        """The number of multiply-adds."""
        return self.formula.subs(dict(self.values))

    def __str__(self) -> str:
        return f"{self.formula} = {int(self.flops):,}"


def stage_cost(stage: Any) -> Cost:
    """Structure and cost of one elimination stage."""
    if isinstance(stage, BatchedBlocks):
        sizes = [(M, stage.blocks), (d, stage.width)]
        if stage.dense is not None:
            values = (*sizes, (D, len(stage.later)))
            text = f"{stage.blocks} blocks of {stage.width}, dense to {len(stage.later)}"
            return Cost(text, M * d**3 / 6 + M * d * D**2, values)
        values = (*sizes, (E, len(stage.meeting_block)), (P, len(stage.target)))
        text = f"{stage.blocks} blocks of {stage.width}, {len(stage.meeting_block)} meetings"
        return Cost(text, M * d**3 / 6 + E * d**2 / 2 + P * d, values)
    return Cost(f"dense root of {stage.size}", D**3 / 6, ((D, stage.size),))
