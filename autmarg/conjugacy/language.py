"""What the text of a rule says, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import sympy

from autmarg.conjugacy.families import Expr, Family


class Aggregate(sympy.Function):
    """A sufficient statistic: one number from one number for each child."""

    nargs = 1


class SumOver(Aggregate):
    """``sum(f)``: the sum over the children; over none, 0."""

    is_real = True


class Largest(Aggregate):
    """``max(f)``: the largest over the children; over none, -∞."""


class Smallest(Aggregate):
    """``min(f)``: the smallest over the children; over none, ∞."""


# What two sets of children have together, and what no children have.
TOGETHER = {
    SumOver: (lambda s, t: s + t, sympy.Integer(0)),
    Largest: (sympy.Max, -sympy.oo),
    Smallest: (sympy.Min, sympy.oo),
}


@dataclass(frozen=True)
class Statement:
    """``variable ~ family(arguments)``."""

    variable: Expr
    family: Family
    arguments: tuple[Expr, ...]

    @property
    def log_density(self) -> Expr:
        """Of the variable."""
        return self.family.log_density(self.variable, self.arguments)


@dataclass(frozen=True)
class Rule:
    """A conjugacy.

    Attributes:
        name, text: as written.
        prior: x ~ family(parameters), plain symbols.
        child: y ~ family(expressions in x and in what else the child has).
        others: what else the child has, with what each may be.
        updates: the parameters of x given its children, in the order of the prior's, as functions
            of the parameters and of aggregates over the children.
    """

    name: str
    text: str = field(repr=False)
    prior: Statement
    child: Statement
    others: tuple[tuple[Expr, str], ...]
    updates: tuple[Expr, ...]

    @property
    def title(self) -> str:
        """For plans: the names of the families."""
        return f"{self.prior.family.name}-{self.child.family.name}"

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """The sufficient statistics, each once."""
        return tuple(sorted({a for u in self.updates for a in u.atoms(Aggregate)}, key=str))

    def __str__(self) -> str:
        return self.text
