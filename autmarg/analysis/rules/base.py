"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autmarg.ir.tape import Equation


class CannotExtract(Exception):
    """An affine expression that a rule cannot write out; the message says why, in words."""


@dataclass(frozen=True)
class Rule:
    """How one group of primitives treats affine operands.

    Attributes:
        primitives: names of the primitives.
        linear: ``linear(equation, known)`` gives the operand positions in which the result is
            jointly linear (affine operands allowed in all of them at once); ``known[i]`` says
            whether operand i is known. An empty answer means "nonlinear here".
        extract: ``extract(equation, values) -> value`` with Known, Opaque and Affine operands, at
            least one of which is Affine; for structural rules also for Opaque.
        bilinear: the operands are factors of a product: linear in each given the other.
        lazy: also worth applying to Opaque operands (it only moves entries).
    """

    primitives: tuple[str, ...]
    linear: Callable[[Equation, list[bool]], tuple[int, ...]]
    extract: Callable[[Equation, list[Any]], Any]
    bilinear: bool = False
    lazy: bool = False


def first(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    """Linear in operand 0."""
    return (0,)


def every(equation: Equation, known: list[bool]) -> tuple[int, ...]:
    """Jointly linear in all operands."""
    return tuple(range(len(equation.inputs)))
