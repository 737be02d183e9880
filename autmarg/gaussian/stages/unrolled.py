"""Chains that are not eliminated in time: their states written out in innovations.

Where rows join many steps of a chain (a mean over time, an order in which another factor goes
first), the columns v of a recurrence are replaced by

    v = F z + K w,    w = (1, z of outside columns),

F and K being the recurrence run on unit vectors, so that the form becomes one over innovations z
with a full block for each chain; later stages eliminate it. Columns without noise of their own have
standard normal stand-ins, which nothing meets: they end here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from autmarg.gaussian.chains.recurrence import Dynamics, Recurrence
from autmarg.gaussian.pattern import Pattern, filled, positions
from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.cost import Cost, Counts

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_EXACT: Any = {"precision": "highest"}


@dataclass(frozen=True, eq=False)
class Unrolled(Stage[None, None]):
    """Rewrites one recurrence's columns; eliminates those without noise of their own.

    Attributes:
        recurrence, number: as for :class:`~autmarg.gaussian.stages.chain.Chain`.
        columns: those without noise of their own.
        local: [L] all columns whose entries change: the chains' own, then what they meet.
        kept: [K] places in ``local`` of those that stay.
        position: [L, L] places of their entries in the form's values.
        carried: places of the next form's values in this one's; ``target`` of those that change.
    """

    recurrence: Recurrence
    number: int
    columns: Int[np.ndarray, "idle"]
    local: Int[np.ndarray, "L"]
    kept: Int[np.ndarray, "K"]
    position: Int[np.ndarray, "L L"]
    carried: Int[np.ndarray, "entries"]
    changed: Int[np.ndarray, "P"]
    target: Int[np.ndarray, "P"]
    name: str = "unrolled"

    @property
    def size(self) -> int:
        return int((self.recurrence.columns >= 0).sum())

    @property
    def cost(self) -> Cost:
        """Two products of dense matrices, and the recurrence run on unit vectors."""
        local, steps = len(self.local), self.recurrence.steps
        counts = Counts(
            columns=math.inf, products=2.0 * local**3, entries=float(local) ** 2,
            small=float(self.size * self.recurrence.width * local), steps=steps,
        )  # fmt: skip
        text = f"{self.size} states written out in innovations"
        return Cost(text, lambda D: 2 * D**3, {"D": local}, counts)

    @classmethod
    def plan(
        cls, pattern: Pattern, recurrence: Recurrence, number: int
    ) -> tuple[Unrolled, Pattern]:
        """The rewriting, and the pattern it leaves."""
        own, idle = recurrence.columns[recurrence.columns >= 0], recurrence.idle
        inside = np.zeros(int(pattern.columns.max()) + 1, bool)
        inside[own] = True
        touched = inside[pattern.first] | inside[pattern.second]
        met = np.concatenate([pattern.first[touched], pattern.second[touched]])
        outside = recurrence.outside[recurrence.outside >= 0]
        met = np.setdiff1d(np.concatenate([met, outside]), own)
        local = np.concatenate([own, met])
        kept = np.flatnonzero(~np.isin(local, idle))
        position = positions(pattern, local[:, None], local[None, :])
        i, j = np.triu_indices(len(kept))
        ends = np.full(len(inside), -1)
        ends[idle] = 0
        rest = np.setdiff1d(pattern.columns, idle)
        nxt, target = filled(pattern, ends, rest, local[kept], i, j)
        return cls(
            recurrence, number, idle, local, kept, position,
            pattern.lookup(nxt.first, nxt.second), i * len(kept) + j, target,
        ), nxt  # fmt: skip

    def eliminate(self, form: QuadraticForm) -> tuple[None, None, QuadraticForm]:
        """The same form over innovations."""
        h = form.h
        matrix = form.read(self.position)
        change, constant = self._change(form.dynamics[self.number], h.dtype)
        own = h[self.local] - jnp.dot(matrix, constant, **_EXACT)
        matrix = jnp.dot(change.T, jnp.dot(matrix, change, **_EXACT), **_EXACT)
        innovations = np.arange(len(self.kept)) < self.size - len(self.columns)
        matrix = matrix + jnp.diag(jnp.asarray(innovations, h.dtype))
        remaining = form.read(self.carried)
        remaining = remaining.at[self.target].set(matrix.reshape(-1)[self.changed])
        columns = self.local[self.kept]
        h = h.at[columns].set(jnp.dot(change.T, own, **_EXACT))
        diagonal = form.diagonal.at[columns].set(jnp.diagonal(matrix))
        return None, None, form._replace(values=(remaining,), h=h, diagonal=diagonal)

    def _change(
        self, dynamics: Dynamics, dtype: DTypeLike
    ) -> tuple[Float[Array, "L K"], Float[Array, "L"]]:
        """T [L, K] and the constant k [L] of (v, w) = T (z, w) + k."""
        rec = self.recurrence
        t, b, d = rec.columns.shape
        place = np.full(int(max(self.local.max(), rec.columns.max())) + 1, -1)
        place[self.local] = np.arange(len(self.local))
        step, chain, k = np.nonzero(rec.columns >= 0)
        own = place[rec.columns[step, chain, k]]
        size = len(self.local)
        # A column's noise enters the states of its own step.
        inputs = jnp.zeros((t, b, d, size + 1), dtype)
        inputs = inputs.at[step, chain, :, own].add(dynamics.noise[step, chain, :, k])
        inputs = inputs.at[..., size].add(dynamics.entry[..., 0])
        entered, r = np.nonzero(rec.outside >= 0)
        columns = place[rec.outside[entered, r]]
        inputs = inputs.at[:, entered, :, columns].add(dynamics.entry[..., 1:][:, entered, :, r])
        states = rec.advance(dynamics, inputs)
        rows = states[step, chain, k]
        change = jnp.eye(size, dtype=dtype).at[own].set(rows[:, :size])
        constant = jnp.zeros(size, dtype).at[own].set(rows[:, size])
        return change[:, self.kept], constant

    def back(
        self, factor: None, own: None, z: Float[Array, "columns"], noise: Float[Array, "columns"]
    ) -> Float[Array, "columns"]:
        """z with noise for what stands in where a column has none."""
        return z.at[self.columns].set(noise[self.columns], unique_indices=True)
