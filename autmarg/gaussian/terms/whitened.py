"""Rows whitened: noise is correlated within blocks, and a step solves against its factors.

Where the noise factor L [d, d] of a block depends on kept latents and d is not small, whitening has
no cross-products to compute beforehand (each would need its own entry of L⁻¹). The block's
coefficients are written out as a dense matrix A over the columns that it meets and the constant,

    Ã = L⁻¹ A,    Σ_i r_i² = vᵀ ÃᵀÃ v,

which costs one triangular solve and one product of matrices, as the density itself does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.affine import Point, Rows
from autmarg.gaussian.ragged import distinct
from autmarg.gaussian.terms.base import Term

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Whitened(Term):
    """The rows of one site, planned.

    Attributes:
        rows: their affine form, of ``columns``; ``number`` is the place of their noise factors
            among the point's.
        shape: (B, d, F): blocks, rows of a block, columns that a block meets.
        target, known, slot: entries of A [B, d, F] as products, sorted by place.
        first, second: columns of each entry f ≤ g of ÃᵀÃ, the constant column last.
        pair: [P] position of each in the flattened [B, F, F].
    """

    rows: Rows
    number: int
    columns: int
    shape: tuple[int, int, int]
    target: Int[np.ndarray, "n"]
    known: Float[np.ndarray, "n"]
    slot: Int[np.ndarray, "n"]
    first: Int[np.ndarray, "P"]
    second: Int[np.ndarray, "P"]
    pair: Int[np.ndarray, "P"]
    how: str = "whitened at each step"

    @classmethod
    def plan(cls, rows: Rows, number: int, columns: int) -> Whitened:
        """The term, its rows' coefficients laid out."""
        d = rows.block
        blocks = rows.n // d
        entries = [term.full(rows.n) for term in rows.terms]
        width = sum(column.shape[1] for column, _, _ in entries)
        column, known, slot = (
            np.concatenate([e[k] for e in entries], axis=1).reshape(-1) for k in range(3)
        )
        row = np.repeat(np.arange(rows.n), width)
        used = np.flatnonzero(known)
        column, known, slot, row = column[used], known[used], slot[used], row[used]
        table, place = distinct(row // d, column, blocks)
        f = table.shape[1]
        target = row * f + place
        order = np.argsort(target, kind="stable")
        i, j = np.triu_indices(f)
        pair = (np.arange(blocks)[:, None] * f * f + i * f + j).reshape(-1)
        first, second = table[:, i].reshape(-1), table[:, j].reshape(-1)
        real = np.flatnonzero((first >= 0) & (second >= 0))
        return cls(
            rows, number, columns, (blocks, d, f), target[order], known[order], slot[order],
            first[real], second[real], pair[real],
        )  # fmt: skip

    def products(self, point: Point) -> Float[Array, "P"]:
        """[P] entries of ÃᵀÃ, the constant column included."""
        omega, factor = point.omega, point.factors[self.number]
        entries = jnp.asarray(self.known, omega.dtype) * omega[self.slot]
        b, d, f = self.shape
        flat = jax.ops.segment_sum(
            entries, self.target, num_segments=b * d * f, indices_are_sorted=True
        )
        white = _solve(factor, flat.reshape(self.shape))
        gram = jnp.einsum("bdf,bdg->bfg", white, white, precision="highest")
        return gram.reshape(-1)[self.pair]

    @property
    def n(self) -> int:
        """The number of rows that are data."""
        return self.rows.n if self.rows.counted else 0

    def pairs(self) -> tuple[Int[np.ndarray, "inner"], Int[np.ndarray, "inner"]]:
        """The columns of each entry without the constant one."""
        inner = self.second < self.columns
        return self.first[inner], self.second[inner]

    def place(
        self, source: Int[np.ndarray, "M"], target: Int[np.ndarray, "M"], size: int
    ) -> PlacedBlocks:
        """The entries at their places."""
        return PlacedBlocks(self, source, target, size)

    def squares(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """Σ r² of the whitened rows at v = (δ, 1)."""
        return self._square(point, self.rows.evaluate(point.omega, v))

    by_row = squares

    def _square(self, point: Point, rows: Float[Array, "n"]) -> Float[Array, ""]:
        """|L⁻¹ r|² of rows r [n]."""
        b, d, _ = self.shape
        white = _solve(point.factors[self.number], rows.reshape(b, d, 1))
        return jnp.vdot(white, white, precision="highest")

    def lost(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """2 |r| ρ + ρ², where whitened rows r are off by ρ: squares do not cancel, summands may.

        A row is off by the rounding of its summands. With signs at random, the mean of |L⁻¹ e|² is
        that over independent errors e of such sizes.
        """
        signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], self.rows.n), v.dtype)
        sizes = jnp.sqrt(self.rows.squared(point.omega, v))
        off = jnp.square(jnp.finfo(v.dtype).epsneg) * self._square(point, signs * sizes)
        return jax.lax.stop_gradient(2 * jnp.sqrt(off * self.squares(point, v)) + off)

    def log_weight(self, point: Point) -> float:
        """Zero: the point's constant has the noise factors' determinants."""
        return 0.0


@dataclass(frozen=True, eq=False)
class PlacedBlocks:
    """Whitened rows with places ``target`` among ``size`` for the entries ``source``."""

    term: Whitened
    source: Int[np.ndarray, "M"]
    target: Int[np.ndarray, "M"]
    size: int

    @property
    def known(self) -> dict[int, Float[np.ndarray, "size"]]:
        """None: the noise factors are opaque."""
        return {}

    def __call__(self, point: Point) -> tuple[Float[Array, "size"], Float[Array, "columns"]]:
        """Entries of AᵀWA, and -AᵀWc."""
        first, second, total = self.term.first, self.term.second, self.term.columns
        products, inner = self.term.products(point), second < total
        entries = jnp.zeros(self.size, point.omega.dtype)
        entries = entries.at[self.target].add(products[inner][self.source])
        mixed = (second == total) & (first < total)
        rhs = jnp.zeros(total, point.omega.dtype)
        return entries, rhs.at[first[mixed]].add(-products[mixed])


def _solve(factor: Float[Array, "#B d d"], a: Float[Array, "B d F"]) -> Float[Array, "B d F"]:
    """L⁻¹ A for L [B|1, d, d] and A [B, d, F]."""
    if factor.shape[0] == a.shape[0]:
        return jax.scipy.linalg.solve_triangular(factor, a, lower=True)
    b, d, f = a.shape
    side = jnp.moveaxis(a, 0, 1).reshape(d, b * f)
    solved = jax.scipy.linalg.solve_triangular(factor[0], side, lower=True)
    return jnp.moveaxis(solved.reshape(d, b, f), 1, 0)
