"""Rows whose noise is correlated within blocks: a step whitens them as matrices.

Where the noise factor L [d, d] of a block depends on kept latents and d is not small, whitening has
no cross-products to compute beforehand (each would need its own entry of L⁻¹). The block's
coefficients are written out as a dense matrix A over the columns that it meets and the constant,

    Ã = L⁻¹ A,    Σ_i r_i² = vᵀ ÃᵀÃ v,

which costs one triangular solve and one product of matrices, as the density itself does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.affine import Rows


def distinct(block: np.ndarray, key: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys of each block, ascending, [blocks, F] padded with -1; place of each entry."""
    stride = int(key.max(initial=0)) + 1
    pairs, inverse = np.unique(block * stride + key, return_inverse=True)
    owner = pairs // stride
    counts = np.bincount(owner, minlength=blocks)
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((blocks, int(counts.max(initial=0))), -1, np.int64)
    table[owner, place] = pairs % stride
    return table, place[inverse.reshape(-1)]


@dataclass(frozen=True, eq=False)
class Correlated:
    """The rows of one site, planned.

    Attributes:
        rows: their affine form.
        shape: (B, d, F): blocks, rows of a block, columns that a block meets.
        target, known, slot: entries of A [B, d, F] as products, sorted by place.
        first, second: columns of each entry f ≤ g of ÃᵀÃ, the constant column last.
        pair: [P] position of each in the flattened [B, F, F].
    """

    rows: Rows
    shape: tuple[int, int, int]
    target: np.ndarray
    known: np.ndarray
    slot: np.ndarray
    first: np.ndarray
    second: np.ndarray
    pair: np.ndarray

    @classmethod
    def plan(cls, rows: Rows) -> Correlated:
        """Lay out the rows' coefficients."""
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
            rows, (blocks, d, f), target[order], known[order], slot[order],
            first[real], second[real], pair[real],
        )  # fmt: skip

    def products(self, omega: Any, factor: Any) -> Any:
        """[P] entries of ÃᵀÃ."""
        entries = jnp.asarray(self.known, omega.dtype) * omega[self.slot]
        b, d, f = self.shape
        flat = jax.ops.segment_sum(
            entries, self.target, num_segments=b * d * f, indices_are_sorted=True
        )
        white = _solve(factor, flat.reshape(self.shape))
        gram = jnp.einsum("bdf,bdg->bfg", white, white, precision="highest")
        return gram.reshape(-1)[self.pair]

    def squares(self, omega: Any, factor: Any, v: Any) -> Any:
        """Σ r_i² of the whitened rows at ω and v = (δ, 1)."""
        b, d, _ = self.shape
        white = _solve(factor, self.rows.evaluate(omega, v).reshape(b, d, 1))
        return jnp.vdot(white, white, precision="highest")


def _solve(factor: Any, a: Any) -> Any:
    """L⁻¹ A for L [B|1, d, d] and A [B, d, F]."""
    if factor.shape[0] == a.shape[0]:
        return jax.scipy.linalg.solve_triangular(factor, a, lower=True)
    b, d, f = a.shape
    side = jnp.moveaxis(a, 0, 1).reshape(d, b * f)
    solved = jax.scipy.linalg.solve_triangular(factor[0], side, lower=True)
    return jnp.moveaxis(solved.reshape(d, b, f), 1, 0)


__all__ = ["Correlated", "distinct"]
