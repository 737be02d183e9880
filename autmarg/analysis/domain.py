"""The values of the affine interpreter: Known, Opaque and Affine.

* Known is a NumPy array.
* :class:`Opaque` depends on sampled latents only: ``base[index]`` with a JAX array ``base`` and a
  concrete ``index``, so that ``sigma[g]`` stays recognisable as a few numbers looked up by row.
* :class:`Affine` is an array each of whose elements is Σ known · opaque · column, the columns being
  elements of latent sites (or the constant one, for the offset). Complex arrays have complex
  coefficients of the same real columns.

Arrays inside a term are flattened over the shape: axis 0 counts rows (elements of the array) and
has length 1 where all rows agree, axis 1 counts the K summands of the term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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

    @cached_property
    def flat(self) -> Any:
        """``base`` with one axis; one object, so that terms can be told to share it."""
        return self.base if self.base.ndim == 1 else jnp.ravel(self.base)

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
        return jnp.reshape(self.flat[self.index], self.shape)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Opaque multiplier of a term: ``base[index]`` with ``index`` [n|1, K|1]."""

    base: Any
    index: np.ndarray

    def times(self, other: Lookup | None) -> Lookup:
        """Product, kept as a lookup into as few products as there are distinct pairs."""
        if other is None:
            return self
        if count(other.base.shape) == 1:
            return Lookup(self.base * other.base, self.index)
        if count(self.base.shape) == 1:
            return Lookup(self.base * other.base, other.index)
        own, others, index = self._pairs(other)
        return Lookup(self.base[own] * other.base[others], index)

    def where(self, gate: Lookup) -> Lookup:
        """Its entries where ``gate`` is true and 0 elsewhere, also where they are not finite."""
        own, gates, index = self._pairs(gate)
        return Lookup(jnp.where(gate.base[gates], self.base[own], 0), index)

    def _pairs(self, other: Lookup) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distinct pairs of entries of two lookups, and the index into them."""
        size = count(other.base.shape)
        left, right = np.broadcast_arrays(self.index, other.index)
        pairs, inverse = np.unique(left.astype(np.int64) * size + right, return_inverse=True)
        return pairs // size, pairs % size, inverse.reshape(left.shape)


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
            lookup = Lookup(factor.flat, factor.rows()[:, None])
            return replace(self, terms=tuple(t.times(None, lookup) for t in self.terms))
        known = _agreeing(coefficients(factor).reshape(-1, 1))
        return replace(self, terms=tuple(t.times(known) for t in self.terms))

    def where(self, gate: Opaque) -> Affine:
        """The array where ``gate``, boolean and of the same shape, is true; elsewhere zero."""
        lookup, one = Lookup(gate.flat, gate.rows()[:, None]), Lookup(jnp.ones(1), _ZERO)
        terms = [replace(t, lookup=(t.lookup or one).where(lookup)) for t in self.terms]
        return replace(self, terms=tuple(terms))

    def merged(self) -> Affine:
        """The same array with fewer, wider terms: one for each site and opaque array."""
        groups: dict[Any, list[Term]] = {}
        for term in self.terms:
            arrays = (term.column, *((term.lookup.index,) if term.lookup else ()))
            dense = all(a.shape[0] == 1 for a in arrays)
            base = term.lookup and id(term.lookup.base)
            groups.setdefault((term.site, base, dense), []).append(term)
        return replace(self, terms=tuple(_merge(terms, key[2]) for key, terms in groups.items()))

    def collapsed(self) -> Affine:
        """The same array with one coefficient, opaque where it is not known, for each site's
        element in a row: terms of many opaque arrays, as loops make them, become one."""
        sites: dict[str | None, list[Term]] = {}
        for term in self.terms:
            sites.setdefault(term.site, []).append(term)
        collapsed = (_collapse(terms, self.size) for terms in sites.values())
        return replace(self, terms=tuple(t for terms in collapsed for t in terms))


_FEW = 4  # opaque arrays that are kept apart

_ZERO = np.zeros((1, 1), np.int64)


def _collapse(terms: list[Term], n: int) -> list[Term]:
    """Terms of one site as one, its coefficients summed; as they are where they are few."""
    if sum(t.lookup is not None for t in terms) <= _FEW:
        return terms
    keys, products = [], []
    stride = max(int(t.column.max(initial=0)) for t in terms) + 1
    for term in (t.arrays(n) for t in terms):
        row, k = np.nonzero(term.known)
        keys.append(row * stride + term.column[row, k])
        known = jnp.asarray(term.known[row, k])
        lookup = term.lookup
        products.append(known if lookup is None else known * lookup.base[lookup.index[row, k]])
    key, place = np.unique(np.concatenate(keys), return_inverse=True)
    dtype = jnp.result_type(*products)
    sums = jnp.zeros(len(key), dtype).at[place].add(jnp.concatenate(products).astype(dtype))
    row = key // stride
    at = np.arange(len(key)) - np.searchsorted(row, row)
    column, index = (np.zeros((n, int(at.max(initial=-1)) + 1), np.int64) for _ in range(2))
    known = np.zeros(column.shape)
    column[row, at], index[row, at], known[row, at] = key % stride, np.arange(len(key)), 1.0
    return [Term(terms[0].site, column, known, Lookup(sums, index))]


def _merge(terms: list[Term], dense: bool) -> Term:
    """Terms of one site and opaque array side by side; equal summands are added up."""
    if len(terms) == 1 and (terms[0].width == 1 or not (dense or terms[0].lookup is None)):
        return terms[0]
    site, lookup = terms[0].site, terms[0].lookup
    column = _beside([t.column for t in terms], [t.width for t in terms])
    known = _beside([t.known for t in terms], [t.width for t in terms])
    index = np.zeros_like(column)
    if lookup is not None:
        index = _beside([t.lookup.index for t in terms if t.lookup], [t.width for t in terms])
    if dense:
        code = column[0].astype(np.int64) * (int(index.max(initial=0)) + 1) + index[0]
        _, at, inverse = np.unique(code, return_index=True, return_inverse=True)
        if len(at) < len(code):
            order = np.argsort(inverse, kind="stable")
            starts = np.searchsorted(inverse[order], np.arange(len(at)))
            known = np.add.reduceat(known[:, order], starts, axis=1)
            column, index = column[:, at], index[:, at]
    elif lookup is None and known.shape[1] > (size := int(column.max(initial=0)) + 1):
        known = _scattered(column, known, size)
        column = np.arange(size, dtype=np.int32)[None]
    return Term(site, column, known, lookup and Lookup(lookup.base, index))


def _beside(arrays: Sequence[np.ndarray], widths: Sequence[int]) -> np.ndarray:
    """Arrays [n|1, K|1], each broadcast to its width, next to each other."""
    rows = max(a.shape[0] for a in arrays)
    shapes = [(rows, width) for width in widths]
    return np.concatenate([np.broadcast_to(a, s) for a, s in zip(arrays, shapes, strict=True)], 1)


def _scattered(column: np.ndarray, known: np.ndarray, size: int) -> np.ndarray:
    """[n, size] sums of ``known`` by column."""
    n, width = np.broadcast_shapes(column.shape, known.shape)
    full = np.zeros((n, size), known.dtype)
    rows = np.broadcast_to(np.arange(n)[:, None], (n, width))
    np.add.at(full, (rows, np.broadcast_to(column, (n, width))), known)
    return full


def stacked(n: int, pieces: Sequence[tuple[Affine, np.ndarray, np.ndarray]]) -> tuple[Term, ...]:
    """Terms of n rows: each piece puts its rows ``local`` at the places ``rows``.

    The places of different pieces do not meet; rows that no piece fills are zero.
    """
    sites: dict[str | None, list[tuple[int, np.ndarray, list[Term]]]] = {}
    for number, (affine, local, rows) in enumerate(pieces):
        for term in affine.terms:
            parts = sites.setdefault(term.site, [])
            if not parts or parts[-1][0] != number:
                parts.append((number, rows, []))
            parts[-1][2].append(term.take(local).arrays(len(rows)))
    return tuple(
        _over_each_other(site, n, [(rows, terms) for _, rows, terms in parts])
        for site, parts in sites.items()
    )


def _over_each_other(site: str | None, n: int, parts: list[tuple[np.ndarray, list[Term]]]) -> Term:
    """One term for terms of one site that fill different rows."""
    width = max(sum(t.width for t in terms) for _, terms in parts)
    dtype = np.result_type(*(t.known for _, terms in parts for t in terms))
    column, known = np.zeros((n, width), np.int32), np.zeros((n, width), dtype)
    index = np.zeros((n, width), np.int64)
    starts: dict[int, int] = {}
    bases: list[Any] = []
    total = 0
    for rows, terms in parts:
        at = 0
        for term in terms:
            base = term.lookup.base if term.lookup else None
            if id(base) not in starts:
                starts[id(base)] = total
                bases.append(np.ones(1) if base is None else base)
                total += count(bases[-1].shape)
            place = (rows, slice(at, at + term.width))
            column[place], known[place] = term.column, term.known
            index[place] = starts[id(base)] + (term.lookup.index if term.lookup else 0)
            at += term.width
    column, index = _agreeing(column), _agreeing(index)
    if starts.keys() == {id(None)}:
        return Term(site, column, known)
    base = bases[0] if len(bases) == 1 else jnp.concatenate([jnp.ravel(b) for b in bases])
    return Term(site, column, known, Lookup(base, index))


def composed(outer: Term, inner: tuple[Term, ...]) -> list[Term]:
    """``outer`` with its site's elements replaced by ``inner``, terms over those elements."""
    k = outer.width
    rows = np.broadcast_to(outer.column, (outer.column.shape[0], k))
    n = rows.shape[0]
    result = []
    for term in inner:
        width = term.width

        def pick(a: np.ndarray, width: int = width) -> np.ndarray:
            if a.shape[0] == 1:
                return np.tile(np.broadcast_to(a, (1, width)), (1, k))
            return np.broadcast_to(a[rows], (n, k, width)).reshape(n, k * width)

        def repeat(a: np.ndarray, width: int = width) -> np.ndarray:
            return np.repeat(np.broadcast_to(a, (a.shape[0], k)), width, axis=1)

        lookup = term.lookup and Lookup(term.lookup.base, pick(term.lookup.index))
        moved = Term(term.site, pick(term.column), pick(term.known), lookup)
        outer_lookup = outer.lookup and Lookup(outer.lookup.base, repeat(outer.lookup.index))
        result.append(moved.times(repeat(outer.known), outer_lookup))
    return result


