"""The affine form of a linear Gaussian system, as arrays.

Columns are the centred latents δ_s = x_s - m_s of the members s, member after member, followed by
one constant column (in a recurrence, they are x_s itself). A row is

    r_i = Σ_t known_t[i] · ω[slot_t[i]] · v[column_t[i]],    v = (δ, 1),

with known numbers, ω the vector of opaque scalars that a point θ gives (ω₀ = 1), so that
value - mean of a Gaussian site is one row an element. Rows of sites with independent noise have
precision ω[precision[i]]; those with correlated noise come in blocks with a factor of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

from autmarg.gaussian.rowwise import Layout, Omega

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from autmarg.gaussian.chains.recurrence import Recurrence


@dataclass(frozen=True, eq=False)
class Member:
    """A latent site that is integrated out.

    ``blocks`` independent a priori blocks of ``size`` columns: δ = L z block by block, with L a
    ``size`` × ``size`` matrix (a scalar where ``size`` is 1), and x = m + δ. ``random`` is false
    for states that have no noise of their own.

    A singular Gaussian has ``groups`` groups of d elements, x = m + ``basis`` δ with the k columns
    of each group next to each other and ``basis`` [d, k] orthonormal.

    ``flat`` [blocks · size] says which columns have a flat prior instead, z over all real numbers
    with L = 1 and m = 0; None where none has. ``masked`` [blocks · size] says which have a prior
    that the program does not count, and are read by no rows; None where all are counted.
    """

    name: str
    blocks: int
    size: int
    offset: int
    basis: Float[np.ndarray, "d k"] | None = None
    random: bool = True
    flat: Bool[np.ndarray, "blocks*size"] | None = None
    masked: Bool[np.ndarray, "blocks*size"] | None = None

    @property
    def columns(self) -> Int[np.ndarray, "blocks size"]:
        """[blocks, size] column numbers."""
        return self.offset + np.arange(self.blocks * self.size).reshape(self.blocks, self.size)

    @property
    def counted(self) -> Int[np.ndarray, "some"]:
        """Numbers of the blocks whose prior the program counts; of flat ones, L is one."""
        if self.masked is None:
            return np.arange(self.blocks)
        return np.flatnonzero(~self.masked.reshape(self.blocks, self.size)[:, 0])

    @property
    def proper(self) -> Int[np.ndarray, "some"]:
        """Numbers of the blocks whose prior the program counts and that is not flat."""
        if self.flat is None:
            return self.counted
        flat = self.flat.reshape(self.blocks, self.size)[:, 0]
        return self.counted[~flat[self.counted]]

    @property
    def groups(self) -> int:
        """Number of groups of elements that share one ``basis``."""
        k = 1 if self.basis is None else self.basis.shape[1]
        return self.blocks * self.size // k

    @property
    def elements(self) -> int:
        """Number of elements of x."""
        return self.groups * (1 if self.basis is None else len(self.basis))

    def of_columns(self) -> tuple[Int[np.ndarray, "elements k"], Float[np.ndarray, "#elements k"]]:
        """Columns and known coefficients [elements, k] of x - m."""
        if self.basis is None:
            return self.columns.reshape(-1, 1), np.ones((1, 1))
        d, k = self.basis.shape
        columns = np.repeat(self.columns.reshape(self.groups, k), d, axis=0)
        return columns, np.tile(self.basis, (self.groups, 1))

    def spread(self, delta: Float[Array, "blocks*size"]) -> Float[Array, "elements"]:
        """x - m from its columns δ, both flattened."""
        if self.basis is None:
            return delta
        basis = jnp.asarray(self.basis, delta.dtype)
        return jnp.dot(delta.reshape(self.groups, -1), basis.T, precision="highest").reshape(-1)

    def project(self, deviation: Float[Array, "elements"]) -> Float[Array, "blocks*size"]:
        """δ from x - m, both flattened."""
        if self.basis is None:
            return deviation
        basis = jnp.asarray(self.basis, deviation.dtype)
        return jnp.dot(deviation.reshape(self.groups, -1), basis, precision="highest").reshape(-1)


@dataclass(frozen=True, eq=False)
class RowTerm:
    """Σ_k known[i, k] · ω[slot[i, k]] · v[column[i, k]]; axis 0 is 1 where all rows agree."""

    column: Int[np.ndarray, "#n #K"]
    known: Float[np.ndarray, "#n #K"]
    slot: Int[np.ndarray, "#n #K"]

    @property
    def width(self) -> int:
        """K, the number of summands."""
        return max(a.shape[1] for a in (self.column, self.known, self.slot))

    def at(self, rows: slice) -> RowTerm:
        """The term of some of the rows."""
        return RowTerm(
            *(a if len(a) == 1 else a[rows] for a in (self.column, self.known, self.slot))
        )

    def full(
        self, n: int
    ) -> tuple[Int[np.ndarray, "n K"], Float[np.ndarray, "n K"], Int[np.ndarray, "n K"]]:
        """Column, known and slot broadcast to [n, K]."""
        shape = (n, self.width)
        column, known, slot = (
            np.broadcast_to(a, shape) for a in (self.column, self.known, self.slot)
        )
        return column, known, slot


class Coefficients(NamedTuple):
    """Those of rows that are not zero: ``known`` · ω[slot] v[column] is a summand of ``row``."""

    row: Int[np.ndarray, "C"]
    column: Int[np.ndarray, "C"]
    known: Float[np.ndarray, "C"]
    slot: Int[np.ndarray, "C"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one site: ``n`` of them, a sum of terms each.

    ``precision`` [n|1] is the slot of each row's noise precision; None for a member's mean, and
    where noise is correlated: in ``block`` > 1 consecutive rows at a time, by a factor of its own.
    ``counted`` says whether the rows are data, with a normalising constant.
    """

    name: str
    n: int
    terms: tuple[RowTerm, ...]
    precision: Int[np.ndarray, "#n"] | None = None
    counted: bool = True
    block: int = 1

    @property
    def coefficients(self) -> Coefficients:
        """All that are not zero, term by term."""
        none = np.zeros(0, np.int64)
        parts = [(none, none, np.zeros(0), none)]
        for term in self.terms:
            column, known, slot = term.full(self.n)
            row, k = np.nonzero(known)
            parts.append((row, column[row, k], known[row, k], slot[row, k]))
        return Coefficients(*map(np.concatenate, zip(*parts, strict=True)))

    def chunks(self, size: int) -> Iterator[Rows]:
        """The rows, ``size`` at a time."""
        for start in range(0, self.n, size):
            rows, precision = slice(start, min(start + size, self.n)), self.precision
            if precision is not None and len(precision) > 1:
                precision = precision[rows]
            terms = tuple(term.at(rows) for term in self.terms)
            yield replace(self, n=rows.stop - start, terms=terms, precision=precision)

    def picked(self, rows: Int[np.ndarray, "some"]) -> Rows:
        """Some of the rows, by number; all of them are the same object."""
        if len(rows) == self.n:
            return self
        precision = self.precision
        if precision is not None and len(precision) > 1:
            precision = precision[rows]
        terms = tuple(
            RowTerm(*(a if len(a) == 1 else a[rows] for a in (t.column, t.known, t.slot)))
            for t in self.terms
        )
        return replace(self, n=len(rows), terms=terms, precision=precision)

    def evaluate(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, "n"]:
        """[n] values of the rows at ω and v = (δ, 1)."""
        total = jnp.zeros(self.n, omega.dtype)
        for term in self.terms:
            known = jnp.asarray(term.known, omega.dtype)
            total = total + (known * omega[term.slot] * v[term.column]).sum(axis=1)
        return total

    def squared(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, "n"]:
        """[n] sums of squares of the rows' summands at ω and v, which say how rows round."""
        total = jnp.zeros(self.n, omega.dtype)
        for term in self.terms:
            known = jnp.asarray(term.known, omega.dtype)
            total = total + jnp.square(known * omega[term.slot] * v[term.column]).sum(axis=1)
        return total


