"""What a stage costs, as sympy expressions in its sizes.

N rows are compiled away into meetings; M is the number of blocks, d their width, E the meetings of
a block with a later column, P the pairs of meetings, D the columns left for a later stage, T the
steps of a chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy

from autmarg.gaussian.stages import BatchedBlocks, Chain, Unrolled

M, D, d, E, P, T = sympy.symbols("M D d E P T", positive=True, integer=True)


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
    if isinstance(stage, Chain):
        steps, chains = stage.recurrence.steps, stage.recurrence.chains
        sizes = ((T, steps), (M, chains), (d, stage.state), (D, stage.later.shape[1]))
        text = f"{chains} chains of {steps} steps, states of {stage.state}"
        return Cost(text, T * M * (4 * d**3 + d**2 * D + d * D**2), sizes)
    if isinstance(stage, Unrolled):
        size = stage.size
        text = f"{size} states written out in innovations"
        return Cost(text, 2 * D**3, ((D, len(stage.local)),))
    return Cost(f"dense root of {stage.size}", D**3 / 6, ((D, stage.size),))
