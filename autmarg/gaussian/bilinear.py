"""A weighted sum of products of pairs, fᵀ S(ω) f, evaluated through its gradient.

S(ω) = Σ_w ω_w S_w is symmetric, each S_w known. One product ρ_w = S_w f a weight gives the value
Σ ω_w f·ρ_w and both derivatives, 2 Σ ω_w ρ_w·df and Σ dω_w f·ρ_w, so nothing is differentiated
through. Where two groups of features meet nearly everywhere (two crossed factors) S_w is a matrix
there; elsewhere it is a list of entries. With many weights (noise that varies row by row) all of S
is one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.small import take

_FULL = 0.15  # share of entries from which two groups' products are a matrix
_STRATA = 8  # weights up to which each has a product of its own


@dataclass(frozen=True, eq=False)
class Block:
    """Products between the features of two groups, ``first`` before ``second`` or the same."""

    first: int
    second: int
    matrix: np.ndarray


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of S, both triangles, sorted by row; ``weight`` is the slot of each."""

    row: np.ndarray
    column: np.ndarray
    value: np.ndarray
    weight: np.ndarray

    def some(self, chosen: np.ndarray) -> Entries:
        """Those that are chosen."""
        each = (self.row, self.column, self.value, self.weight)
        return Entries(*(x[chosen] for x in each))

    def products(self, f: Any) -> Any:
        """value · f[column]."""
        return jnp.asarray(self.value, f.dtype) * take(f, self.column)

    def add(self, products: Any, size: int) -> Any:
        """Products added up by row."""
        return jax.ops.segment_sum(products, self.row, num_segments=size, indices_are_sorted=True)


@dataclass(frozen=True, eq=False)
class Stratum:
    """S_w for the weight in one slot: blocks between groups, ``starts`` their firsts; entries."""

    slot: int
    starts: np.ndarray
    size: int
    blocks: tuple[Block, ...]
    entries: Entries

    def __call__(self, f: Any) -> Any:
        """ρ = S_w f."""
        ends = np.append(self.starts[1:], self.size)
        pieces = [f[start:end] for start, end in zip(self.starts, ends, strict=True)]
        sums = [jnp.zeros_like(piece) for piece in pieces]
        for block in self.blocks:
            i, j, matrix = block.first, block.second, jnp.asarray(block.matrix, f.dtype)
            sums[i] = sums[i] + _dot(matrix, pieces[j])
            if i != j:
                sums[j] = sums[j] + _dot(pieces[i], matrix)
        # Side by side, and not added in place: the pieces fuse with what reads them.
        rho = jnp.concatenate(sums)
        e = self.entries
        return rho + e.add(e.products(f), self.size) if len(e.row) else rho


@dataclass(frozen=True, eq=False)
class BilinearForm:
    """fᵀ S(ω) f over ``size`` features: strata, or else ``entries`` with their weights."""

    size: int
    strata: tuple[Stratum, ...]
    entries: Entries

    @classmethod
    def plan(
        cls,
        starts: np.ndarray,
        size: int,
        left: np.ndarray,
        right: np.ndarray,
        weight: np.ndarray,
        total: np.ndarray,
    ) -> BilinearForm:
        """From keys (left, right, weight), each unordered pair once, with their sums.

        ``starts`` are the first features of the groups.
        """
        entries = _entries(left, right, weight, total)
        slots = np.unique(weight)
        if len(slots) > _STRATA:
            return cls(size, (), entries)
        each = tuple(
            _stratum(int(w), starts, size, entries.some(entries.weight == w)) for w in slots
        )
        return cls(size, each, entries.some(np.zeros(0, np.int64)))

    def __call__(self, omega: Any, f: Any) -> Any:
        """fᵀ S(ω) f."""
        return _value(self, omega, f)

    def apply(self, omega: Any, f: Any) -> Any:
        """ρ = S(ω) f."""
        return self._sum(omega, self._products(f))

    def _products(self, f: Any) -> tuple[Any, ...]:
        """S_w f of each stratum; else value · f[column] of each entry."""
        if len(self.entries.row):
            return (self.entries.products(f),)
        return tuple(stratum(f) for stratum in self.strata)

    def _sum(self, omega: Any, products: tuple[Any, ...]) -> Any:
        if len(self.entries.row):
            return self.entries.add(products[0] * omega[self.entries.weight], self.size)
        strata = zip(self.strata, products, strict=True)
        return sum((omega[s.slot] * rho for s, rho in strata), jnp.zeros(self.size, omega.dtype))

    def _contract(self, omega: Any, f: Any, products: tuple[Any, ...]) -> Any:
        """fᵀ S(ω) f from the products, linear in ω."""
        if len(self.entries.row):
            return _dot(take(f, self.entries.row) * products[0], omega[self.entries.weight])
        strata = zip(self.strata, products, strict=True)
        return sum((omega[s.slot] * _dot(f, rho) for s, rho in strata), jnp.zeros((), f.dtype))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(form: BilinearForm, omega: Any, f: Any) -> Any:
    return form._contract(omega, f, form._products(f))


@_value.defjvp
def _value_jvp(form: BilinearForm, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (omega, f), (omega_change, change) = primals, tangents
    products = form._products(f)
    value = form._contract(omega, f, products)
    moved = 2.0 * _dot(form._sum(omega, products), change)
    return value, moved + form._contract(omega_change, f, products)


def _stratum(slot: int, starts: np.ndarray, size: int, entries: Entries) -> Stratum:
    """Pairs of groups that meet nearly everywhere become matrices."""
    ends = np.append(starts[1:], size)
    a, b = (np.searchsorted(starts, x, side="right") - 1 for x in (entries.row, entries.column))
    rest, blocks = a > b, []  # below the diagonal of groups: what blocks hold already, or not
    code = a * len(starts) + b
    upper = code[~rest]
    for each, count in zip(*np.unique(upper, return_counts=True), strict=True):
        i, j = int(each) // len(starts), int(each) % len(starts)
        shape = (int(ends[i] - starts[i]), int(ends[j] - starts[j]))
        here = code == each
        if count < _FULL * shape[0] * shape[1]:
            rest |= here
            continue
        rest &= code != j * len(starts) + i
        matrix = np.zeros(shape)
        matrix[entries.row[here] - starts[i], entries.column[here] - starts[j]] = entries.value[
            here
        ]
        blocks.append(Block(i, j, matrix))
    return Stratum(slot, starts, size, tuple(blocks), entries.some(rest))


def _entries(left: np.ndarray, right: np.ndarray, weight: np.ndarray, total: np.ndarray) -> Entries:
    value = np.where(left == right, total, total / 2)
    off = np.flatnonzero(left != right)
    row, column = np.concatenate([left, right[off]]), np.concatenate([right, left[off]])
    order = np.lexsort([column, row])
    value, weight = np.concatenate([value, value[off]]), np.concatenate([weight, weight[off]])
    return Entries(row[order], column[order], value[order], weight[order])


def _dot(a: Any, b: Any) -> Any:
    return jnp.dot(a, b, precision="highest")