def _agreeing(rows: np.ndarray) -> np.ndarray:
    """[1, K] where all rows agree."""
    return rows[:1] if rows.size and (rows == rows[0]).all() else rows


def coefficients(values: Any) -> np.ndarray:
    """Known values in double precision, real or complex."""
    array = np.asarray(values)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def identity(site: str, shape: tuple[int, ...], dtype: Any) -> Affine:
    """The latent ``site`` itself."""
    column = np.arange(count(shape), dtype=np.int32)[:, None]
    return Affine(shape, dtype, (Term(site, column, np.ones((1, 1))),))


def array_of(value: Known | Opaque) -> Any:
    """A Known or Opaque value as a JAX array."""
    return value.value() if isinstance(value, Opaque) else jnp.asarray(value)


def as_affine(value: Known | Opaque | Affine) -> Affine:
    """A Known or Opaque value as an affine form with terms on the constant column only."""
    if isinstance(value, Affine):
        return value
    zero = np.zeros((1, 1), np.int32)
    if isinstance(value, Opaque):
        lookup = Lookup(value.flat, value.rows()[:, None])
        return Affine(value.shape, value.dtype, (Term(None, zero, np.ones((1, 1)), lookup),))
    known = _agreeing(coefficients(value).reshape(-1, 1))
    terms = () if known.size and not known.any() else (Term(None, zero, known),)
    return Affine(value.shape, value.dtype, terms)