@dataclass(frozen=True, eq=False)
class AffineForm:
    """A linear Gaussian system.

    Attributes:
        members: the sites integrated out, in column order.
        means: one :class:`Rows` a member: its mean m_s in terms of other members' δ.
        rows: value - mean of every child with noise.
        slots: length of ω.
        recurrences: chains whose columns are the values x themselves rather than δ, their means
            reading each other.
        bases: the first slot of each opaque array in ω.
        sharding: how the data's rows lie on several devices (of an array whose first axis is that
            of the devices), or None.
    """

    members: tuple[Member, ...]
    means: tuple[Rows, ...]
    rows: tuple[Rows, ...]
    slots: int
    recurrences: tuple[Recurrence, ...] = ()
    bases: tuple[int, ...] = ()
    sharding: NamedSharding | None = None

    @cached_property
    def layout(self) -> Layout | None:
        """Which weights are spread over several devices; None for none."""
        counted = (r.precision for r in self.independent if r.counted and r.precision is not None)
        return Layout.plan(self.sharding, self.slots, self.bases, tuple(counted))

    @property
    def columns(self) -> int:
        """Number of columns, without the constant one."""
        return sum(m.blocks * m.size for m in self.members)

    @property
    def independent(self) -> tuple[Rows, ...]:
        """Rows whose noise is independent."""
        return tuple(rows for rows in self.rows if rows.block == 1)

    @property
    def correlated(self) -> tuple[Rows, ...]:
        """Rows whose noise is correlated within blocks."""
        return tuple(rows for rows in self.rows if rows.block > 1)

    @cached_property
    def explicit(self) -> Bool[np.ndarray, "columns"]:
        """[columns] whether a column is δ = x - m, with no recurrence."""
        explicit = np.ones(self.columns, bool)
        for each in self.recurrences:
            explicit[each.columns[each.columns >= 0]] = False
        return explicit

    @cached_property
    def random(self) -> Bool[np.ndarray, "columns"]:
        """[columns] whether a column has noise of its own."""
        flags = [np.full(m.blocks * m.size, m.random) for m in self.members]
        return np.concatenate([np.zeros(0, bool), *flags])

    @cached_property
    def flat(self) -> Bool[np.ndarray, "columns"]:
        """[columns] whether a column has a flat prior."""
        return self._flags([m.flat for m in self.members])

    @cached_property
    def counted(self) -> Bool[np.ndarray, "columns"]:
        """[columns] whether the members' density counts a column: it has noise of its own, and no
        mask is over it."""
        return self.random & ~self._flags([m.masked for m in self.members])

    def _flags(self, given: Sequence[np.ndarray | None]) -> np.ndarray:
        """[columns] what is said of each member's columns; false where nothing is."""
        none = (np.zeros(m.blocks * m.size, bool) for m in self.members)
        flags = [zero if own is None else own for own, zero in zip(given, none, strict=True)]
        return np.concatenate([np.zeros(0, bool), *flags])

    def with_elements(self) -> AffineForm:
        """The form with one more row for each element x_i of a member, r_i = x_i - a_i.

        Its precision ε_i and its centre -a_i are new slots, first all ε, then all -a. Since
        ∂ log p / ∂ε_i = -½ E[(x_i - a_i)² | y, θ] at ε = 0, one gradient gives all second moments.
        """
        total, elements = self.columns, sum(m.elements for m in self.members)
        extra, start = [], self.slots
        for member, mean in zip(self.members, self.means, strict=True):
            zero = np.zeros((1, 1), np.int64)
            own = RowTerm(*member.of_columns(), zero)
            precision = start + np.arange(member.elements)
            centre = RowTerm(np.full((1, 1), total), np.ones((1, 1)), elements + precision[:, None])
            terms = (own, *mean.terms, centre) if self.explicit[member.offset] else (own, centre)
            extra.append(Rows(member.name, mean.n, terms, precision, counted=False))
            start += member.elements
        slots, bases = self.slots + 2 * elements, (*self.bases, self.slots)
        return replace(self, rows=(*self.rows, *extra), slots=slots, bases=bases)


@dataclass(frozen=True, eq=False)
class Point:
    """What a point θ gives a linear Gaussian system.

    Attributes:
        omega: [slots] opaque scalars, ω₀ = 1: an array, or where the form has a layout an
            :class:`~autmarg.gaussian.rowwise.Omega`.
        priors: one array a member: [blocks|1] scales where its size is 1, else [blocks|1, d, d].
        constant: log-density terms that no column enters: log-Jacobians and -log|noise factor|.
        factors: a lower-triangular noise factor [blocks|1, d, d] for each rows of correlated noise.
    """

    omega: Float[Array, "slots"] | Omega
    priors: tuple[Float[Array, "..."], ...]
    constant: Float[Array, ""] | float
    factors: tuple[Float[Array, "#blocks d d"], ...] = ()


class Numbers(TypedDict, total=False):
    """Those of a :class:`Point` in which a function is differentiated, by their names."""

    omega: Float[Array, "slots"] | Omega
    priors: tuple[Float[Array, "..."], ...]
    factors: tuple[Float[Array, "#blocks d d"], ...]
