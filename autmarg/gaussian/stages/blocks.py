"""Batched blocks: many small sets of columns that do not meet each other, eliminated at once.

The levels of the largest grouping factor (random intercepts and slopes), and in a nested design
every level of nesting in turn. For each block b with its d columns and the later columns r it
meets,

    L_b L_bᵀ = G_bb,  W_b = L_b⁻¹ G_br,  g_b = L_b⁻¹ h_b,
    G_rr ← G_rr - Σ_b W_bᵀ W_b,   h_r ← h_r - Σ_b W_bᵀ g_b.

The sum over blocks is formed entry by entry where blocks meet few later columns each, and as one
matrix product where they meet most of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.cholesky import gram
from autmarg.gaussian.pattern import Pattern, filled, pairs_of, positions
from autmarg.gaussian.pieces import gather
from autmarg.gaussian.quadratic import QuadraticForm, lost
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.cost import Cost, Counts, symbols

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# A scattered update costs about as much as this many multiply-adds of a matrix product.
_SCATTER_COST = 40


class Factor(NamedTuple):
    """L_b [d, d, B]; W [d, E] over meetings (or [d, R, B] when dense)."""

    lower: Float[Array, "d d B"]
    w: Float[Array, "d *meetings"]


@dataclass(frozen=True, eq=False)
class BatchedBlocks(Stage[Factor, Array]):
    """One stage of batched blocks, planned for one pattern.

    Attributes:
        columns: [B, d] column numbers, -1 where a block has fewer than d.
        diagonal: [d, d, B] positions of G_bb (-1: padding or zero).
        meeting_block, meeting_column: [E] block and later column of each meeting, sorted by block.
        meeting: [d, E] positions of G_br.
        carried: positions of the next form's values in this one's (-1: fill).
        pairs, target: meetings e, e' of the same block, and where their product goes.
        dense: [d, R, B] positions of G_br when the sum over blocks is a matrix product, which is
            the next form's values (then there are no pairs), else None.
    """

    columns: Int[np.ndarray, "B d"]
    later: Int[np.ndarray, "R"]
    diagonal: Int[np.ndarray, "d d B"]
    meeting_block: Int[np.ndarray, "E"]
    meeting_column: Int[np.ndarray, "E"]
    meeting: Int[np.ndarray, "d E"]
    carried: Int[np.ndarray, "entries"]
    pairs: tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]
    target: Int[np.ndarray, "P"]
    dense: Int[np.ndarray, "d R B"] | None
    name: str = "blocks"

    @property
    def blocks(self) -> int:
        return self.columns.shape[0]

    @property
    def width(self) -> int:
        """d, the number of columns of a block."""
        return self.columns.shape[1]

    @property
    def size(self) -> int:
        return int((self.columns >= 0).sum())

    @property
    def structure(self) -> str:
        """What a plan calls it."""
        meets = f"{len(self.meeting_block)} meetings"
        if self.dense is not None:
            meets = f"dense to {len(self.later)}"
        return f"{self.blocks} blocks of {self.width}, {meets}"

    @property
    def cost(self) -> Cost:
        """One small factorisation for each block, and what its meetings fill in."""
        M, d, D, E, P = symbols("M d D E P")
        columns, sizes = self.blocks * self.width, ((M, self.blocks), (d, self.width))
        if self.dense is not None:
            entries, later = float(columns * len(self.later)), len(self.later)
            counts = Counts(columns=columns, products=entries * later, entries=entries)
            formula = M * d**3 / 6 + M * d * D**2
            return Cost(self.structure, formula, (*sizes, (D, later)), counts)
        met, pairs = len(self.meeting_block), len(self.target)
        counts = Counts(columns=columns, meetings=float(self.width * (met + pairs)))
        formula = M * d**3 / 6 + E * d**2 / 2 + P * d
        return Cost(self.structure, formula, (*sizes, (E, met), (P, pairs)), counts)

    @classmethod
    def plan(
        cls, pattern: Pattern, columns: Int[np.ndarray, "B d"]
    ) -> tuple[BatchedBlocks, Pattern]:
        """The stage that eliminates ``columns`` [B, d], and the pattern it leaves."""
        block_of = np.full(int(pattern.columns.max()) + 1, -1)
        b, k = np.nonzero(columns >= 0)
        block_of[columns[b, k]] = b
        later = np.setdiff1d(pattern.columns, columns[columns >= 0])
        diagonal = positions(pattern, columns.T[:, None, :], columns.T[None, :, :])
        meeting_block, meeting_column = _meetings(pattern, block_of)
        meeting = positions(pattern, columns[meeting_block].T, meeting_column[None, :])
        r = len(later)
        counts = np.bincount(meeting_block, minlength=len(columns))
        scattered = float((counts * (counts + 1) / 2).sum()) * _SCATTER_COST
        left = right = np.zeros(0, np.int64)
        if scattered > len(columns) * float(r) ** 2:
            nxt, target = _square(later), left
            dense = positions(pattern, columns.T[:, None, :], later[None, :, None])
        else:
            left, right = pairs_of(meeting_block, counts)
            nxt, target = filled(pattern, block_of, later, meeting_column, left, right)
            order = np.argsort(target, kind="stable")
            left, right, target, dense = left[order], right[order], target[order], None
        carried = pattern.lookup(nxt.first, nxt.second)
        stage = cls(
            columns, later, diagonal, meeting_block, meeting_column, meeting, carried,
            (left, right), target, dense,
        )  # fmt: skip
        return stage, nxt

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, Float[Array, "d B"], QuadraticForm]:
        """Integrate the blocks out: their factor, g [d, B], and the form over the later columns."""
        h = form.h
        padding = np.eye(self.width)[:, :, None] * (self.columns.T < 0)[None]
        blocks = form.read(self.diagonal) + jnp.asarray(padding, h.dtype)
        lower = small.cholesky(blocks)
        g = small.solve_lower(lower, gather(h, self.columns.T))
        log_det = form.log_det + 2.0 * small.log_diagonal(lower)
        pivots = jnp.square(jnp.stack([lower[k, k] for k in range(self.width)]))
        error = form.error + lost(gather(form.diagonal, self.columns.T), pivots)
        if self.dense is not None:
            r = len(self.later)
            w = small.solve_lower(lower, form.read(self.dense))
            parts = list(zip(small.parts(w), small.parts(g), strict=True))
            products = sum(gram(part) for part, _ in parts)
            remaining = (form.read(self.carried.reshape(r, r)) - products).reshape(-1)
            change = sum(jnp.dot(part, own, precision="highest") for part, own in parts)
            h = h.at[self.later].add(-change)
        else:
            at = self.meeting_block
            w = small.solve_lower(lower[:, :, at], form.read(self.meeting))
            left, right = self.pairs
            update = (w[:, left] * w[:, right]).sum(axis=0)
            remaining = form.read(self.carried) - jax.ops.segment_sum(
                update, self.target, num_segments=len(self.carried), indices_are_sorted=True
            )
            h = h.at[self.meeting_column].add(-(w * g[:, at]).sum(axis=0))
        rest = form._replace(values=(remaining,), h=h, log_det=log_det, error=error)
        return Factor(lower, w), g, rest

    def _shift(self, factor: Factor, z: Float[Array, "columns"]) -> Float[Array, "d B"]:
        """Σ_r W_br z_r, [d, B]."""
        if self.dense is not None:
            rest = z[self.later]
            return jnp.stack([jnp.dot(rest, w, precision="highest") for w in small.parts(factor.w)])
        product = factor.w * z[self.meeting_column]
        return jax.ops.segment_sum(
            product.T, self.meeting_block, num_segments=self.blocks, indices_are_sorted=True
        ).T

    def back(
        self,
        factor: Factor,
        own: Float[Array, "d B"],
        z: Float[Array, "columns"],
        noise: Float[Array, "columns"],
    ) -> Float[Array, "columns"]:
        """z with this stage's columns drawn given the later ones: L⁻ᵀ(g - W z_r + ξ)."""
        xi = gather(noise, self.columns.T)
        drawn = small.solve_upper(factor.lower, own - self._shift(factor, z) + xi)
        return self._put(z, drawn)

    def _put(self, z: Float[Array, "columns"], own: Float[Array, "d B"]) -> Float[Array, "columns"]:
        columns = self.columns.reshape(-1)
        first = int(columns[0])
        if first >= 0 and np.array_equal(columns, first + np.arange(len(columns))):
            return jax.lax.dynamic_update_slice(z, own.T.reshape(-1), (first,))
        used = self.columns.T >= 0
        return z.at[self.columns.T[used]].set(own[used], unique_indices=True)


def _meetings(
    pattern: Pattern, block_of: Int[np.ndarray, "columns"]
) -> tuple[Int[np.ndarray, "E"], Int[np.ndarray, "E"]]:
    """Distinct (block, later column) pairs, sorted by block."""
    first, second = block_of[pattern.first], block_of[pattern.second]
    forward, backward = (first >= 0) & (second < 0), (first < 0) & (second >= 0)
    block = np.concatenate([first[forward], second[backward]])
    column = np.concatenate([pattern.second[forward], pattern.first[backward]])
    stride = len(block_of)
    code = np.unique(block * stride + column)
    return code // stride, code % stride


def _square(columns: Int[np.ndarray, "R"]) -> Pattern:
    """All pairs, as a matrix."""
    i, j = np.meshgrid(columns, columns, indexing="ij")
    return Pattern(columns, i.reshape(-1), j.reshape(-1))
