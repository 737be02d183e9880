"""What a stage costs: in symbols, for a reader, and counted by kind, for the planner.

N rows are compiled away into meetings, so no cost depends on them, but for rows that a chain
filters one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sympy

_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
# The sizes in which costs are, and what a reader of a plan is told of them.
SYMBOLS = {
    "M": "blocks of a stage (chains of a filter)",
    "d": "columns of a block (of a state)",
    "D": "columns that each block meets, or of the dense root",
    "E": "meetings of a block with another column",
    "P": "pairs of meetings",
    "T": "steps in time",
    "n": "rows at a step",
}


@dataclass(frozen=True)
class Counts:
    """How often a value and gradient does each kind of work; the planner knows how long each takes.

    Attributes:
        columns: that are eliminated; infinite where the work never fuses into few kernels.
        products: multiply-adds of large matrix products.
        cubes: of the sizes of dense factorisations.
        entries: of dense matrices that are read and written.
        meetings: entries that are looked up and added one by one.
        small: multiply-adds of matrices of a few columns.
        steps: in time that go one after the other.
    """

    columns: float = 0.0
    products: float = 0.0
    cubes: float = 0.0
    entries: float = 0.0
    meetings: float = 0.0
    small: float = 0.0
    steps: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))


@dataclass(frozen=True)
class Cost:
    """What one stage costs.

    Attributes:
        structure: how it eliminates, in words.
        work: multiply-adds of one log-density, a function of sizes by their letters: of numbers,
            or of SymPy's symbols, so that planning needs no SymPy (slow to import).
        sizes: by their letters, those of :data:`SYMBOLS`.
        counts: of a value and gradient.
    """

    structure: str
    work: Callable[..., Any]
    sizes: Mapping[str, int]
    counts: Counts = field(default_factory=Counts)

    @property
    def formula(self) -> sympy.Expr:
        """The multiply-adds in symbols."""
        import sympy  # slow to import

        letters = {n: sympy.Symbol(n, positive=True, integer=True) for n in self.sizes}
        return sympy.sympify(self.work(**letters))

    @property
    def flops(self) -> Fraction:
        """The number of multiply-adds."""
        return Fraction(self.work(**{n: Fraction(size) for n, size in self.sizes.items()}))

    def __str__(self) -> str:
        raised = re.sub(r"\*\*(\d)\b", lambda power: _RAISED[int(power[1])], str(self.formula))
        return f"{raised.replace('*', '·')} = {int(self.flops):,}"


def dense_root(size: int) -> Cost:
    """Of a symmetric matrix of ``size`` columns, factorised whole."""
    counts = Counts(columns=size, cubes=float(size) ** 3, entries=float(size) ** 2)
    return Cost(f"dense root of {size}", lambda D: D**3 / 6, {"D": size}, counts)


__all__ = ["SYMBOLS", "Cost", "Counts", "dense_root"]
