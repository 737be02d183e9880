"""What a stage costs: in symbols, for a reader, and counted by kind, for the planner.

N rows are compiled away into meetings, so no cost depends on them, but for rows that a chain
filters one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sympy

# Kernels of a step of a filter, each as long as a step of one number: for a product of its state's
# numbers, the most of them (LAPACK has more), with later columns, and for a row and a number.
_KERNELS, _MOST_KERNELS, _JOINED, _KERNELS_OF_ROWS = 1.2, 26.0, 1.3, 0.6
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
        steps: in time that go one after the other, each of one number.
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


def filter_work(T: Any, M: Any, d: Any, D: Any, n: Any = None, blocks: int = 1) -> Any:
    """Multiply-adds of a filter, n rows of each step one by one or all as a quadratic form."""
    each = 4 * d**3 + d**2 * D + d * D**2
    if n is not None:
        each = 2 * d**3 + d**2 * D + n * (4 * d**2 + 2 * d * D + D**2)
    return (3 if blocks > 1 else 1) * T * M * each


def filter_counts(T: int, M: int, d: int, D: int, n: int | None = None, blocks: int = 1) -> Counts:
    """The work of a value and gradient of a filter.

    A step of several numbers is as many kernels as it has small products, each as long as a step of
    one number: measured in filters of 1 to 20 numbers, 30 to 60 steps and 1 to 22 rows of each.
    """
    depth = T if blocks == 1 else 2 * -(-T // blocks) + blocks
    if n is None:
        kernels = min(_KERNELS * d**2, _MOST_KERNELS) * (1.0 if D == 0 else _JOINED)
    else:
        kernels = _KERNELS_OF_ROWS * n * d
    small = float(filter_work(T, M, d, D, n, blocks))
    return Counts(columns=math.inf, small=small, steps=depth * max(1.0, kernels))


def dense_root(size: int) -> Cost:
    """Of a symmetric matrix of ``size`` columns, factorised whole."""
    counts = Counts(columns=size, cubes=float(size) ** 3, entries=float(size) ** 2)
    return Cost(f"dense root of {size}", lambda D: D**3 / 6, {"D": size}, counts)


__all__ = ["SYMBOLS", "Cost", "Counts", "dense_root"]
