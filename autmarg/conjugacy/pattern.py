"""What an argument of a rule's child looks for in a program."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, NoReturn

import numpy as np
import sympy

from autmarg.conjugacy.families import Expr
from autmarg.conjugacy.language import Rule
from autmarg.conjugacy.monomial import Monomial, NoMatch
from autmarg.errors import ModelError


@dataclass(frozen=True)
class ArgumentPattern:
    """number · otherʳ · xᵖ · (1 - x)^q.

    Attributes:
        text: as the rule has it.
        number: a constant.
        other: what else is there, or None; ``r`` is its power.
        p, q: powers of x and 1 - x, both zero where x is not there.
    """

    text: str
    number: float
    other: Expr | None
    r: Fraction
    p: Fraction
    q: Fraction

    @property
    def of_x(self) -> bool:
        """Whether x is in it."""
        return bool(self.p or self.q)

    def match(self, value: Any) -> dict[Expr, Any]:
        """What ``other`` is, if a value fits.

        Raises:
            NoMatch: it does not.
        """
        if isinstance(value, Monomial):
            if not self.of_x:
                raise NoMatch(f"reads x, but the rule needs {self.text}, without x")
            if value.log or value.powers != (self.p, self.q):
                raise NoMatch(f"is {shown(value)}, but the rule needs {self.text}")
            value = value.whole()
        elif self.of_x:
            raise NoMatch(f"does not read x, but the rule needs {self.text}")
        if self.other is not None:
            scaled = value / self.number if self.number != 1 else value
            return {self.other: scaled if self.r == 1 else scaled ** float(1 / self.r)}
        if not (isinstance(value, np.ndarray) and (value == self.number).all()):
            raise NoMatch(f"has another factor than the rule's {self.text}")
        return {}


def shown(value: Monomial) -> str:
    """For refusals, without its coefficient."""
    powers = [(n, p) for n, p in (("x", value.p), ("(1 - x)", value.q)) if p]
    text = " ".join(n if p == 1 else f"{n}**{p}" for n, p in powers) or "a constant"
    return f"log({text})" if value.log else text


@cache
def patterns(rule: Rule) -> tuple[ArgumentPattern, ...]:
    """One for each argument of the rule's child.

    Raises:
        ModelError: an argument is not such a product.
    """
    return tuple(_pattern(rule, argument) for argument in rule.child.arguments)


def _pattern(rule: Rule, argument: Expr) -> ArgumentPattern:
    x = rule.prior.variable
    factor, power = (argument, sympy.Integer(1))
    if x in argument.free_symbols:
        factor, power = argument.as_independent(x, as_Add=False)
    number, other = (factor, sympy.Integer(1)) if factor.is_number else factor.as_coeff_Mul()
    powers: dict[Expr, Expr] = {} if power == 1 else dict(power.as_powers_dict())
    base, r = other.as_base_exp()
    fits = set(powers) <= {x, 1 - x} and all(e.is_Rational for e in powers.values())
    fits = fits and (other == 1 or (isinstance(base, sympy.Symbol) and r.is_Rational))
    if not fits:
        _refuse(rule, argument)
    p, q = (_fraction(powers.get(b, sympy.Integer(0))) for b in (x, 1 - x))
    return ArgumentPattern(
        str(argument), float(number), None if other == 1 else base, _fraction(r), p, q
    )


def _fraction(number: Expr) -> Fraction:
    return Fraction(int(number.p), int(number.q))


def _refuse(rule: Rule, argument: Expr) -> NoReturn:
    x = rule.prior.variable
    raise ModelError(
        f"rule '{rule.name}' cannot be looked for in programs: found {argument} among the child's "
        f"arguments, expected a product of a number, one other name, and powers of {x} and 1 - {x}"
    )
