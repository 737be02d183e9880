"""The quadratic form of a linear Gaussian system in scaled coordinates.

With δ = L z, z ~ N(0, I) a priori, and rows r = c - A δ of precision W,

    log p(y, z) = const - ½ (rᵀW r + zᵀz) = const - ½ (cᵀW c - 2 hᵀz + zᵀ G z),
    G = I + Lᵀ Aᵀ W A L,    h = Lᵀ Aᵀ W c,

which stays finite as a prior scale tends to zero (Bates et al. 2015, Fitting Linear Mixed-Effects
Models Using lme4, J. Stat. Softw. 67(1), section 3). G is kept as its non-zero entries, blocks of
pairs of members side by side, component-major.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian import small
from autmarg.gaussian.affine import AffineForm, Member, Point
from autmarg.gaussian.correlated import Correlated
from autmarg.gaussian.recurrence import Dynamics
from autmarg.gaussian.statistics import Statistics


class QuadraticForm(NamedTuple):
    """zᵀGz - 2hᵀz with ``values`` the entries of G on a :class:`Pattern`.

    ``h`` [columns] is over all columns, eliminated ones included; ``log_det`` is what the columns
    eliminated so far contributed to log|G|; ``floor`` [columns] is what no pivot is resolved below
    (:mod:`autmarg.gaussian.cholesky`). Columns of a recurrence are unscaled (its states);
    ``dynamics`` says how its innovations make them.
    """

    values: Any
    h: Any
    log_det: Any
    floor: Any
    dynamics: tuple[Dynamics, ...] = ()


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which entries of G may differ from zero.

    ``first`` and ``second`` are the columns of each entry; an unordered pair may be listed twice
    (the two triangles of a diagonal block), then both entries are equal.
    """

    columns: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def lookup(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Position of each unordered pair (i, j), or -1."""
        order, keys = self._sorted
        low, high = np.minimum(i, j), np.maximum(i, j)
        wanted = low * self._stride + high
        at = np.searchsorted(keys, wanted)
        at = np.minimum(at, max(len(keys) - 1, 0))
        if not len(keys):
            return np.full(np.shape(wanted), -1)
        return np.where(keys[at] == wanted, order[at], -1)

    def table(self, columns: np.ndarray) -> np.ndarray:
        """Position of each pair of ``columns`` [R, R]; in order where that is the whole pattern."""
        i, j = np.broadcast_arrays(columns[:, None], columns[None, :])
        if np.array_equal(self.first, i.reshape(-1)) and np.array_equal(self.second, j.reshape(-1)):
            return np.arange(i.size).reshape(i.shape)
        return self.lookup(i, j)

    @property
    def _stride(self) -> int:
        return int(self.columns.max(initial=0)) + 1

    @property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        cached = self.__dict__.get("_cache")
        if cached is None:
            low = np.minimum(self.first, self.second)
            keys = low * self._stride + np.maximum(self.first, self.second)
            order = np.argsort(keys, kind="stable")
            cached = (order, keys[order])
            self.__dict__["_cache"] = cached
        return cached


@dataclass(frozen=True, eq=False)
class _Plane:
    """Entries of G between two members: ``blocks`` pairs (left[e], right[e]), [d, d', E]."""

    left: int
    right: int
    left_block: np.ndarray
    right_block: np.ndarray
    offset: int
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


_KRON = 16  # products of components up to which both sides of a plane are scaled at once
_STRATA = 8  # of noise, up to which each has an array of its own


@dataclass(frozen=True, eq=False)
class _Sums:
    """Products stat · ω[w] ω[p] ω[q] added up into ``size`` places.

    ``known`` [size] are sums of stats whose only opaque factor is ω[w], by slot w; the others are
    added up at a step.
    """

    known: dict[int, np.ndarray]
    stat: np.ndarray
    slots: tuple[np.ndarray, ...]
    target: np.ndarray
    size: int

    def __call__(self, omega: Any) -> Any:
        total = jnp.zeros(self.size, omega.dtype)
        for slot, sums in self.known.items():
            total = total + omega[slot] * jnp.asarray(sums, omega.dtype)
        if not len(self.stat):
            return total
        product = jnp.asarray(self.stat, omega.dtype)
        for slot in self.slots:
            product = product if (slot == 0).all() else product * small.take(omega, slot)
        return total + jax.ops.segment_sum(
            product, self.target, num_segments=self.size, indices_are_sorted=True
        )


def _sums(stats: Statistics, used: np.ndarray, stat: np.ndarray, target: np.ndarray, size: int):
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
    return _Sums(known, stat[rest], (weight[rest], p[rest], q[rest]), target[rest], size)


class Assembly:
    """How a point becomes G, h and the constant: planned once, evaluated per step."""

    def __init__(self, form: AffineForm, stats: Statistics) -> None:
        self.form, self.stats = form, stats
        total = form.columns
        both = np.flatnonzero(stats.second < total)
        self.correlated = tuple(Correlated.plan(rows) for rows in form.correlated)
        known = len(both)
        firsts = [stats.first[both], *(c.first[c.second < total] for c in self.correlated)]
        seconds = [stats.second[both], *(c.second[c.second < total] for c in self.correlated)]
        self.planes, source, target = self._layout(np.concatenate(firsts), np.concatenate(seconds))
        self.nnz = sum(p.size for p in self.planes)
        own = source < known
        quadratic = both[source[own]]
        stat = stats.total[quadratic] / np.where(
            stats.first[quadratic] == stats.second[quadratic], 1.0, 2.0
        )
        self._quadratic = _sums(stats, quadratic, stat, target[own], self.nnz)
        self._dense = (source[~own] - known, target[~own])
        self.pattern = self._pattern()
        self._diagonal = self.pattern.lookup(self.pattern.columns, self.pattern.columns)
        scaled = form.explicit[self.pattern.first]
        self._identity = (scaled & (self.pattern.first == self.pattern.second)).astype(np.float64)

    def _where(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Member, block and component of each column."""
        members = self.form.members
        offsets = np.array([m.offset for m in members])
        member = np.searchsorted(offsets, columns, side="right") - 1
        size = np.array([m.size for m in members])[member] if len(members) else columns
        local = columns - offsets[member]
        return member, local // size, local % size

    def _layout(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[list[_Plane], np.ndarray, np.ndarray]:
        """Planes, and for each entry of G the product (by number) that adds to it, and its place.

        ``first`` ≤ ``second`` are the two columns of each product.
        """
        members = self.form.members
        s, i, k = self._where(first)
        t, j, m = self._where(second)
        planes: list[_Plane] = []
        used, targets, offset = [], [], 0
        for a, left in enumerate(members):
            for b, right in enumerate(members[a:], start=a):
                here = np.flatnonzero((s == a) & (t == b))
                if not len(here) and a != b:
                    continue
                code = i[here] * right.blocks + j[here]
                own = np.arange(left.blocks) * (left.blocks + 1) if a == b else code[:0]
                edges = np.unique(np.concatenate([code, own]))
                shape = (left.size, right.size, len(edges))
                plane = _Plane(a, b, edges // right.blocks, edges % right.blocks, offset, shape)
                at = np.searchsorted(edges, code)
                place = lambda x, y, at=at, p=plane: (  # noqa: E731
                    p.offset + (x * p.shape[1] + y) * p.shape[2] + at
                )
                used.append(here)
                targets.append(place(k[here], m[here]))
                mirror = np.flatnonzero((a == b) & (i[here] == j[here]) & (k[here] != m[here]))
                used.append(here[mirror])
                targets.append(place(m[here], k[here])[mirror])
                planes.append(plane)
                offset += plane.size
        none = [np.zeros(0, np.int64)]
        return planes, np.concatenate(used or none), np.concatenate(targets or none)

    def _pattern(self) -> Pattern:
        first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for plane in self.planes:
            left, right = self.form.members[plane.left], self.form.members[plane.right]
            rows = left.columns[plane.left_block].T[:, None, :]
            columns = right.columns[plane.right_block].T[None, :, :]
            first.append(np.broadcast_to(rows, plane.shape).reshape(-1))
            second.append(np.broadcast_to(columns, plane.shape).reshape(-1))
        return Pattern(np.arange(self.form.columns), np.concatenate(first), np.concatenate(second))

    def __call__(self, point: Point, linear: Any) -> tuple[QuadraticForm, Any]:
        """The quadratic form at a point, and -½(n log 2π - log|W|).

        ``linear`` [columns] is -Aᵀ W c of the rows whose noise is independent.
        """
        omega, priors = point.omega, point.priors
        raw = self._quadratic(omega)
        if self.correlated:
            raw, linear = self._whitened(point, raw, linear)
        dynamics = tuple(each.dynamics(omega, priors) for each in self.form.recurrences)
        one = jnp.ones(1, omega.dtype)
        priors = tuple(
            prior if self.form.explicit[m.offset] else one
            for m, prior in zip(self.form.members, priors, strict=True)
        )
        scaled = []
        for plane in self.planes:
            block = raw[plane.offset : plane.offset + plane.size].reshape(plane.shape)
            left, right = priors[plane.left], priors[plane.right]
            if left.shape[0] == right.shape[0] == 1 and plane.shape[0] * plane.shape[1] <= _KRON:
                # One product, with no transposes, and another one as its derivative.
                both = jnp.kron(_matrix(left, plane.shape[0]), _matrix(right, plane.shape[1]))
                flat = block.reshape(-1, plane.shape[2])
                scaled.append(jnp.dot(both.T, flat, precision="highest").reshape(-1))
                continue
            block = _scale_left(block, left, plane.left_block)
            block = _scale_left(block.swapaxes(0, 1), right, plane.right_block)
            scaled.append(block.swapaxes(0, 1).reshape(-1))
        values = jnp.concatenate([jnp.zeros(0, omega.dtype), *scaled])
        values = values + jnp.asarray(self._identity, omega.dtype)
        h = [
            _scale_left(
                linear[m.offset : m.offset + m.blocks * m.size]
                .reshape(m.blocks, m.size)
                .T[:, None],
                prior,
                np.arange(m.blocks),
            )[:, 0].T.reshape(-1)
            for m, prior in zip(self.form.members, priors, strict=True)
        ]
        stats = self.stats
        logs = jnp.log(omega[stats.strata])
        precision = jnp.dot(jnp.asarray(stats.count, omega.dtype), logs)
        constant = -0.5 * (stats.n * np.log(2 * np.pi) - precision)
        zero = jnp.zeros((), omega.dtype)
        h = jnp.concatenate([zero[None][:0], *h])
        floor = pivot_floor(values[self._diagonal])
        return QuadraticForm(values, h, zero, floor, dynamics), constant

    def _whitened(self, point: Point, raw: Any, linear: Any) -> tuple[Any, Any]:
        """Entries of Aᵀ W A and of -Aᵀ W c with those of correlated rows added."""
        total, inner = self.form.columns, []
        for c, factor in zip(self.correlated, point.factors, strict=True):
            products = c.products(point.omega, factor)
            inner.append(products[c.second < total])
            mixed = (c.second == total) & (c.first < total)
            linear = linear.at[c.first[mixed]].add(-products[mixed])
        source, target = self._dense
        return raw.at[target].add(jnp.concatenate(inner)[source]), linear

    def squares(self, point: Point, v: Any) -> Any:
        """Σ r² of the whitened correlated rows at v = (δ, 1)."""
        pairs = zip(self.correlated, point.factors, strict=True)
        return sum(c.squares(point.omega, factor, v) for c, factor in pairs)


def pivot_floor(diagonal: Any) -> Any:
    """max(1, ε G_ii), a constant for derivatives."""
    rounding = jnp.finfo(diagonal.dtype).eps * jax.lax.stop_gradient(diagonal)
    return jnp.maximum(1.0, rounding)


def _scale_left(block: Any, prior: Any, index: np.ndarray) -> Any:
    """Lᵀ times ``block`` [d, d', E] with the L of each edge's left block."""
    if prior.ndim == 1:
        return block * (prior if prior.shape[0] == 1 else prior[index])
    if prior.shape[0] == 1:
        return jnp.einsum("ka,kbe->abe", prior[0], block, precision="highest")
    return small.multiply_transposed(jnp.moveaxis(prior[index], 0, -1), block)


def _matrix(prior: Any, d: int) -> Any:
    """The one factor [d, d] of a prior that all blocks share."""
    return prior[0] * jnp.eye(d, dtype=prior.dtype) if prior.ndim == 1 else prior[0]


def scale(member: Member, prior: Any, z: Any) -> Any:
    """L z for one member: [blocks · size] from [blocks · size]."""
    z = z.reshape(member.blocks, member.size)
    if prior.ndim == 1:
        return (prior[:, None] * z).reshape(-1)
    if prior.shape[0] == 1:
        return jnp.dot(z, prior[0].T, precision="highest").reshape(-1)
    upper = jnp.moveaxis(prior, 0, -1).swapaxes(0, 1)
    return small.multiply_transposed(upper, z.T[:, None])[:, 0].T.reshape(-1)


def unscale(member: Member, prior: Any, delta: Any) -> Any:
    """L⁻¹ δ for one member: [blocks · size] from [blocks · size]."""
    delta = delta.reshape(member.blocks, member.size)
    if prior.ndim == 1:
        return (delta / prior[:, None]).reshape(-1)
    matrices = jnp.broadcast_to(prior, (member.blocks, *prior.shape[1:]))
    return jnp.linalg.solve(matrices, delta[..., None])[..., 0].reshape(-1)


def log_scale(member: Member, prior: Any) -> Any:
    """log|L| over all blocks of one member."""
    logs = jnp.log(prior) if prior.ndim == 1 else jnp.linalg.slogdet(prior)[1]
    return logs.sum() * (member.blocks if prior.shape[0] == 1 else 1)
