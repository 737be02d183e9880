"""Rows as triangular factors: a square root of the cross-products, which keeps twice the digits.

The rows A φ + c of one noise stratum enter the density through their sum of squares only, which an
orthogonal transformation does not change. So the planner replaces the n rows by the triangular
factor R of their QR decomposition, which has no more rows than there are features:

    Σ_i r_i² = |R (φ - φ̂) + e|².

The features φ_f = ω[p] v_c are those of :mod:`autmarg.gaussian.residual`, and φ̂ is a least-squares
fit. Some directions the data do not determine: an intercept and the mean of group effects, say. In
cross-products RᵀR they are differences of numbers as large as 1/σ², with an error of ε/σ². In R
they are differences of numbers as large as 1/σ, with an error of ε/σ (Björck 1996, Numerical
Methods for Least Squares Problems, ch. 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.affine import AffineForm, Member, Point, Rows
from autmarg.gaussian.assembly import Assembly
from autmarg.gaussian.cross_products import CrossProducts
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.residual import Features, centred, find, rounded
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.terms import Summed
from autmarg.gaussian.terms.walked import weighted

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_FEATURES = 64  # up to which rows are kept as a dense triangle
_ROWS, _TIMES = 64, 4  # of all triangles, up to which (or this many times the features) they serve
_CHUNK = 4096  # rows that are factorised at once
_RANK = 1e-10  # of the largest singular value, below which the fit leaves a direction alone


@dataclass(frozen=True, eq=False)
class Triangles:
    """The rows of a form, those of each noise stratum as a triangular factor.

    Attributes:
        form: whose p columns they read.
        column, slot, shift: [F] of the features: their values are ω[slot] · v[column] - shift.
        known: [M, F] coefficients of the features, ``rest`` [M] known residuals.
        weight: [M] slot of each row's precision.
        rounded: as :func:`autmarg.gaussian.residual.rounded` says.
        n, how: as of the term whose rows they are.
    """

    form: AffineForm
    column: Int[np.ndarray, "F"]
    slot: Int[np.ndarray, "F"]
    shift: Float[np.ndarray, "F"]
    known: Float[np.ndarray, "M F"]
    rest: Float[np.ndarray, "M"]
    weight: Int[np.ndarray, "M"]
    rounded: float
    n: int
    how: str = Summed.how

    @property
    def columns(self) -> int:
        """p, without the constant one."""
        return self.form.columns

    def squares(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """rᵀW r at v = (δ, 1)."""
        rows = self.values(point.omega, v)
        return jnp.vdot(rows, rows)

    def by_row(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """The same in a pass over all rows of the form."""
        return weighted(self.form.independent, point.omega, v)

    def lost(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """2 |r| ρ + ρ², where the rows r are off by ρ: squares do not cancel, but features may.

        A triangle's column is off by its length's rounding (Higham 2002, Accuracy and Stability of
        Numerical Algorithms, section 19.3), and the feature times as much off are the rows.
        """
        omega = point.omega
        slots, lengths = self._lengths
        squares = jnp.dot(omega[slots], jnp.asarray(lengths), precision="highest")
        off = jnp.vdot(squares, jnp.square(self._features(omega, v)))
        off = jnp.square(jnp.finfo(off.dtype).epsneg) * off
        rows = self.values(omega, v)
        return jax.lax.stop_gradient(2 * jnp.sqrt(off * jnp.vdot(rows, rows)) + off)

    @cached_property
    def _lengths(self) -> tuple[Int[np.ndarray, "strata"], Float[np.ndarray, "strata F"]]:
        """Slots of the strata of noise, and each column's sum of squares in their triangles."""
        slots = np.unique(self.weight)
        own = [np.square(self.known[self.weight == slot]).sum(axis=0) for slot in slots]
        return slots, np.reshape(own, (len(slots), len(self.column)))

    def values(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, "M"]:
        """[M] rows at ω and v, divided by their noise."""
        features = self._features(omega, v)
        products = jnp.dot(jnp.asarray(self.known), features, precision="highest")
        return self._weights(omega) * (products + jnp.asarray(self.rest))

    def _features(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, "F"]:
        return omega[self.slot] * v[self.column] - jnp.asarray(self.shift)

    def rounding(self, point: Point) -> Float[Array, ""]:
        """What cross-products add up, whose rounding they lose: |B|² and Σ_f |a_f φ̂_f|² / σ².

        The second is what a feature's known coefficients times its fit are, row by row: a prior
        that holds φ far from φ̂ leaves a difference of numbers as large as the data.
        """
        rows = self.scaled(point)
        return jnp.vdot(rows, rows) + jnp.dot(point.omega[self.weight], self._fitted)

    @cached_property
    def _fitted(self) -> Float[np.ndarray, "M"]:
        return np.square(self.known * self.shift).sum(axis=1)

    def scaled(self, point: Point) -> Float[Array, "M p"]:
        """B = W^½ A L, [M, p]."""
        own = self.column < self.columns
        place = np.zeros((int(own.sum()), self.columns))
        place[np.arange(len(place)), self.column[own]] = 1.0
        known = self.known[:, own]
        matrix = jnp.asarray(known @ place)
        if self.slot[own].any():
            known = jnp.asarray(known) * point.omega[self.slot[own]]
            matrix = jnp.dot(known, jnp.asarray(place), precision="highest")
        pairs = zip(self.form.members, point.priors, strict=True)
        parts = [_times(matrix, member, prior) for member, prior in pairs]
        return self._weights(point.omega)[:, None] * jnp.concatenate(parts, axis=1)

    def _weights(self, omega: Float[Array, "slots"] | Omega) -> Float[Array, "M"]:
        return jnp.sqrt(omega[self.weight])


