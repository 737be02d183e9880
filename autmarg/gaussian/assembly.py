"""How a point becomes the quadratic form: planned once, evaluated at each step.

Entries of G between two members lie side by side, component-major, in a plane [d, d', E] over the E
pairs of blocks that meet. With S the cross-products there, L and L' the factors of two priors,

    G = I + Lᵀ (Σ_w ω_w S_w) L',

and where all blocks share their factors and S_w is known, that is one product of a known matrix
[W d d', E] with the Kronecker products ω_w (L ⊗ L') of the W weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian import small
from autmarg.gaussian.affine import AffineForm, Member, Point
from autmarg.gaussian.correlated import Correlated
from autmarg.gaussian.pieces import gather_pieces
from autmarg.gaussian.quadratic import Pattern, QuadraticForm
from autmarg.gaussian.rowwise import Layout, Share
from autmarg.gaussian.statistics import Statistics

_KRON = 16  # products of components up to which both sides of a plane are scaled at once
_FULL = 0.9  # share of the pairs of blocks that meet from which a plane holds all of them
_STRATA = 8  # of noise, up to which each has an array of its own


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
    left_block: np.ndarray
    right_block: np.ndarray
    shape: tuple[int, int, int]
    known: dict[int, np.ndarray]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __call__(self, omega: Any, other: Any, left: Any, right: Any) -> Any:
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

    def _at_once(self, omega: Any, other: Any, left: Any, right: Any) -> Any:
        """One product; its derivative is another one, and needs none with respect to S."""
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


@dataclass(frozen=True, eq=False)
class _Sums:
    """Products stat · ω[w] ω[p] ω[q] added up into ``size`` places at each step."""

    stat: np.ndarray
    slots: tuple[np.ndarray, ...]
    target: np.ndarray
    size: int

    def __call__(self, omega: Any) -> Any:
        product = jnp.asarray(self.stat, omega.dtype)
        for slot in self.slots:
            product = product if (slot == 0).all() else product * small.take(omega, slot)
        return jax.ops.segment_sum(
            product, self.target, num_segments=self.size, indices_are_sorted=True
        )


@dataclass(frozen=True, eq=False)
class _SpreadSums:
    """The same with weights that are spread over devices; all but ``share`` are [devices, L].

    ``slots`` are those of ω[p] and ω[q], or None where all are one.
    """

    share: Share
    stat: np.ndarray
    slots: tuple[np.ndarray | None, ...]
    target: np.ndarray
    size: int

    @classmethod
    def of(cls, share: Share, sums: _Sums) -> _SpreadSums:
        """The share's part of some sums."""
        slots = (share.known(slot) for slot in sums.slots[1:])
        kept = tuple(slot if slot.any() else None for slot in slots)
        target = share.known(sums.target, sums.size - 1)
        return cls(share, share.known(sums.stat, 0.0), kept, target, sums.size)

    def __call__(self, omega: Any) -> Any:
        product = self.share.spread(self.stat, omega.dtype) * self.share.weights(omega)
        for slot in self.slots:
            if slot is not None:
                product = product * omega[slot]
        return self.share.add(product, self.target, self.size)


def _spread(sums: _Sums, layout: Layout | None) -> tuple[_Sums | _SpreadSums, ...]:
    """Sums in parts, those whose weights are spread apart; none of no terms."""
    if layout is None:
        return (sums,) if len(sums.stat) else ()
    shares, rest = layout.split(sums.slots[0], sums.slots[1:])
    slots = tuple(slot[rest] for slot in sums.slots)
    left = _Sums(sums.stat[rest], slots, sums.target[rest], sums.size)
    return *_spread(left, None), *(_SpreadSums.of(share, sums) for share in shares)


def _sums(
    stats: Statistics, used: np.ndarray, stat: np.ndarray, target: np.ndarray, size: int
) -> tuple[dict[int, np.ndarray], _Sums]:
    """Sums [size] whose only opaque factor is one weight, by its slot; and the others."""
    order = np.argsort(target, kind="stable")
    used, stat, target = used[order], stat[order], target[order]
    weight, p, q = stats.weight[used], stats.first_slot[used], stats.second_slot[used]
    bare, known = (p == 0) & (q == 0), {}
    strata = np.unique(weight[bare])
    if len(strata) > _STRATA:
        bare = np.zeros(len(used), bool)
    else:
        for slot in strata:
            here = bare & (weight == slot)
            known[int(slot)] = np.bincount(target[here], weights=stat[here], minlength=size)
    rest = ~bare
    return known, _Sums(stat[rest], (weight[rest], p[rest], q[rest]), target[rest], size)


