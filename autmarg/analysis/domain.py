"""The values of the affine interpreter: Known, Opaque and Affine.

* Known is a NumPy array.
* :class:`Opaque` depends on sampled latents only: ``base[index]`` with a JAX array ``base`` and a
  concrete ``index``, so that ``sigma[g]`` stays recognisable as a few numbers looked up by row.
* :class:`Affine` is an array each of whose elements is Σ known · opaque · column, the columns being
  elements of latent sites (or the constant one, for the offset).

Arrays inside a term are flattened over the shape: axis 0 counts rows (elements of the array) and
has length 1 where all rows agree, axis 1 counts the K summands of the term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

Known = np.ndarray


def count(shape: tuple[int, ...]) -> int:
    """Number of elements of an array of that shape."""
    return int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Opaque:
    """``base.ravel()[index]`` (``base`` itself where ``index`` is None), of shape ``shape``."""

    base: Any
    shape: tuple[int, ...]
    index: np.ndarray | None = None

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    @property
    def entries(self) -> int:
        """Number of distinct entries."""
        return count(self.base.shape)

    def rows(self) -> np.ndarray:
        """[n] index of each row's entry in the flattened base."""
        return np.arange(count(self.shape)) if self.index is None else self.index

    def value(self) -> Any:
        """The array itself."""
        if self.index is None:
            return jnp.reshape(self.base, self.shape)
        return jnp.reshape(jnp.ravel(self.base)[self.index], self.shape)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Opaque multiplier of a term: ``base[index]`` with ``index`` [n|1, K|1]."""

    base: Any
    index: np.ndarray

    def times(self, other: Lookup | None) -> Lookup:
        """Product, kept as a lookup into as few products as there are distinct pairs."""
        if other is None:
            return self
        size = count(other.base.shape)
        if size == 1:
            return Lookup(self.base * other.base, self.index)
        if count(self.base.shape) == 1:
            return Lookup(self.base * other.base, other.index)
        left, right = np.broadcast_arrays(self.index, other.index)
        pairs, inverse = np.unique(left.astype(np.int64) * size + right, return_inverse=True)
        base = self.base[pairs // size] * other.base[pairs % size]
        return Lookup(base, inverse.reshape(left.shape))


@dataclass(frozen=True, eq=False)
class Term:
    """Σ_k known[i, k] · lookup[i, k] · site[column[i, k]] for row i.

    ``site`` is None for the constant column, whose ``column`` is all zeros.
    """

    site: str | None
    column: np.ndarray
    known: np.ndarray
    lookup: Lookup | None = None

    @property
    def width(self) -> int:
        """K, the number of summands."""
        arrays = [self.column, self.known] + ([self.lookup.index] if self.lookup else [])
        return max(a.shape[1] for a in arrays)

    def arrays(self, n: int) -> Term:
        """The term with every array broadcast to [n, K]."""
        shape = (n, self.width)
        lookup = self.lookup and Lookup(self.lookup.base, np.broadcast_to(self.lookup.index, shape))
        return Term(
            self.site,
            np.broadcast_to(self.column, shape),
            np.broadcast_to(self.known, shape),
            lookup,
        )

    def take(self, rows: np.ndarray, inside: np.ndarray | None = None) -> Term:
        """The term re-indexed by ``rows``; rows where ``inside`` is false get coefficient zero."""

        def pick(a: np.ndarray) -> np.ndarray:
            return a if a.shape[0] == 1 else a[rows]

        known = pick(self.known)
        if inside is not None and not inside.all():
            known = np.where(inside[:, None], known, 0.0)
        lookup = self.lookup and Lookup(self.lookup.base, pick(self.lookup.index))
        return Term(self.site, pick(self.column), known, lookup)

    def times(self, known: np.ndarray | None, lookup: Lookup | None = None) -> Term:
        """The term with its coefficients multiplied by ``known`` and ``lookup`` ([n|1, K|1])."""
        product = self.known if known is None else self.known * known
        if lookup is None:
            return Term(self.site, self.column, product, self.lookup)
        return Term(self.site, self.column, product, lookup.times(self.lookup))


@dataclass(frozen=True, eq=False)
class Affine:
    """An array of shape ``shape`` whose rows are sums of terms."""

    shape: tuple[int, ...]
    dtype: Any
    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        return count(self.shape)

    @property
    def sites(self) -> frozenset[str]:
        """Latent sites on whose elements the array depends."""
        return frozenset(t.site for t in self.terms if t.site is not None)

    def take(
        self, rows: np.ndarray, shape: tuple[int, ...], inside: np.ndarray | None = None
    ) -> Affine:
        """Rows picked by ``rows`` [n'], in the new shape."""
        rows = rows.reshape(-1)
        return Affine(shape, self.dtype, tuple(t.take(rows, inside) for t in self.terms))

    def times(self, factor: Any) -> Affine:
        """Product with a Known or Opaque of the same shape, or of one element."""
        if isinstance(factor, Opaque):
            index = factor.rows()[:, None]
            lookup = Lookup(jnp.ravel(factor.base), index)
            return Affine(self.shape, self.dtype, tuple(t.times(None, lookup) for t in self.terms))
        known = _compact(np.asarray(factor, np.float64).reshape(-1, 1))
        return Affine(self.shape, self.dtype, tuple(t.times(known) for t in self.terms))


def _compact(column: np.ndarray) -> np.ndarray:
    """[1, 1] where all rows agree."""
    return column[:1] if column.size and (column == column[0]).all() else column


def identity(site: str, shape: tuple[int, ...], dtype: Any) -> Affine:
    """The latent ``site`` itself."""
    column = np.arange(count(shape), dtype=np.int32)[:, None]
    return Affine(shape, dtype, (Term(site, column, np.ones((1, 1))),))


def as_affine(value: Known | Opaque | Affine) -> Affine:
    """A Known or Opaque value as an affine form with terms on the constant column only."""
    if isinstance(value, Affine):
        return value
    zero = np.zeros((1, 1), np.int32)
    if isinstance(value, Opaque):
        lookup = Lookup(jnp.ravel(value.base), value.rows()[:, None])
        return Affine(value.shape, value.dtype, (Term(None, zero, np.ones((1, 1)), lookup),))
    known = _compact(np.asarray(value, np.float64).reshape(-1, 1))
    terms = () if known.size and not known.any() else (Term(None, zero, known),)
    return Affine(value.shape, value.dtype, terms)
