"""A weighted sum of products of pairs, fᵀ S(ω) f, evaluated through its gradient.

S(ω) = Σ_w ω_w S_w is symmetric, each S_w known. One product ρ_w = S_w f a weight gives the value
Σ ω_w f·ρ_w and both derivatives, 2 Σ ω_w ρ_w·df and Σ dω_w f·ρ_w, so nothing is differentiated
through. Where two groups of features meet nearly everywhere (two crossed factors) S_w is a matrix
there; elsewhere it is a list of entries. With many weights (noise that varies row by row) all of S
is one list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.rowwise import Layout, Omega, Share
from autmarg.gaussian.small import take

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FULL = 0.15  # share of entries from which two groups' products are a matrix
_STRATA = 8  # weights up to which each has a product of its own


@dataclass(frozen=True, eq=False)
class Block:
    """Products between the features of two groups, ``first`` before ``second`` or the same.

    ``stratum`` is the number of the weight they have.
    """

    stratum: int
    first: int
    second: int
    matrix: Float[np.ndarray, "first second"]


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of S, both triangles, sorted by row; ``weight`` is the slot of each."""

    row: Int[np.ndarray, "n"]
    column: Int[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]
    weight: Int[np.ndarray, "n"]

    @classmethod
    def of(
        cls,
        left: Int[np.ndarray, "keys"],
        right: Int[np.ndarray, "keys"],
        weight: Int[np.ndarray, "keys"],
        total: Float[np.ndarray, "keys"],
    ) -> Entries:
        """From keys (left, right, weight), each unordered pair once, with their sums."""
        value = np.where(left == right, total, total / 2)
        off = np.flatnonzero(left != right)
        row, column = np.concatenate([left, right[off]]), np.concatenate([right, left[off]])
        order = np.lexsort([column, row])
        value, weight = np.concatenate([value, value[off]]), np.concatenate([weight, weight[off]])
        return cls(row[order], column[order], value[order], weight[order])

    def some(self, chosen: np.ndarray | slice) -> Entries:
        """Those that are chosen."""
        each = (self.row, self.column, self.value, self.weight)
        return Entries(*(x[chosen] for x in each))

    def products(self, f: Float[Array, "F"]) -> Float[Array, "n"]:
        """value · f[column]."""
        return jnp.asarray(self.value, f.dtype) * take(f, self.column)

    def add(self, products: Float[Array, "n"], size: int) -> Float[Array, "size"]:
        """Products added up by row."""
        return jax.ops.segment_sum(products, self.row, num_segments=size, indices_are_sorted=True)

    def weighted(
        self, omega: Float[Array, "slots"] | Omega, products: Float[Array, "n"]
    ) -> Float[Array, "n"]:
        """Products with their weights."""
        return products * omega[self.weight]

    def contract(
        self,
        omega: Float[Array, "slots"] | Omega,
        f: Float[Array, "F"],
        products: Float[Array, "n"],
    ) -> Float[Array, ""]:
        """The sum of f[row] ω[weight] · products."""
        return _dot(take(f, self.row) * products, omega[self.weight])


@dataclass(frozen=True, eq=False)
class SpreadEntries:
    """Entries whose weights are spread over devices; ``row``, ``column``, ``value`` [devices, L].

    The methods are those of :class:`Entries`.
    """

    share: Share
    row: Int[np.ndarray, "devices L"]
    column: Int[np.ndarray, "devices L"]
    value: Float[np.ndarray, "devices L"]

    @classmethod
    def of(cls, share: Share, entries: Entries) -> SpreadEntries:
        """The share's part of some entries."""
        row = share.known(entries.row, entries.row.max())
        return cls(share, row, share.known(entries.column), share.known(entries.value, 0.0))

    def products(self, f: Float[Array, "F"]) -> Float[Array, "devices L"]:
        """value · f[column], [devices, L]."""
        return self.share.spread(self.value, f.dtype) * f[self.share.spread(self.column)]

    def add(self, products: Float[Array, "devices L"], size: int) -> Float[Array, "size"]:
        """Products added up by row, [size]."""
        return self.share.add(products, self.row, size)

    def weighted(
        self, omega: Float[Array, "slots"] | Omega, products: Float[Array, "devices L"]
    ) -> Float[Array, "devices L"]:
        """Products times the weights ω of their rows, [devices, L]."""
        return products * self.share.weights(omega)

    def contract(
        self,
        omega: Float[Array, "slots"] | Omega,
        f: Float[Array, "F"],
        products: Float[Array, "devices L"],
    ) -> Float[Array, ""]:
        """Σ f[row] · weighted products, a scalar."""
        return jnp.sum(f[self.share.spread(self.row)] * self.weighted(omega, products))


