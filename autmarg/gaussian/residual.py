"""The minimum of the quadratic form, evaluated without cancellation.

cᵀWc - hᵀG⁻¹h is a small difference of large numbers when the data lie far from zero on the scale of
the noise. At the minimiser z* it equals the sum of squares

    Σ_i ω[w_i] (e_i + Σ_f a_if (φ_f - φ̂_f))² + z*ᵀz*,

where the features φ_f = ω[p] v_c are the distinct products of a column with an opaque factor,
φ̂ is any known vector and e = c + A φ̂ known residuals. With φ̂ the least-squares fit, computed once
at plan time in float64, both e and φ - φ̂ are of the size of the noise, in float32 too; an error in
z* enters only squared. (Residualised cross-products; the identity is exact for every φ̂.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

from autmarg.gaussian import compensated
from autmarg.gaussian.affine import AffineForm, Rows, RowTerm
from autmarg.gaussian.bilinear import BilinearForm, Entries
from autmarg.gaussian.cross_products import CrossProducts, cross_products
from autmarg.gaussian.rhs import KnownRightHandSide
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.small import take

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_ITERATIONS = 200  # of conjugate gradients; the fit need not be exact
# Where features are nearly collinear the least-squares fit is a difference of huge numbers. A prior
# that shrinks them leaves φ* far from it, and digits are lost when it is subtracted; a wide prior
# does not. A fit this many times larger than the data has others beside it, with ridges relative to
# the diagonal, and the nearest to φ* is used.
_HUGE = 10.0
_SMALL = 128  # features up to which neighbouring groups are one
_RIDGES = (1e-6, 1e-4, 1e-2)


@dataclass(frozen=True, eq=False)
class Residual:
    """Σ_i ω[w_i] r_i² from one or several fits, which are equal but for rounding.

    ``size`` [F] are root sums of squares of the features' coefficients; ``columns`` is the number
    of columns without the constant one; ``rounded`` is as :func:`rounded` says. ``own`` are the
    features that have squares, with the slot of each one's weight and its sum, [·].
    """

    fits: tuple[Fit, ...]
    size: Float[np.ndarray, "F"]
    columns: int
    rounded: float
    own: tuple[Int[np.ndarray, "own"], Int[np.ndarray, "own"], Float[np.ndarray, "own"]]

    def __call__(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, ""]:
        """The weighted sum of squares at ω and v = (δ, 1)."""
        if len(self.fits) == 1:
            return self.fits[0](omega, v)
        squares = jnp.stack([fit(omega, v) for fit in self.fits])
        far = [jnp.square(self.size * fit.features(omega, v)).sum() for fit in self.fits]
        return squares[jnp.argmin(jnp.stack(far))]

    def lost(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, ""]:
        """An estimate of the rounding error at ω and v: that of the squares which are added up.

        Where features cancel in the rows (entries of a whitening matrix, say), these are larger
        than the rows' squares.
        """
        far = [self._own_squares(omega, fit.features(omega, v)) for fit in self.fits]
        least = jax.lax.stop_gradient(jnp.stack(far).min())
        return 2 * jnp.finfo(least.dtype).eps * least

    def _own_squares(
        self, omega: Float[Array, "slots"] | Omega, features: Float[Array, "F"]
    ) -> Float[Array, ""]:
        feature, weight, total = self.own
        return jnp.sum(omega[weight] * jnp.asarray(total) * jnp.square(features[feature]))

    def rhs(self, omega: Float[Array, "slots"] | Omega) -> Float[Array, "columns"]:
        """-AᵀWc [columns], from the fit of least size."""
        return self.fits[-1].rhs(omega, self.columns)


@dataclass(frozen=True, eq=False)
class Fit:
    """Σ_i ω[w_i] r_i² from features, a form over pairs of them.

    ``column``, ``slot`` and ``shift`` [F] describe the features; feature values are
    ω[slot] · v[column] - shift. ``start`` is -AᵀWc, where the noise has few strata.
    """

    column: Int[np.ndarray, "F"]
    slot: Int[np.ndarray, "F"]
    shift: Float[np.ndarray, "F"]
    squares: BilinearForm
    start: KnownRightHandSide | None

    def __call__(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, ""]:
        """The weighted sum of squares at ω and v = (δ, 1)."""
        return self.squares(omega, self.features(omega, v))

    def features(
        self, omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
    ) -> Float[Array, "F"]:
        """φ - φ̂."""
        return take(omega, self.slot) * take(v, self.column) - jnp.asarray(self.shift, omega.dtype)

    def rhs(self, omega: Float[Array, "slots"] | Omega, columns: int) -> Float[Array, "columns"]:
        """-AᵀWc [columns]: -½ of the derivative of the sum of squares at δ = 0."""
        if self.start is not None:
            return self.start(omega)
        zero = jnp.zeros(columns + 1, omega.dtype).at[-1].set(1.0)
        features, back = jax.vjp(lambda v: self.features(omega, v), zero)
        return -back(self.squares.apply(omega, features))[0][:columns]


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a form's cross-products.

    ``column`` and ``slot`` [F] are theirs, sorted; ``left`` and ``right`` [keys] the two features
    of every cross-product; ``data`` [F] says which is the known part of the rows; ``group`` [F] is
    the number of a feature's member, from 1, and 0 for what no member has; ``size`` [F] are root
    sums of squares of their coefficients.
    """

    column: Int[np.ndarray, "F"]
    slot: Int[np.ndarray, "F"]
    left: Int[np.ndarray, "keys"]
    right: Int[np.ndarray, "keys"]
    data: Bool[np.ndarray, "F"]
    group: Int[np.ndarray, "F"]
    size: Float[np.ndarray, "F"]

    @classmethod
    def of(cls, form: AffineForm, raw: CrossProducts) -> Features:
        """The features of a form, given its raw cross-products."""
        column, slot, left, right = _features(raw)
        total = form.columns
        member = np.searchsorted([m.offset for m in form.members], column, side="right")
        group = np.where(column == total, 0, member)
        own = left == right
        squares = np.bincount(left[own], weights=raw.total[own], minlength=len(column))
        size = np.sqrt(np.maximum(squares, 0.0))  # below zero only by rounding
        return cls(column, slot, left, right, (column == total) & (slot == 0), group, size)

    def least_squares(self, total: Float[np.ndarray, "keys"]) -> list[Float[np.ndarray, "F"]]:
        """Fits φ̂ [F], all rows weighing the same: the exact one, and any with ridges."""
        return _fits(total, self.left, self.right, self.data, self.group, self.size)


