"""How its children update the prior of one latent: what marginal and posterior are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autmarg.conjugacy.families import Family
from autmarg.conjugacy.language import Rule
from autmarg.conjugacy.shared import Shared
from autmarg.ir.tape import Tape


@dataclass(frozen=True, eq=False)
class ChildStatistics:
    """What one child site says of x: tape numbers, evaluated at the kept latents.

    Attributes:
        rule: by which it updates the prior.
        aggregates: of the rule, [R] (or [R, K] for vectors), over the rows of each element of x.
        own: Σ H over all rows, a scalar; where the rule is evaluated at one x, what else there is
            that does not depend on x, and the rows' y and what else they have, [n] or [n, K].
        rows: the element of x that each of those rows reads.
    """

    rule: Rule
    aggregates: tuple[int, ...]
    own: tuple[int, ...]
    rows: np.ndarray

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.aggregates, *self.own)


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """What each row of one child site says of x; the numbers are of a tape.

    Attributes:
        site: its name.
        rule: by which it updates the prior.
        terms: of the rule's aggregates, [n] (or [n, K]).
        own: H of each row, [n]; where the rule is evaluated at one x, what else there is in H,
            and the rows' y and what else they have.
        rows: the element of x that each reads.
        order: places of the rows among all rows of the site, of shape ``shape``.
    """

    site: str
    rule: Rule
    terms: tuple[int, ...]
    own: tuple[int, ...]
    rows: np.ndarray
    order: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ConjugateUpdate:
    """Of one latent x, all elements of which have children of their own (or none).

    Attributes:
        member: name of x; ``shape`` is its.
        family: of its prior, with ``parameters``, [R] each (or [R, K]).
        children: one for each child site. Each updates the posterior that those before it left.
        tape: on which the numbers are.
        each: makes the statistics of single rows, and the tape that they are on.
        shared: Gaussian marginals that share x, which update it after its children.
    """

    member: str
    shape: tuple[int, ...]
    family: Family
    parameters: tuple[int, ...]
    children: tuple[ChildStatistics, ...]
    tape: Tape
    each: Callable[[], tuple[Tape, tuple[RowStatistics, ...]]]
    shared: tuple[Shared, ...] = ()

    @property
    def numbers(self) -> list[int]:
        """All of them: parameters, then each child's."""
        return [*self.parameters, *(v for child in self.children for v in child.numbers)]