@dataclass(frozen=True, eq=False)
class TriangularAssembly:
    """How a point becomes rows B z + c: as :class:`Assembly`, whose cross-products it does without.

    What it says of sizes and of the pattern of G is what ``inner`` says.
    """

    inner: Assembly
    triangles: Triangles

    @property
    def terms(self) -> tuple[Triangles, ...]:
        """The rows, as triangles."""
        return (self.triangles,)

    @property
    def n(self) -> int:
        return self.inner.n

    @property
    def rows(self) -> int:
        return self.inner.rows

    @property
    def rounded(self) -> float:
        return self.triangles.rounded

    @property
    def pattern(self) -> Pattern:
        return self.inner.pattern

    @property
    def nnz(self) -> int:
        return self.inner.nnz

    @property
    def summed(self) -> Summed:
        return self.inner.summed

    def __call__(self, point: Point) -> tuple[QuadraticForm, Float[Array, ""]]:
        """Rows at a point, the values of a form with no entries of G; -½(n log 2π - log|W|)."""
        omega, columns = point.omega, self.triangles.columns
        start = jnp.zeros(columns + 1, omega.dtype).at[-1].set(1.0)
        zero = jnp.zeros(columns, omega.dtype)
        values = ()
        if columns:
            values = (self.triangles.scaled(point), self.triangles.values(omega, start))
        form = QuadraticForm(values, zero, jnp.zeros((), omega.dtype), jnp.ones_like(zero))
        return form, self.inner.constant(point)


