"""The affine form of a linear Gaussian system, as arrays.

Columns are the centred latents δ_s = x_s - m_s of the members s, member after member, followed by
one constant column. A row is

    r_i = Σ_t known_t[i] · ω[slot_t[i]] · v[column_t[i]],    v = (δ, 1),

with known numbers, ω the vector of opaque scalars that a point θ gives (ω₀ = 1), so that
value - mean of a Gaussian site is one row an element. Rows of sites with noise have precision
ω[precision[i]].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, eq=False)
class Member:
    """A latent site that is integrated out.

    ``blocks`` independent a priori blocks of ``size`` elements: x = m + L z block by block, with
    L a ``size`` × ``size`` matrix (a scalar where ``size`` is 1).
    """

    name: str
    blocks: int
    size: int
    offset: int

    @property
    def columns(self) -> np.ndarray:
        """[blocks, size] column numbers."""
        return self.offset + np.arange(self.blocks * self.size).reshape(self.blocks, self.size)


@dataclass(frozen=True, eq=False)
class RowTerm:
    """Σ_k known[i, k] · ω[slot[i, k]] · v[column[i, k]]; axis 0 is 1 where all rows agree."""

    column: np.ndarray
    known: np.ndarray
    slot: np.ndarray

    @property
    def width(self) -> int:
        """K, the number of summands."""
        return max(a.shape[1] for a in (self.column, self.known, self.slot))

    def full(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Column, known and slot broadcast to [n, K]."""
        shape = (n, self.width)
        column, known, slot = (
            np.broadcast_to(a, shape) for a in (self.column, self.known, self.slot)
        )
        return column, known, slot


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one site: ``n`` of them, a sum of terms each.

    ``precision`` [n|1] is the slot of each row's noise precision; None for a member's mean.
    ``counted`` says whether the rows are data, with a normalising constant.
    """

    name: str
    n: int
    terms: tuple[RowTerm, ...]
    precision: np.ndarray | None = None
    counted: bool = True

    def evaluate(self, omega: Any, v: Any) -> Any:
        """[n] values of the rows at ω and v = (δ, 1)."""
        total = jnp.zeros(self.n, omega.dtype)
        for term in self.terms:
            known = jnp.asarray(term.known, omega.dtype)
            total = total + (known * omega[term.slot] * v[term.column]).sum(axis=1)
        return total


@dataclass(frozen=True, eq=False)
class AffineForm:
    """A linear Gaussian system.

    Attributes:
        members: the sites integrated out, in column order.
        means: one :class:`Rows` a member: its mean m_s in terms of other members' δ.
        rows: value - mean of every child with noise.
        slots: length of ω.
    """

    members: tuple[Member, ...]
    means: tuple[Rows, ...]
    rows: tuple[Rows, ...]
    slots: int

    @property
    def columns(self) -> int:
        """Number of columns, without the constant one."""
        return sum(m.blocks * m.size for m in self.members)

    def with_elements(self) -> AffineForm:
        """The form with one more row for each element x_i of a member, r_i = x_i - a_i.

        Its precision ε_i and its centre -a_i are new slots, first all ε, then all -a. Since
        ∂ log p / ∂ε_i = -½ E[(x_i - a_i)² | y, θ] at ε = 0, one gradient gives all second moments.
        """
        total = self.columns
        extra = []
        for member, mean in zip(self.members, self.means, strict=True):
            columns = member.columns.reshape(-1, 1)
            one, zero = np.ones((1, 1)), np.zeros((1, 1), np.int64)
            own = RowTerm(columns, one, zero)
            centre = RowTerm(np.full((1, 1), total), one, self.slots + total + columns)
            precision = self.slots + columns[:, 0]
            terms = (own, *mean.terms, centre)
            extra.append(Rows(member.name, mean.n, terms, precision, counted=False))
        return replace(self, rows=(*self.rows, *extra), slots=self.slots + 2 * total)


@dataclass(frozen=True, eq=False)
class Point:
    """What a point θ gives a linear Gaussian system.

    Attributes:
        omega: [slots] opaque scalars, ω₀ = 1.
        priors: one array a member: [blocks|1] scales where its size is 1, else [blocks|1, d, d].
        constant: log-density terms that no column enters: log-Jacobians and -log|noise factor|.
    """

    omega: Any
    priors: tuple[Any, ...]
    constant: Any
