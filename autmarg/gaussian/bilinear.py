"""A weighted sum of products of pairs, fᵀ S(ω) f, evaluated through its gradient.

S(ω) = Σ_w ω_w S_w is symmetric, known but for the weights. One product ρ = S f gives the value f·ρ
and the derivative 2 ρ·df, so nothing is differentiated through. Where two groups of features meet
nearly everywhere (two crossed factors) S_w is a matrix there; elsewhere it is a list of entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_FULL = 0.15  # share of entries from which two groups' products are a matrix
_WEIGHTS = 8  # weights up to which matrices are looked for


@dataclass(frozen=True, eq=False)
class Block:
    """S_w between the features of two slices, ``first`` before ``second`` or the same."""

    first: slice
    second: slice
    weight: int
    matrix: np.ndarray


@dataclass(frozen=True, eq=False)
class Entries:
    """The other entries of S, both triangles, sorted by row."""

    row: np.ndarray
    column: np.ndarray
    value: np.ndarray
    weight: np.ndarray

    def products(self, omega: Any, f: Any) -> Any:
        """value · ω[weight] · f[column]."""
        product = jnp.asarray(self.value, f.dtype) * f[self.column]
        slots = np.unique(self.weight)
        return product * omega[slots[0] if len(slots) == 1 else self.weight]


@dataclass(frozen=True, eq=False)
class BilinearForm:
    """fᵀ S(ω) f over ``size`` features."""

    size: int
    blocks: tuple[Block, ...]
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
        low, high = np.minimum(left, right), np.maximum(left, right)
        value = np.where(low == high, total, total / 2)
        rest, blocks = np.ones(len(total), bool), []
        if len(np.unique(weight)) <= _WEIGHTS:
            ends = np.append(starts[1:], size)
            a, b = (np.searchsorted(starts, x, side="right") - 1 for x in (low, high))
            code = (a * len(starts) + b) * (int(weight.max(initial=0)) + 1) + weight
            for each in np.unique(code):
                keys = np.flatnonzero(code == each)
                i, j = int(a[keys[0]]), int(b[keys[0]])
                shape = ends[i] - starts[i], ends[j] - starts[j]
                if len(keys) * (2 if i == j else 1) < _FULL * shape[0] * shape[1]:
                    continue
                rest[keys] = False
                matrix = np.zeros(shape)
                x, y = low[keys] - starts[i], high[keys] - starts[j]
                matrix[x, y] = value[keys]
                if i == j:
                    matrix[y, x] = value[keys]
                first, second = (slice(int(starts[k]), int(ends[k])) for k in (i, j))
                blocks.append(Block(first, second, int(weight[keys[0]]), matrix))
        return cls(size, tuple(blocks), _entries(low[rest], high[rest], value[rest], weight[rest]))

    def __call__(self, omega: Any, f: Any) -> Any:
        """fᵀ S(ω) f."""
        return _value(self, omega, f)

    def apply(self, omega: Any, f: Any) -> Any:
        """ρ = S(ω) f."""
        rho, e = jnp.zeros(self.size, f.dtype), self.entries
        if len(e.row):
            rho = jax.ops.segment_sum(
                e.products(omega, f), e.row, num_segments=self.size, indices_are_sorted=True
            )
        for block in self.blocks:
            weight, matrix = omega[block.weight], jnp.asarray(block.matrix, f.dtype)
            rho = rho.at[block.first].add(weight * _dot(matrix, f[block.second]))
            if block.first != block.second:
                rho = rho.at[block.second].add(weight * _dot(f[block.first], matrix))
        return rho

    def weighted(self, omega: Any, f: Any) -> Any:
        """fᵀ S(ω) f as a function that is linear in ω."""
        total, e = jnp.zeros((), f.dtype), self.entries
        if len(e.row):
            total = jnp.vdot(f[e.row], e.products(omega, f), precision="highest")
        for block in self.blocks:
            matrix = jnp.asarray(block.matrix, f.dtype)
            twice = 1.0 if block.first == block.second else 2.0
            square = jnp.vdot(f[block.first], _dot(matrix, f[block.second]), precision="highest")
            total = total + twice * omega[block.weight] * square
        return total


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(form: BilinearForm, omega: Any, f: Any) -> Any:
    return jnp.vdot(f, form.apply(omega, f), precision="highest")


@_value.defjvp
def _value_jvp(form: BilinearForm, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (omega, f), (omega_change, change) = primals, tangents
    rho = form.apply(omega, f)
    value = jnp.vdot(f, rho, precision="highest")
    moved = 2.0 * jnp.vdot(rho, change, precision="highest")
    return value, moved + form.weighted(omega_change, f)


def _entries(i: np.ndarray, j: np.ndarray, value: np.ndarray, weight: np.ndarray) -> Entries:
    off = np.flatnonzero(i != j)
    row, column = np.concatenate([i, j[off]]), np.concatenate([j, i[off]])
    order = np.lexsort([column, row])
    value, weight = np.concatenate([value, value[off]]), np.concatenate([weight, weight[off]])
    return Entries(row[order], column[order], value[order], weight[order])


def _dot(a: Any, b: Any) -> Any:
    return jnp.dot(a, b, precision="highest")
