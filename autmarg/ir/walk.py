"""One walk through equations in order, whatever stands for their values.

Arrays, traced arrays, degrees, affine forms and monomials are all evaluated by it: a domain says
what one equation does to its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from autmarg.ir.tape import Equation

V = TypeVar("V")
Step = Callable[["Equation", list[V]], list[V]]


def walk(equations: Iterable[Equation], values: dict[int, V], step: Step[V]) -> None:
    """Add the outputs of equations to ``values``, but for those that are there already.

    Args:
        equations: each after those that make its inputs.
        values: by number, of all inputs that no equation makes.
        step: (equation, operands) → its outputs.
    """
    for equation in equations:
        if any(v not in values for v in equation.outputs):
            outputs = step(equation, [values[v] for v in equation.inputs])
            values.update(zip(equation.outputs, outputs, strict=True))


def computed(equation: Equation, operands: list[Any]) -> list[Any]:
    """The step on arrays, concrete or traced: the primitive itself."""
    return equation.bind(*operands)


__all__ = ["Step", "V", "computed", "walk"]