class Assembly:
    """How a point becomes G, h and the constant: planned once, evaluated per step."""

    def __init__(self, form: AffineForm, stats: Statistics) -> None:
        self.form, self.stats = form, stats
        self.units = _units(form.members)
        total = form.columns
        both = np.flatnonzero(stats.second < total)
        self.correlated = tuple(Correlated.plan(rows) for rows in form.correlated)
        firsts = [stats.first[both], *(c.first[c.second < total] for c in self.correlated)]
        seconds = [stats.second[both], *(c.second[c.second < total] for c in self.correlated)]
        layout, source, target = self._layout(np.concatenate(firsts), np.concatenate(seconds))
        self.nnz = sum(int(np.prod(shape)) for *_, shape in layout)
        own = source < len(both)
        quadratic = both[source[own]]
        stat = stats.total[quadratic] / np.where(
            stats.first[quadratic] == stats.second[quadratic], 1.0, 2.0
        )
        known, others = _sums(stats, quadratic, stat, target[own], self.nnz)
        self._others = _spread(others, form.layout)
        self._dense = (source[~own] - len(both), target[~own])
        self.planes = _planes(layout, known)
        self.pattern = self._pattern()
        self._diagonal = self.pattern.lookup(self.pattern.columns, self.pattern.columns)
        proper = form.explicit & ~form.flat
        own = proper[self.pattern.first] & (self.pattern.first == self.pattern.second)
        ends = np.cumsum([plane.size for plane in self.planes], dtype=int)
        self._identity = np.split(own.astype(np.float64), ends)[:-1]

    @property
    def rows(self) -> int:
        """Rows of data less columns of flat priors: the dimensions of which p(y | θ) is a density,

        ∫ exp(-½ zᵀGz) dz = (2π)^½ |G|^-½ for each of these, and no (2π)^-½ of a prior."""
        return self.stats.n - int(self.form.flat.sum())

    @property
    def products(self) -> int:
        """How many products a step adds up, since their opaque factors are not only few weights."""
        return sum(each.stat.size for each in self._others)

    def _where(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit, block and component of each column."""
        offsets = np.array([u.offset for u in self.units])
        unit = np.searchsorted(offsets, columns, side="right") - 1
        size = np.array([u.size for u in self.units])[unit] if len(self.units) else columns
        local = columns - offsets[unit]
        return unit, local // size, local % size

    def _layout(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[list[tuple[Any, ...]], np.ndarray, np.ndarray]:
        """Planes, and for each entry of G the product (by number) that adds to it, and its place.

        ``first`` ≤ ``second`` are the two columns of each product.
        """
        s, i, k = self._where(first)
        t, j, m = self._where(second)
        planes: list[tuple[Any, ...]] = []
        used, targets, offset = [], [], 0
        for a, left in enumerate(self.units):
            for b, right in enumerate(self.units[a:], start=a):
                here = np.flatnonzero((s == a) & (t == b))
                if not len(here) and a != b:
                    continue
                code = i[here] * right.blocks + j[here]
                own = np.arange(left.blocks) * (left.blocks + 1) if a == b else code[:0]
                edges = np.unique(np.concatenate([code, own]))
                if a != b and len(edges) >= _FULL * left.blocks * right.blocks:
                    edges = np.arange(left.blocks * right.blocks)  # read as a matrix, not gathered
                shape = (left.size, right.size, len(edges))
                at = np.searchsorted(edges, code)
                place = lambda x, y, at=at, shape=shape, offset=offset: (  # noqa: E731
                    offset + (x * shape[1] + y) * shape[2] + at
                )
                used.append(here)
                targets.append(place(k[here], m[here]))
                mirror = np.flatnonzero((a == b) & (i[here] == j[here]) & (k[here] != m[here]))
                used.append(here[mirror])
                targets.append(place(m[here], k[here])[mirror])
                planes.append((a, b, edges // right.blocks, edges % right.blocks, offset, shape))
                offset += int(np.prod(shape))
        none = [np.zeros(0, np.int64)]
        return planes, np.concatenate(used or none), np.concatenate(targets or none)

    def _pattern(self) -> Pattern:
        first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for plane in self.planes:
            left, right = self.units[plane.left], self.units[plane.right]
            rows = left.columns[plane.left_block].T[:, None, :]
            columns = right.columns[plane.right_block].T[None, :, :]
            first.append(np.broadcast_to(rows, plane.shape).reshape(-1))
            second.append(np.broadcast_to(columns, plane.shape).reshape(-1))
        return Pattern(np.arange(self.form.columns), np.concatenate(first), np.concatenate(second))

    def __call__(self, point: Point, linear: Any) -> tuple[QuadraticForm, Any]:
        """The quadratic form at a point, and -½(n log 2π - log|W|).

        ``linear`` [columns] is -Aᵀ W c of the rows whose noise is independent.
        """
        omega = point.omega
        parts = [sums(omega) for sums in self._others]
        others = sum(parts[1:], parts[0]) if parts else None
        if self.correlated:
            others, linear = self._whitened(point, others, linear)
        dynamics = tuple(each.dynamics(omega, point.priors) for each in self.form.recurrences)
        priors = self._priors(point)
        none = jnp.zeros(0, omega.dtype)
        sums = [None for _ in self.planes]
        if others is not None:
            sums = jax.lax.split(others, [plane.size for plane in self.planes])
        planes = zip(self.planes, sums, strict=True)
        values = [p(omega, s, priors[p.left], priors[p.right]) for p, s in planes]
        pairs = zip(values, self._identity, strict=True)
        values = tuple(v + jnp.asarray(one, v.dtype) if one.any() else v for v, one in pairs)
        h = [
            _scaled(unit, prior, linear[unit.offset : unit.offset + unit.blocks * unit.size])
            for unit, prior in zip(self.units, priors, strict=True)
        ]
        zero = jnp.zeros((), omega.dtype)
        size = jax.lax.stop_gradient(gather_pieces((none, *values), self._diagonal))
        form = QuadraticForm(values, jnp.concatenate([none, *h]), zero, size, dynamics, point)
        return form, self.constant(omega)

    def constant(self, omega: Any) -> Any:
        """-½(n log 2π - log|W|), n less the number of columns with flat priors."""
        return -0.5 * (self.rows * np.log(2 * np.pi) - self._log_weights(omega))

    def _log_weights(self, omega: Any) -> Any:
        """log|W| of the rows whose noise is independent."""
        strata, count, layout = self.stats.strata, self.stats.count, self.form.layout
        if layout is not None:
            return layout.log_weights(omega, strata, count)
        return jnp.dot(jnp.asarray(count, omega.dtype), jnp.log(omega[strata]))

    def _priors(self, point: Point) -> list[Any]:
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

    def _whitened(self, point: Point, others: Any, linear: Any) -> tuple[Any, Any]:
        """Entries of Aᵀ W A and of -Aᵀ W c with those of correlated rows added."""
        total, inner = self.form.columns, []
        for c, factor in zip(self.correlated, point.factors, strict=True):
            products = c.products(point.omega, factor)
            inner.append(products[c.second < total])
            mixed = (c.second == total) & (c.first < total)
            linear = linear.at[c.first[mixed]].add(-products[mixed])
        source, target = self._dense
        if others is None:
            others = jnp.zeros(self.nnz, point.omega.dtype)
        return others.at[target].add(jnp.concatenate(inner)[source]), linear

    def squares(self, point: Point, v: Any) -> Any:
        """Σ r² of the whitened correlated rows at v = (δ, 1)."""
        pairs = zip(self.correlated, point.factors, strict=True)
        return sum(c.squares(point.omega, factor, v) for c, factor in pairs)


def _planes(layout: list[tuple[Any, ...]], known: dict[int, np.ndarray]) -> tuple[_Plane, ...]:
    """Planes with their parts of the known sums, where these are not all zero."""
    planes = []
    for a, b, left, right, offset, shape in layout:
        parts = {slot: sums[offset : offset + int(np.prod(shape))] for slot, sums in known.items()}
        own = {slot: p.reshape(-1, shape[2]) for slot, p in parts.items() if p.any()}
        planes.append(_Plane(a, b, left, right, shape, own))
    return tuple(planes)


def _scaled(unit: _Unit, prior: Any, part: Any) -> Any:
    """Lᵀ times the part of a unit's columns [blocks · size]."""
    blocks = part.reshape(unit.blocks, unit.size).T[:, None]
    return scale_left(blocks, prior, np.arange(unit.blocks))[:, 0].T.reshape(-1)


def scale_left(block: Any, prior: Any, index: np.ndarray) -> Any:
    """Lᵀ times ``block`` [d, d', E] with the L of each edge's left block."""
    if prior.ndim == 1:
        return block * (prior if prior.shape[0] == 1 else small.take(prior, index))
    if prior.shape[0] == 1:
        return jnp.einsum("ka,kbe->abe", prior[0], block, precision="highest")
    return small.multiply_transposed(jnp.moveaxis(prior[index], 0, -1), block)


def _is_shared(prior: Any) -> bool:
    """Whether the blocks' factors differ by no more than a scalar."""
    return prior.ndim == 1 or prior.shape[0] == 1


def _shared(prior: Any, d: int) -> Any:
    """The factor [d, d] that all blocks share; one where each has a scalar of its own."""
    if prior.ndim > 1:
        return prior[0]
    return (prior[0] if prior.shape[0] == 1 else 1.0) * jnp.eye(d, dtype=prior.dtype)