def residual(form: AffineForm, raw: CrossProducts) -> Residual:
    """Residualised cross-products of a form, given its raw ones."""
    found = Features.of(form, raw)
    shifts = found.least_squares(raw.total)
    fits = tuple(_fit(form, found.column, found.slot, shift) for shift in shifts)
    size = np.where(found.data, 0.0, found.size)
    own = np.flatnonzero((found.left == found.right) & ~found.data[found.left])
    squares = found.left[own], raw.weight[own], raw.total[own]
    return Residual(fits, size, form.columns, rounded(raw, found, shifts[-1]), squares)


def rounded(raw: CrossProducts, found: Features, shift: Float[np.ndarray, "F"]) -> float:
    """The sum of squares of the numbers that known residuals e = c + A φ̂ of fixed noise add up.

    Such rows are divided by their noise beforehand, by which each of these numbers is off by its
    rounding. (Those of other rows are the user's own, and exact.)
    """
    own = np.flatnonzero((found.left == found.right) & (raw.weight == 0))
    feature = found.left[own]
    # (Terms that cancel leave a square of zero with the sign of its rounding.)
    squares = np.maximum(raw.total[own], 0.0)
    return float(squares @ np.where(found.data, 1.0, shift)[feature] ** 2)


def _fit(form: AffineForm, column: np.ndarray, slot: np.ndarray, shift: np.ndarray) -> Fit:
    """The form's rows with the features' known part φ̂ = ``shift`` taken out."""
    total, keys = form.columns, np.stack([column, slot], axis=1)
    stats = cross_products(form, lambda rows: centred(rows, total, column, slot, shift))
    left = find(keys, stats.first, stats.first_slot)
    right = find(keys, stats.second, stats.second_slot)
    groups = _groups(form, column, slot)
    entries = Entries.of(left, right, stats.weight, stats.total)
    squares = BilinearForm.plan(groups, len(column), entries, form.layout)
    start = None
    if len(squares.slots):
        start = KnownRightHandSide.plan(total, column, slot, shift, squares.slots, entries)
    return Fit(column, slot, shift, squares, start)


