"""Batched blocks: many small sets of columns that do not meet each other, eliminated at once.

The levels of the largest grouping factor (random intercepts and slopes), and in a nested design
every level of nesting in turn. For each block b with its d columns and the later columns r it
meets,

    L_b L_bᵀ = G_bb,  W_b = L_b⁻¹ G_br,  g_b = L_b⁻¹ h_b,
    G_rr ← G_rr - Σ_b W_bᵀ W_b,   h_r ← h_r - Σ_b W_bᵀ g_b.

How these sums over blocks are formed is in :mod:`.meetings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.pattern import Pattern, positions
from autmarg.gaussian.pieces import gather
from autmarg.gaussian.quadratic import QuadraticForm, lost
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.cost import Cost
from autmarg.gaussian.stages.meetings import Meetings, meetings_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Factor(NamedTuple):
    """L_b [d, d, B], and W as its meetings have it."""

    lower: Float[Array, "d d B"]
    w: Float[Array, "..."]


@dataclass(frozen=True, eq=False)
class BatchedBlocks(Stage[Factor, Array]):
    """One stage of batched blocks, planned for one pattern.

    Attributes:
        columns: [B, d] column numbers, -1 where a block has fewer than d.
        diagonal: [d, d, B] positions of G_bb (-1: padding or zero).
        meets: the later columns that blocks meet.
    """

    columns: Int[np.ndarray, "B d"]
    diagonal: Int[np.ndarray, "d d B"]
    meets: Meetings
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
        return f"{self.blocks} blocks of {self.width}, {self.meets.structure}"

    @property
    def cost(self) -> Cost:
        """One small factorisation for each block, and what its meetings fill in."""
        meetings, sizes = self.meets.formula()
        sizes = {"M": self.blocks, "d": self.width, **sizes}
        counts = self.meets.counts(self.blocks * self.width, self.width)

        def work(M: Any, d: Any, **others: Any) -> Any:
            return M * d**3 / 6 + meetings(M=M, d=d, **others)

        return Cost(self.structure, work, sizes, counts)

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
        meets, rest = meetings_of(pattern, columns, later, block_of)
        return cls(columns, diagonal, meets), rest

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, Float[Array, "d B"], QuadraticForm]:
        """Integrate the blocks out: their factor, g [d, B], and the form over the later columns."""
        padding = np.eye(self.width)[:, :, None] * (self.columns.T < 0)[None]
        blocks = form.read(self.diagonal) + jnp.asarray(padding, form.h.dtype)
        lower = small.cholesky(blocks)
        g = small.solve_lower(lower, gather(form.h, self.columns.T))
        log_det = form.log_det + 2.0 * small.log_diagonal(lower)
        pivots = jnp.square(jnp.stack([lower[k, k] for k in range(self.width)]))
        error = form.error + lost(gather(form.diagonal, self.columns.T), pivots)
        w = self.meets.half(form, lower)
        values, h = self.meets.rest(form, w, g)
        rest = form._replace(values=(values,), h=h, log_det=log_det, error=error)
        return Factor(lower, w), g, rest

    def back(
        self,
        factor: Factor,
        own: Float[Array, "d B"],
        z: Float[Array, "columns"],
        noise: Float[Array, "columns"],
    ) -> Float[Array, "columns"]:
        """z with this stage's columns drawn given the later ones: L⁻ᵀ(g - W z_r + ξ)."""
        xi = gather(noise, self.columns.T)
        drawn = small.solve_upper(factor.lower, own - self.meets.shift(factor.w, z) + xi)
        return self._put(z, drawn)

    def _put(self, z: Float[Array, "columns"], own: Float[Array, "d B"]) -> Float[Array, "columns"]:
        columns = self.columns.reshape(-1)
        first = int(columns[0])
        if first >= 0 and np.array_equal(columns, first + np.arange(len(columns))):
            return jax.lax.dynamic_update_slice(z, own.T.reshape(-1), (first,))
        used = self.columns.T >= 0
        return z.at[self.columns.T[used]].set(own[used], unique_indices=True)
