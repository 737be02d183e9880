"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from autmarg.analysis.domain import Affine
from autmarg.compat.jaxprs import Op
from autmarg.ir.tape import Equation

# What is written out for one expression: summands known · opaque · column over all its elements.
SUMMANDS = 10_000_000


class CannotExtract(Exception):
    """An affine expression that is not written out.

    Attributes:
        reason: why, in words that go on from "the mean is affine, but".
        remedy: what the user could change, or "".
        equation: where it happened; ``sites`` are the unknowns that enter there.
        child: the site whose mean it is.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy
        self.equation: Equation | None = None
        self.sites: frozenset[str] = frozenset()
        self.child = ""


@dataclass(frozen=True, eq=False)
class NotWritten:
    """A mean that is affine and is not written out, as a value; fields as of what was raised."""

    reason: str
    remedy: str
    equation: Equation | None
    sites: frozenset[str]
    child: str

    @classmethod
    def of(cls, raised: CannotExtract) -> NotWritten:
        """What interpreting a mean has raised."""
        return cls(raised.reason, raised.remedy, raised.equation, raised.sites, raised.child)

    def __str__(self) -> str:
        return self.reason


class Operand(NamedTuple):
    """What the degree pass knows of an operand.

    ``known``: it is a concrete array, ``value`` where that has been computed. ``traced``: it
    depends on no latent, and yet is not known.
    """

    shape: tuple[int, ...]
    dtype: Any
    known: bool
    traced: bool = False
    value: Any = None

    @classmethod
    def of(cls, value: Any) -> Operand:
        """Of a value of the interpreter."""
        known = isinstance(value, np.ndarray)
        return cls(value.shape, value.dtype, known, value=value if known else None)


Linear = Callable[[Equation, Sequence[Operand]], tuple[int, ...]]


@dataclass(frozen=True)
class AffineRule:
    """How one group of primitives treats affine operands.

    Attributes:
        ops: the primitives.
        linear: ``linear(equation, operands)`` gives the operand positions in which the result is
            jointly linear (affine operands allowed in all of them at once). An empty answer means
            "nonlinear here".
        extract: ``extract(equation, values)`` with Known, Opaque and Affine operands, at least one
            of which is Affine (for lazy rules also Opaque), gives the value, or a list of values
            where the primitive has several.
        bilinear: two positions that are factors of a product: linear in each given the other.
        lazy: also worth applying to Opaque operands (it only moves entries).
    """

    ops: tuple[Op, ...]
    linear: Linear
    extract: Callable[[Equation, list[Any]], Any]
    bilinear: tuple[int, int] | None = None
    lazy: bool = False


def first(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """Linear in operand 0."""
    return (0,)


def every(equation: Equation, operands: Sequence[Operand]) -> tuple[int, ...]:
    """Jointly linear in all operands."""
    return tuple(range(len(equation.inputs)))


def check_summands(n: int) -> None:
    """Raise where more summands would be written out than is sensible."""
    if n > SUMMANDS:
        raise CannotExtract(
            f"written out it has {n:,} coefficients, more than {SUMMANDS:,}",
            "use a sparser or smaller expression",
        )


def no_product(values: Sequence[Any]) -> None:
    """Raise where two factors of a product are both affine (the planner keeps one of them)."""
    if all(isinstance(v, Affine) for v in values):
        raise CannotExtract("it multiplies two latents that are both to be integrated out")