def _groups(form: AffineForm, column: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """The first features of groups: a member's, or a kept latent's; small neighbours together."""
    member = np.searchsorted([m.offset for m in form.members], column, side="right")
    base = np.searchsorted(form.bases, slot, side="right")
    label = np.where(column == form.columns, len(form.members) + 1 + base, member)
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    sizes = np.diff(np.append(starts, len(column)))
    kept, size = [], _SMALL
    for start, own in zip(starts, sizes, strict=True):
        if size + own > _SMALL:
            kept.append(start)
            size = 0
        size += own
    return np.array(kept, np.int64)


def _features(stats: CrossProducts) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (column, slot) pairs in order, and the two features of every key."""
    column = np.concatenate([stats.first, stats.second]).astype(np.int64)
    slot = np.concatenate([stats.first_slot, stats.second_slot])
    stride = int(slot.max(initial=0)) + 1
    pairs, inverse = np.unique(column * stride + slot, return_inverse=True)
    n = len(stats.first)
    return pairs // stride, pairs % stride, inverse[:n], inverse[n:]


def find(
    keys: Int[np.ndarray, "F 2"],
    column: Int[np.ndarray, "*places"],
    slot: Int[np.ndarray, "*places"],
) -> Int[np.ndarray, "*places"]:
    """Places of (column, slot) pairs among ``keys`` [F, 2], sorted."""
    stride = int(max(keys[:, 1].max(initial=0), slot.max(initial=0))) + 1
    codes = column.astype(np.int64) * stride + slot  # (narrower integers would overflow)
    return np.searchsorted(keys[:, 0].astype(np.int64) * stride + keys[:, 1], codes)


def _fits(
    total: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    data: np.ndarray,
    group: np.ndarray,
    size: np.ndarray,
) -> list[np.ndarray]:
    """Least-squares φ̂ from the normal equations, all rows weighing the same; and with ridges.

    Group means and group effects are often collinear. Fitting the groups of few features first,
    and then all together from there, puts what they share where a hierarchical prior puts it.
    """
    shift, free = np.zeros(len(data)), np.flatnonzero(~data & (size > 0))
    if not len(free) or not data.any():
        return [shift]
    matrix, rhs = _normal_equations(total, left, right, data, free)
    diagonal = diags_array(matrix.diagonal())

    def fit(solved: csr_array) -> np.ndarray:
        found = shift.copy()
        found[free] = _in_steps(matrix, solved, rhs, group[free])
        return found

    exact = fit(matrix)
    if np.linalg.norm((size * exact)[free]) <= _HUGE * np.linalg.norm(size[data]):
        return [exact]
    return [exact, *(fit((matrix + ridge * diagonal).tocsr()) for ridge in _RIDGES)]


def _in_steps(
    matrix: csr_array, solved: csr_array, rhs: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """The fit [free]: groups of few features first, then all, each step by ``solved``."""
    # Where the matrix is singular, going on below this size would only amplify rounding.
    enough = 1e-10 * float(np.linalg.norm(rhs))
    found, sizes = np.zeros(len(rhs)), np.bincount(group)
    for each in sorted(np.flatnonzero(sizes), key=lambda g: sizes[g]):
        some = np.flatnonzero(group == each)
        rest = (rhs - matrix @ found)[some]
        found[some] += _conjugate_gradients(solved[some][:, some], rest, enough)
    return found + _conjugate_gradients(solved, rhs - matrix @ found, enough)


def _normal_equations(
    total: np.ndarray, left: np.ndarray, right: np.ndarray, data: np.ndarray, free: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    """The normal equations of the ``free`` features: matrix and right-hand side."""
    place = np.full(len(data), -1)
    place[free] = np.arange(len(free))
    a, b = place[left], place[right]
    inside = (a >= 0) & (b >= 0)
    half = np.where(left == right, total, total / 2)[inside]
    i, j = a[inside], b[inside]
    off = i != j
    rows, columns = np.concatenate([i, j[off]]), np.concatenate([j, i[off]])
    entries = (np.concatenate([half, half[off]]), (rows, columns))
    one = (a >= 0) ^ (b >= 0)
    rhs = np.bincount(np.maximum(a, b)[one], weights=-total[one] / 2, minlength=len(free))
    return csr_array(entries, shape=(len(free), len(free))), rhs


def _conjugate_gradients(matrix: csr_array, rhs: np.ndarray, enough: float) -> np.ndarray:
    scale = matrix.diagonal()
    inverse = diags_array(1.0 / np.where(scale > 0, scale, 1.0))
    found, _ = cg(matrix, rhs, rtol=0.0, atol=enough, maxiter=_ITERATIONS, M=inverse)
    # An rhs of nothing but rounding lies outside the range of a singular matrix, and the iteration
    # runs away from it: a fit that is no better than none is none.
    better = np.linalg.norm(rhs - matrix @ found) <= np.linalg.norm(rhs)
    return found if better else np.zeros_like(rhs)


def centred(
    rows: Rows,
    total: int,
    column: Int[np.ndarray, "F"],
    slot: Int[np.ndarray, "F"],
    shift: Float[np.ndarray, "F"],
) -> Rows:
    """Rows with their known part replaced by e = c + A φ̂, exact but for a last rounding."""
    # (a last one that nothing has: of rows of zeros alone there are no features)
    keys = np.stack([np.append(column, total + 1), np.append(slot, 0)], axis=1)
    shift = np.append(shift, 0.0)
    known, terms = compensated.Sum(rows.n), []
    for term in rows.terms:
        c, p = np.broadcast_arrays(term.column, term.slot)
        at = find(keys, c, p)
        present = (keys[at, 0] == c) & (keys[at, 1] == p)  # absent where all coefficients are zero
        data = (c == total) & (p == 0)
        known.add(term.known, np.where(data, 1.0, shift[at] * present))
        rest = np.where(data, 0.0, term.known)
        if rest.any():
            terms.append(RowTerm(term.column, rest, term.slot))
    zero = np.zeros((1, 1), np.int64)
    terms.append(RowTerm(np.full((1, 1), total), known.value[:, None], zero))
    return replace(rows, terms=tuple(terms))
