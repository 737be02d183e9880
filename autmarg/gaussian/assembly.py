"""How a point becomes the quadratic form: planned once, evaluated at each step.

Entries of G between two members lie side by side, component-major, in a plane [d, d', E] over the E
pairs of blocks that meet. With S the cross-products there, L and L' the factors of two priors,

    G = I + Lᵀ (Σ_w ω_w S_w) L',

and where all blocks share their factors and S_w is known, that is one product of a known matrix
[W d d', E] with the Kronecker products ω_w (L ⊗ L') of the W weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.affine import AffineForm, Member, Point
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.pieces import gather_pieces
from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.terms import Summed, Term
from autmarg.gaussian.terms.summed import PlacedSums

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_KRON = 16  # products of components up to which both sides of a plane are scaled at once
_FULL = 0.9  # share of the pairs of blocks that meet from which a plane holds all of them


@dataclass(frozen=True, eq=False)
class _Unit:
    """A member, or neighbours of one column each: fixed effects, planned as one.

    ``members`` are their numbers.
    """

    offset: int
    blocks: int
    size: int
    members: tuple[int, ...]

    @property
    def columns(self) -> np.ndarray:
        """[blocks, size]."""
        return self.offset + np.arange(self.blocks * self.size).reshape(self.blocks, self.size)


def _units(members: Sequence[Member]) -> tuple[_Unit, ...]:
    def key(k: int) -> int:
        return -1 if members[k].blocks * members[k].size == 1 else k

    units = []
    for _, group in groupby(range(len(members)), key=key):
        numbers = tuple(group)
        first = members[numbers[0]]
        units.append(_Unit(first.offset, first.blocks * len(numbers), first.size, numbers))
    return tuple(units)


@dataclass(frozen=True, eq=False)
class _Plane:
    """Entries of G between two units: pairs (left_block[e], right_block[e]), ``shape`` [d, d', E].

    ``known`` are cross-products [d d', E] whose only opaque factor is ω[w], by slot w.
    """

    left: int
    right: int
    left_block: Int[np.ndarray, "E"]
    right_block: Int[np.ndarray, "E"]
    shape: tuple[int, int, int]
    known: dict[int, Float[np.ndarray, "dd E"]]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __call__(
        self,
        omega: Float[Array, "slots"] | Omega,
        other: Float[Array, "entries"] | None,
        left: Float[Array, "#blocks *dd"],
        right: Float[Array, "#blocks *dd"],
    ) -> Float[Array, "entries"]:
        """Entries of Lᵀ S L', flat; ``other`` are cross-products, flat, that are not known."""
        d, e, pairs = self.shape
        other = None if other is None else other.reshape(d * e, pairs)
        if _is_shared(left) and _is_shared(right) and d * e <= _KRON:
            return self._at_once(omega, other, left, right).reshape(-1)
        block = jnp.zeros((d * e, pairs), omega.dtype) if other is None else other
        for slot, sums in self.known.items():
            block = block + omega[slot] * jnp.asarray(sums, omega.dtype)
        block = scale_left(block.reshape(self.shape), left, self.left_block)
        block = scale_left(block.swapaxes(0, 1), right, self.right_block)
        return block.swapaxes(0, 1).reshape(-1)

    def _at_once(
        self,
        omega: Float[Array, "slots"] | Omega,
        other: Float[Array, "dd E"] | None,
        left: Float[Array, "#blocks *dd"],
        right: Float[Array, "#blocks *dd"],
    ) -> Float[Array, "dd E"]:
        """The same by one product; its derivative is another, and needs none with respect to S."""
        both = jnp.kron(_shared(left, self.shape[0]), _shared(right, self.shape[1]))
        weights = [omega[slot] * both for slot in self.known]
        sums = [jnp.asarray(sums, omega.dtype) for sums in self.known.values()]
        if other is not None:
            weights, sums = [*weights, both], [*sums, other]
        if not sums:
            return jnp.zeros(self.size, omega.dtype)
        weight, stack = (jnp.concatenate(x) if len(x) > 1 else x[0] for x in (weights, sums))
        block = jnp.dot(weight.T, stack, precision="highest")
        for prior, index in ((left, self.left_block), (right, self.right_block)):
            block = block if prior.shape[0] == 1 else block * prior[index]
        return block


class Assembly:
    """How a point becomes G, h and the constant: planned once, evaluated per step."""

    def __init__(self, form: AffineForm, terms: Sequence[Term]) -> None:
        self.form, self.terms = form, tuple(terms)
        self.units = _units(form.members)
        pairs = [term.pairs() for term in self.terms]
        layout, source, target = self._layout(
            *(np.concatenate(x) for x in zip(*pairs, strict=True))
        )
        self.nnz = sum(plane.size for plane in layout)
        self.placed, start = [], 0
        for term, (first, _) in zip(self.terms, pairs, strict=True):
            own = (source >= start) & (source < start + len(first))
            self.placed.append(term.place(source[own] - start, target[own], self.nnz))
            start += len(first)
        self.planes = _with_known(layout, [placed.known for placed in self.placed])
        self.pattern = self._pattern()
        self._diagonal = self.pattern.lookup(self.pattern.columns, self.pattern.columns)
        proper = form.explicit & ~form.flat
        own = proper[self.pattern.first] & (self.pattern.first == self.pattern.second)
        ends = np.cumsum([plane.size for plane in self.planes], dtype=int)
        self._identity = np.split(own.astype(np.float64), ends)[:-1]

    @cached_property
    def summed(self) -> Summed:
        """The rows that are added up."""
        (summed,) = (term for term in self.terms if isinstance(term, Summed))
        return summed

    @property
    def n(self) -> int:
        """The number of rows that are data."""
        return sum(term.n for term in self.terms)

    @property
    def rounded(self) -> float:
        """As :func:`autmarg.gaussian.residual.rounded` says."""
        return self.summed.residual.rounded

    @property
    def rows(self) -> int:
        """Rows of data less columns of flat priors: the dimensions of which p(y | θ) is a density,

        ∫ exp(-½ zᵀGz) dz = (2π)^½ |G|^-½ for each of these, and no (2π)^-½ of a prior."""
        return self.n - int(self.form.flat.sum())

    @property
    def products(self) -> int:
        """How many products a step adds up, since their opaque factors are not only few weights."""
        placed = (each for each in self.placed if isinstance(each, PlacedSums))
        return sum(each.products for each in placed)

    def _where(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit, block and component of each column."""
        offsets = np.array([u.offset for u in self.units])
        unit = np.searchsorted(offsets, columns, side="right") - 1
        size = np.array([u.size for u in self.units])[unit] if len(self.units) else columns
        local = columns - offsets[unit]
        return unit, local // size, local % size

    def _layout(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[list[_Plane], np.ndarray, np.ndarray]:
        """Planes, and for each entry of G the product (by number) that adds to it, and its place.

        ``first`` ≤ ``second`` are the two columns of each product.
        """
        s, i, k = self._where(first)
        t, j, m = self._where(second)
        planes: list[_Plane] = []
        none = np.zeros(0, np.int64)
        used, targets, offset = [none], [none], 0
        for a, left in enumerate(self.units):
            for b, right in enumerate(self.units[a:], start=a):
                here = np.flatnonzero((s == a) & (t == b))
                if not len(here) and a != b:
                    continue
                code = i[here] * right.blocks + j[here]
                edges = _edges(code, left, right, own=a == b)
                shape = (left.size, right.size, len(edges))
                place = _Places(offset, shape, np.searchsorted(edges, code))
                used.append(here)
                targets.append(place(k[here], m[here]))
                mirror = np.flatnonzero((a == b) & (i[here] == j[here]) & (k[here] != m[here]))
                used.append(here[mirror])
                targets.append(place(m[here], k[here])[mirror])
                planes.append(_Plane(a, b, edges // right.blocks, edges % right.blocks, shape, {}))
                offset += planes[-1].size
        return planes, np.concatenate(used), np.concatenate(targets)

    def _pattern(self) -> Pattern:
        first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for plane in self.planes:
            left, right = self.units[plane.left], self.units[plane.right]
            rows = left.columns[plane.left_block].T[:, None, :]
            columns = right.columns[plane.right_block].T[None, :, :]
            first.append(np.broadcast_to(rows, plane.shape).reshape(-1))
            second.append(np.broadcast_to(columns, plane.shape).reshape(-1))
        return Pattern(np.arange(self.form.columns), np.concatenate(first), np.concatenate(second))

    def __call__(self, point: Point) -> tuple[QuadraticForm, Float[Array, ""]]:
        """The quadratic form at a point, and -½(n log 2π - log|W|)."""
        omega = point.omega
        others, rhs = None, jnp.zeros(self.form.columns, omega.dtype)
        for placed in self.placed:
            entries, own = placed(point)
            rhs = rhs + own
            if entries is not None:
                others = entries if others is None else others + entries
        dynamics = tuple(each.dynamics(omega, point.priors) for each in self.form.recurrences)
        priors = self._priors(point)
        none = jnp.zeros(0, omega.dtype)
        sums: Sequence[Array | None] = [None for _ in self.planes]
        if others is not None:
            sums = jax.lax.split(others, [plane.size for plane in self.planes])
        planes = zip(self.planes, sums, strict=True)
        values = [p(omega, s, priors[p.left], priors[p.right]) for p, s in planes]
        pairs = zip(values, self._identity, strict=True)
        values = tuple(v + jnp.asarray(one, v.dtype) if one.any() else v for v, one in pairs)
        h = [
            _scaled(unit, prior, rhs[unit.offset : unit.offset + unit.blocks * unit.size])
            for unit, prior in zip(self.units, priors, strict=True)
        ]
        zero = jnp.zeros((), omega.dtype)
        size = jax.lax.stop_gradient(gather_pieces((none, *values), self._diagonal))
        form = QuadraticForm(values, jnp.concatenate([none, *h]), zero, size, dynamics, point)
        return form, self.constant(point)

    def constant(self, point: Point) -> Float[Array, ""]:
        """-½(n log 2π - log|W|), n less the number of columns with flat priors."""
        logs = sum(term.log_weight(point) for term in self.terms)
        return -0.5 * (self.rows * np.log(2 * np.pi) - logs)

    def _priors(self, point: Point) -> list[Float[Array, "..."]]:
        """Each unit's prior factors; columns of recurrences are not scaled."""
        one = jnp.ones(1, point.omega.dtype)
        priors = [
            prior if self.form.explicit[m.offset] else one
            for m, prior in zip(self.form.members, point.priors, strict=True)
        ]
        return [
            priors[u.members[0]]
            if len(u.members) == 1
            else jnp.concatenate([priors[k].reshape(-1) for k in u.members])
            for u in self.units
        ]


@dataclass(frozen=True)
class _Places:
    """Places of entries (x, y) of pairs ``at`` of blocks, in a plane that starts at ``offset``."""

    offset: int
    shape: tuple[int, int, int]
    at: np.ndarray

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.offset + (x * self.shape[1] + y) * self.shape[2] + self.at


def _edges(code: np.ndarray, left: _Unit, right: _Unit, own: bool) -> np.ndarray:
    """The pairs of blocks of a plane, numbered row by row; ``own`` says whether it is diagonal."""
    if own:
        return np.unique(np.concatenate([code, np.arange(left.blocks) * (left.blocks + 1)]))
    edges = np.unique(code)
    if len(edges) >= _FULL * left.blocks * right.blocks:
        return np.arange(left.blocks * right.blocks)  # read as a matrix, not gathered
    return edges


def _with_known(
    planes: Sequence[_Plane], known: Sequence[Mapping[int, np.ndarray]]
) -> tuple[_Plane, ...]:
    """Planes with their parts of the terms' known sums, where these are not all zero."""
    sums: dict[int, np.ndarray] = {}
    for each in known:
        for slot, values in each.items():
            sums[slot] = sums[slot] + values if slot in sums else values
    found, start = [], 0
    for plane in planes:
        parts = {slot: values[start : start + plane.size] for slot, values in sums.items()}
        own = {slot: p.reshape(-1, plane.shape[2]) for slot, p in parts.items() if p.any()}
        found.append(replace(plane, known=own))
        start += plane.size
    return tuple(found)


def _scaled(
    unit: _Unit, prior: Float[Array, "#blocks *dd"], part: Float[Array, "blocks*size"]
) -> Float[Array, "blocks*size"]:
    """Lᵀ times the part of a unit's columns [blocks · size]."""
    blocks = part.reshape(unit.blocks, unit.size).T[:, None]
    return scale_left(blocks, prior, np.arange(unit.blocks))[:, 0].T.reshape(-1)


def scale_left(
    block: Float[Array, "d e E"], prior: Float[Array, "#blocks *dd"], index: Int[np.ndarray, "E"]
) -> Float[Array, "d e E"]:
    """Lᵀ times ``block`` [d, d', E] with the L of each edge's left block."""
    if prior.ndim == 1:
        return block * (prior if prior.shape[0] == 1 else small.take(prior, index))
    if prior.shape[0] == 1:
        return jnp.einsum("ka,kbe->abe", prior[0], block, precision="highest")
    return small.multiply_transposed(jnp.moveaxis(prior[index], 0, -1), block)


def _is_shared(prior: Float[Array, "#blocks *dd"]) -> bool:
    """Whether the blocks' factors differ by no more than a scalar."""
    return prior.ndim == 1 or prior.shape[0] == 1


def _shared(prior: Float[Array, "#blocks *dd"], d: int) -> Float[Array, "d d"]:
    """The factor [d, d] that all blocks share; one where each has a scalar of its own."""
    if prior.ndim > 1:
        return prior[0]
    return (prior[0] if prior.shape[0] == 1 else 1.0) * jnp.eye(d, dtype=prior.dtype)