def triangles(form: AffineForm, raw: CrossProducts) -> Triangles | None:
    """The rows of a form as triangles, or None where they are too many or too wide for that."""
    if form.correlated or form.recurrences or form.layout is not None or not form.independent:
        return None
    if not all(rows.counted for rows in form.independent):
        return None  # rows of precision zero, by whose derivatives variances are found
    found = Features.of(form, raw)
    free = np.flatnonzero(~found.data)
    slots = [np.broadcast_to(_precision(rows), rows.n) for rows in form.independent]
    strata, counts = np.unique(np.concatenate(slots), return_counts=True)
    height = np.minimum(counts, len(free) + 1).sum()
    if len(free) > _FEATURES or height > max(_ROWS, _TIMES * (len(free) + 1)):
        return None
    column, slot = found.column[free], found.slot[free]
    none = np.zeros(len(free))
    empty = np.zeros((0, len(free) + 1))  # of a form without rows, as under a mask over all
    parts = [_triangle(form, found, free, none, each) for each in strata]
    shift = _fit(np.concatenate([empty, *parts]))
    parts = [_triangle(form, found, free, shift, each) for each in strata]
    rows = np.concatenate([empty, *parts])
    weight = np.repeat(strata, np.array([len(part) for part in parts], np.int64))
    whole = np.zeros(len(found.column))
    whole[free] = shift
    off = rounded(raw, found, whole)
    return Triangles(form, column, slot, shift, rows[:, :-1], rows[:, -1], weight, off, raw.n)


def _fit(rows: np.ndarray) -> np.ndarray:
    """Least squares, the smallest one in the features' own scales where it is not unique."""
    known, rest = rows[:, :-1], rows[:, -1]
    size = np.sqrt(np.square(known).sum(axis=0))
    size = np.where(size > 0, size, 1.0)
    return np.linalg.lstsq(known / size, -rest, rcond=_RANK)[0] / size


def _triangle(
    form: AffineForm, found: Features, free: np.ndarray, shift: np.ndarray, stratum: int
) -> np.ndarray:
    """R [≤ F + 1, F + 1] of the rows of one stratum, the constant last."""
    whole = np.zeros(len(found.column))
    whole[free] = shift
    triangle = np.zeros((0, len(free) + 1))
    for rows in form.independent:
        for chunk in rows.chunks(_CHUNK):
            moved = centred(chunk, form.columns, found.column, found.slot, whole)
            dense = _dense(moved, form.columns, found.column[free], found.slot[free])
            here = np.broadcast_to(_precision(chunk), chunk.n) == stratum
            if here.any():
                triangle = _factor(np.concatenate([triangle, dense[here]]))
    return triangle


def _factor(matrix: np.ndarray) -> np.ndarray:
    return cast("np.ndarray", np.linalg.qr(matrix, mode="r"))  # (NumPy's stubs know no modes)


def _precision(rows: Rows) -> np.ndarray:
    assert rows.precision is not None
    return rows.precision


def _dense(rows: Rows, total: int, column: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """[n, F + 1] coefficients of the features, and of the constant.

    What is nothing but the rounding of summands that cancel is zero: a fit would make 1e15 of it.
    """
    keys = np.stack([np.append(column, total), np.append(slot, 0)], axis=1)
    order = np.lexsort([keys[:, 1], keys[:, 0]])
    dense, size = np.zeros((2, rows.n, len(keys)))
    for term in rows.terms:
        c, known, p = term.full(rows.n)
        used = np.nonzero(known)
        at = order[find(keys[order], c[used], p[used])]
        np.add.at(dense, (used[0], at), known[used])
        np.add.at(size, (used[0], at), np.abs(known[used]))
    noise = 4 * len(rows.terms) * np.finfo(np.float64).eps * size
    return np.where(np.abs(dense) <= noise, 0.0, dense)


def _times(
    matrix: Float[Array, "M p"], member: Member, prior: Float[Array, "#blocks *dd"]
) -> Float[Array, "M own"]:
    """The columns of a member times its L."""
    part = matrix[:, member.offset : member.offset + member.blocks * member.size]
    if prior.ndim == 1:
        return part * prior
    n = len(matrix)  # (a form may have no rows)
    part = part.reshape(n, member.blocks, member.size)
    priors = jnp.broadcast_to(prior, (member.blocks, *prior.shape[1:]))
    product = jnp.einsum("mbk,bka->mba", part, priors, precision="highest")
    return product.reshape(n, member.blocks * member.size)