@dataclass(frozen=True, eq=False)
class BilinearForm:
    """fᵀ S(ω) f over ``size`` features.

    Attributes:
        size: number of features F.
        slots: [W] slots of the weights; none where each entry has its own.
        starts: first features of the groups between which there are blocks.
        blocks: of the S_w.
        entries: what is in no block. Those of S_w have rows from w · F on.
        spread: what has a weight of its own that is spread over devices.
    """

    size: int
    slots: Int[np.ndarray, "W"]
    starts: Int[np.ndarray, "groups"]
    blocks: tuple[Block, ...]
    entries: Entries
    spread: tuple[SpreadEntries, ...] = ()

    @classmethod
    def plan(
        cls,
        starts: Int[np.ndarray, "groups"],
        size: int,
        entries: Entries,
        layout: Layout | None = None,
    ) -> BilinearForm:
        """From the entries of all S_w.

        ``starts`` are the first features of the groups; ``layout`` says which weights are spread.
        """
        slots = np.unique(entries.weight)
        if len(slots) > _STRATA:
            shares, rest = layout.split(entries.weight) if layout else ((), slice(None))
            spread = tuple(SpreadEntries.of(share, entries) for share in shares)
            return cls(size, slots[:0], starts, (), entries.some(rest), spread)
        blocks, rest = [], []
        for w, slot in enumerate(slots):
            own, others = _blocks(w, starts, size, entries.some(entries.weight == slot))
            blocks += own
            rest.append(replace(others, row=others.row + w * size))
        columns = zip(*((e.row, e.column, e.value, e.weight) for e in rest), strict=True)
        merged = Entries(*map(np.concatenate, columns)) if rest else entries
        return cls(size, slots, starts, tuple(blocks), merged)

    def __call__(
        self, omega: Float[Array, "slots"] | Omega, f: Float[Array, "F"]
    ) -> Float[Array, ""]:
        """fᵀ S(ω) f."""
        return _value(self, omega, f)

    def apply(
        self, omega: Float[Array, "slots"] | Omega, f: Float[Array, "F"]
    ) -> Float[Array, "F"]:
        """ρ = S(ω) f."""
        return self._sum(omega, self._products(f))

    def _products(self, f: Float[Array, "F"]) -> Float[Array, "W F"] | tuple[Array, ...]:
        """S_w f [W, F]; where each entry has its own weight, value · f[column] of each."""
        e, count = self.entries, len(self.slots)
        if not count:
            return tuple(each.products(f) for each in self._single)
        if not self.blocks:
            return e.add(e.products(f), count * self.size).reshape(count, self.size)
        ends = np.append(self.starts[1:], self.size)
        pieces = [f[start:end] for start, end in zip(self.starts, ends, strict=True)]
        sums = [jnp.zeros_like(piece) for _ in range(count) for piece in pieces]
        for block in self.blocks:
            matrix, first = jnp.asarray(block.matrix, f.dtype), block.stratum * len(pieces)
            i, j = block.first, block.second
            sums[first + i] = sums[first + i] + _dot(matrix, pieces[j])
            if i != j:
                sums[first + j] = sums[first + j] + _dot(pieces[i], matrix)
        # Side by side, and not added in place: the pieces fuse with what reads them.
        rho = jnp.concatenate(sums)
        rho = rho + e.add(e.products(f), count * self.size) if len(e.row) else rho
        return rho.reshape(count, self.size)

    @property
    def _single(self) -> tuple[Entries | SpreadEntries, ...]:
        """Entries with weights of their own."""
        return (self.entries, *self.spread) if len(self.entries.row) else self.spread

    def _sum(
        self,
        omega: Float[Array, "slots"] | Omega,
        products: Float[Array, "W F"] | tuple[Array, ...],
    ) -> Float[Array, "F"]:
        if isinstance(products, tuple):
            pairs = zip(self._single, products, strict=True)
            sums = (each.add(each.weighted(omega, p), self.size) for each, p in pairs)
            return sum(sums, jnp.zeros(self.size, omega.dtype))
        return _dot(omega[self.slots], products)

    def _contract(
        self,
        omega: Float[Array, "slots"] | Omega,
        f: Float[Array, "F"],
        products: Float[Array, "W F"] | tuple[Array, ...],
    ) -> Float[Array, ""]:
        """fᵀ S(ω) f from the products, linear in ω."""
        if isinstance(products, tuple):
            pairs = zip(self._single, products, strict=True)
            parts = (each.contract(omega, f, p) for each, p in pairs)
            return sum(parts, jnp.zeros((), omega.dtype))
        return _dot(omega[self.slots], _dot(products, f))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(
    form: BilinearForm, omega: Float[Array, "slots"] | Omega, f: Float[Array, "F"]
) -> Float[Array, ""]:
    return form._contract(omega, f, form._products(f))


@_value.defjvp
def _value_jvp(
    form: BilinearForm,
    primals: tuple[Array | Omega, Array],
    tangents: tuple[Array | Omega, Array],
) -> tuple[Array, Array]:
    (omega, f), (omega_change, change) = primals, tangents
    products = form._products(f)
    value = form._contract(omega, f, products)
    moved = 2.0 * _dot(form._sum(omega, products), change)
    return value, moved + form._contract(omega_change, f, products)


def _blocks(
    stratum: int, starts: np.ndarray, size: int, entries: Entries
) -> tuple[list[Block], Entries]:
    """Pairs of groups that meet nearly everywhere as matrices, and the entries of the others."""
    ends = np.append(starts[1:], size)
    a, b = (np.searchsorted(starts, x, side="right") - 1 for x in (entries.row, entries.column))
    rest, blocks = a > b, []  # below the diagonal of groups: what blocks hold already, or not
    code = a * len(starts) + b
    upper = code[~rest]
    for each, count in zip(*np.unique(upper, return_counts=True), strict=True):
        i, j = int(each) // len(starts), int(each) % len(starts)
        shape = (int(ends[i] - starts[i]), int(ends[j] - starts[j]))
        here = code == each
        if count < FULL * shape[0] * shape[1]:
            rest |= here
            continue
        rest &= code != j * len(starts) + i
        matrix = np.zeros(shape)
        matrix[entries.row[here] - starts[i], entries.column[here] - starts[j]] = entries.value[
            here
        ]
        blocks.append(Block(stratum, i, j, matrix))
    return blocks, entries.some(rest)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision="highest")
