"""c · xᵖ · (1 - x)^q of one latent x, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.errors import Place
from autmarg.ir.tape import Equation


class NoMatch(Exception):
    """Why a rule does not apply, in words; ``equation`` or ``place`` is where, if that is known.

    ``near`` says whether the user is told of the rule also where the child is a Gaussian: the rule
    has the right power of x, and something else is in the way.
    """

    def __init__(
        self,
        reason: str,
        equation: Equation | None = None,
        place: Place | None = None,
        near: bool = False,
    ) -> None:
        super().__init__(reason)
        self.near = near
        self.equation = equation
        self.place = (equation.place if equation is not None else None) or place


@dataclass(frozen=True, eq=False)
class Monomial:
    """c · xᵖ · (1 - x)^q, or with ``log`` its logarithm, where ``coefficient`` is log c.

    Attributes:
        coefficient: known or opaque, of the shape of ``index``, or a known number.
        index: which element of x.
        p, q: the powers.
    """

    coefficient: Any
    index: np.ndarray
    p: Fraction
    q: Fraction = Fraction(0)
    log: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.index.shape

    @property
    def powers(self) -> tuple[Fraction, Fraction]:
        """p and q."""
        return self.p, self.q

    def is_exactly(self, coefficient: float, p: int, q: int) -> bool:
        """Whether all its elements have this (known) coefficient and these powers."""
        return self.powers == (p, q) and is_number(self.coefficient, coefficient)

    def whole(self) -> Any:
        """The coefficient as an array."""
        if isinstance(self.coefficient, np.ndarray):
            return np.broadcast_to(self.coefficient, self.shape)
        return jnp.broadcast_to(self.coefficient, self.shape)


def is_number(value: Any, number: float) -> bool:
    """Whether a value is known, and this number everywhere."""
    return isinstance(value, np.ndarray) and bool((value == number).all())


def the_number(value: Any) -> Fraction | None:
    """The one number that a known array holds."""
    if isinstance(value, np.ndarray) and value.size and (value == value.flat[0]).all():
        number = float(value.flat[0])
        return Fraction(number) if np.isfinite(number) else None
    return None
