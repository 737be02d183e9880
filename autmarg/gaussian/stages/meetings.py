"""How batched blocks meet later columns: one by one, as many each, or most of them.

For a block b with factor L_b and the later columns r that it meets, W_b = L_b⁻¹ G_br. Its sums over
blocks, Σ_b W_bᵀ W_b and Σ_b W_bᵀ g_b, are formed

* entry by entry (:class:`Scattered`),
* slot by slot, where blocks meet about as many columns each: products need no lookups, and those of
  columns that all blocks meet are one small matrix product (:class:`Aligned`),
* as one matrix product, where blocks meet most later columns (:class:`Dense`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.cholesky import gram
from autmarg.gaussian.pattern import Pattern, filled, pairs_of, positions
from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.ragged import padded
from autmarg.gaussian.stages.cost import Counts

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# A scattered update costs about as much as this many multiply-adds of a matrix product.
_SCATTER_COST = 40
_ALIGNED = 0.4  # of the time of as many meetings one by one
_PADDED, _SLOTS = 1.5, 8  # share of slots to meetings, and slots, up to which blocks are aligned

Formula = tuple[Callable[..., Any], dict[str, int]]  # of a Cost: its work and sizes, but M and d


def _by_pairs(d: Any, E: Any, P: Any, **_: Any) -> Any:
    """Multiply-adds where E meetings of blocks of d columns make P pairs."""
    return E * d**2 / 2 + P * d


class Meetings(Protocol):
    """The later columns that B blocks of d columns each meet."""

    @property
    def structure(self) -> str:
        """In a plan's words."""
        ...

    def formula(self) -> Formula:
        """Multiply-adds of the sums for d columns in M blocks, with the sizes in it."""
        ...

    def counts(self, columns: int, width: int) -> Counts:
        """The work of a value and gradient."""
        ...

    def half(self, form: QuadraticForm, lower: Float[Array, "d d B"]) -> Float[Array, "..."]:
        """W."""
        ...

    def rest(
        self, form: QuadraticForm, w: Float[Array, "..."], g: Float[Array, "d B"]
    ) -> tuple[Float[Array, "entries"], Float[Array, "columns"]]:
        """The values of the next form, and h."""
        ...

    def shift(self, w: Float[Array, "..."], z: Float[Array, "columns"]) -> Float[Array, "d B"]:
        """Σ_r W_br z_r."""
        ...


def meetings_of(
    pattern: Pattern,
    columns: Int[np.ndarray, "B d"],
    later: Int[np.ndarray, "R"],
    block_of: Int[np.ndarray, "size"],
) -> tuple[Meetings, Pattern]:
    """How blocks meet the later columns, and the pattern that they leave."""
    block, column = _met(pattern, block_of)
    counts = np.bincount(block, minlength=len(columns))
    scattered = float((counts * (counts + 1) / 2).sum()) * _SCATTER_COST
    if scattered > len(columns) * float(len(later)) ** 2:
        return Dense.plan(pattern, columns, later)
    aligned = _slots(block, column, len(columns)) if len(block) else None
    if aligned is not None:
        return Aligned.plan(pattern, columns, later, block_of, *aligned)
    return Scattered.plan(pattern, columns, later, block_of, block, column)


@dataclass(frozen=True, eq=False)
class Scattered:
    """Meetings one by one, W [d, E].

    Attributes:
        block, column: [E] block and later column of each, sorted by block.
        position: [d, E] positions of G_br.
        carried: positions of the next form's values in this one's (-1: fill).
        pairs, target: meetings e, e' of the same block, and where their product goes.
        blocks: B.
    """

    block: Int[np.ndarray, "E"]
    column: Int[np.ndarray, "E"]
    position: Int[np.ndarray, "d E"]
    carried: Int[np.ndarray, "entries"]
    pairs: tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]
    target: Int[np.ndarray, "P"]
    blocks: int

    @classmethod
    def plan(
        cls,
        pattern: Pattern,
        columns: Int[np.ndarray, "B d"],
        later: Int[np.ndarray, "R"],
        block_of: Int[np.ndarray, "size"],
        block: Int[np.ndarray, "E"],
        column: Int[np.ndarray, "E"],
    ) -> tuple[Scattered, Pattern]:
        """These meetings, and the pattern that they leave."""
        position = positions(pattern, columns[block].T, column[None, :])
        left, right = pairs_of(block, np.bincount(block, minlength=len(columns)))
        nxt, target = filled(pattern, block_of, later, column, left, right)
        order = np.argsort(target, kind="stable")
        carried = pattern.lookup(nxt.first, nxt.second)
        pairs = left[order], right[order]
        return cls(block, column, position, carried, pairs, target[order], len(columns)), nxt

    @property
    def structure(self) -> str:
        """In a plan's words."""
        return f"{len(self.block)} meetings"

    def formula(self) -> Formula:
        """For a plan."""
        return _by_pairs, {"E": len(self.block), "P": len(self.target)}

    def counts(self, columns: int, width: int) -> Counts:
        """For the planner."""
        meetings = float(width * (len(self.block) + len(self.target)))
        return Counts(columns=columns, meetings=meetings)

    def half(self, form: QuadraticForm, lower: Float[Array, "d d B"]) -> Float[Array, "d E"]:
        """W [d, E]."""
        return small.solve_lower(lower[:, :, self.block], form.read(self.position))

    def rest(
        self, form: QuadraticForm, w: Float[Array, "d E"], g: Float[Array, "d B"]
    ) -> tuple[Float[Array, "entries"], Float[Array, "columns"]]:
        """The values of the next form, and h."""
        left, right = self.pairs
        update = (w[:, left] * w[:, right]).sum(axis=0)
        values = form.read(self.carried) - jax.ops.segment_sum(
            update, self.target, num_segments=len(self.carried), indices_are_sorted=True
        )
        return values, form.h.at[self.column].add(-(w * g[:, self.block]).sum(axis=0))

    def shift(self, w: Float[Array, "d E"], z: Float[Array, "columns"]) -> Float[Array, "d B"]:
        """Σ_r W_br z_r [d, B]."""
        product = w * z[self.column]
        return jax.ops.segment_sum(
            product.T, self.block, num_segments=self.blocks, indices_are_sorted=True
        ).T


@dataclass(frozen=True, eq=False)
class Aligned:
    """As many meetings of each block, W [d, S, B]: columns that all blocks meet, then others.

    Attributes:
        common: [C] columns that all blocks meet.
        column: [S - C, B] others, of slots without one some column.
        position: [d, S, B] positions of G_br, -1 in slots without a meeting.
        carried: positions of the next form's values in this one's (-1: fill).
        target: where products go: [C (C + 1) / 2] of pairs of common columns, [Q · B] of others.
        met: the number of meetings.
    """

    common: Int[np.ndarray, "C"]
    column: Int[np.ndarray, "slots B"]
    position: Int[np.ndarray, "d S B"]
    carried: Int[np.ndarray, "entries"]
    target: Int[np.ndarray, "products"]
    met: int

    @classmethod
    def plan(
        cls,
        pattern: Pattern,
        columns: Int[np.ndarray, "B d"],
        later: Int[np.ndarray, "R"],
        block_of: Int[np.ndarray, "size"],
        common: Int[np.ndarray, "C"],
        others: Int[np.ndarray, "slots B"],
    ) -> tuple[Aligned, Pattern]:
        """These meetings, ``others`` -1 in slots without one, and the pattern that they leave."""
        blocks, count = len(columns), len(common)
        table = np.concatenate([np.repeat(common[:, None], blocks, 1), others])
        position = positions(pattern, columns.T[:, None, :], table[None])
        place = np.arange(table.size).reshape(table.shape)
        left, right = (place[s] for s in _pairs(count, len(table)))
        inner = np.triu_indices(count)
        left = np.concatenate([place[inner[0], 0], left.reshape(-1)])
        right = np.concatenate([place[inner[1], 0], right.reshape(-1)])
        flat = table.reshape(-1)
        met = (flat[left] >= 0) & (flat[right] >= 0)
        nxt, found = filled(pattern, block_of, later, flat, left[met], right[met])
        target = np.zeros(len(left), np.int64)  # (products of no meeting are zero, wherever added)
        target[met] = found
        carried = pattern.lookup(nxt.first, nxt.second)
        column = np.where(others >= 0, others, later[0])
        return cls(common, column, position, carried, target, int((flat >= 0).sum())), nxt

    @property
    def structure(self) -> str:
        """In a plan's words."""
        return f"{self.met} meetings"

    def formula(self) -> Formula:
        """For a plan."""
        _, slots, blocks = self.position.shape
        return _by_pairs, {"E": self.met, "P": blocks * slots * (slots + 1) // 2}

    def counts(self, columns: int, width: int) -> Counts:
        """For the planner."""
        meetings = float(width * (self.met + len(self.target)))
        return Counts(columns=columns, meetings=_ALIGNED * meetings)

    def half(self, form: QuadraticForm, lower: Float[Array, "d d B"]) -> Float[Array, "d S B"]:
        """W [d, S, B]."""
        return small.solve_lower(lower, form.read(self.position))

    def rest(
        self, form: QuadraticForm, w: Float[Array, "d S B"], g: Float[Array, "d B"]
    ) -> tuple[Float[Array, "entries"], Float[Array, "columns"]]:
        """The values of the next form, and h."""
        count = len(self.common)
        shared, own = self._apart(w)
        of_shared, of_own = ((each * g[:, None]).sum(axis=0) for each in (shared, own))
        change = jnp.concatenate([of_shared.sum(axis=1), of_own.reshape(-1)])
        at = np.concatenate([self.common, self.column.reshape(-1)])
        h = form.h.at[at].add(-change)
        inner = sum(
            (gram(each) for each in small.parts(shared)), jnp.zeros((count, count), w.dtype)
        )
        outer = (shared[:, :, None] * own[:, None]).sum(axis=0)
        rows = [inner[np.triu_indices(count)], outer.reshape(-1)]
        slots = small.parts(jnp.swapaxes(own, 0, 1))
        rows += [(a * b).sum(axis=0) for k, a in enumerate(slots) for b in slots[k:]]
        values = form.read(self.carried).at[self.target].add(-jnp.concatenate(rows))
        return values, h

    def shift(self, w: Float[Array, "d S B"], z: Float[Array, "columns"]) -> Float[Array, "d B"]:
        """Σ_r W_br z_r [d, B]."""
        shared, own = self._apart(w)
        met = (own * z[self.column]).sum(axis=1)
        return met + (shared * z[self.common][:, None]).sum(axis=1)

    def _apart(
        self, w: Float[Array, "d S B"]
    ) -> tuple[Float[Array, "d C B"], Float[Array, "d slots B"]]:
        """W of the common columns and of the others; slices would be padded and added."""
        count = len(self.common)
        shared, own = jax.lax.split(w, (count, w.shape[1] - count), axis=1)
        return shared, own


@dataclass(frozen=True, eq=False)
class Dense:
    """Most later columns, W [R, d·B].

    Attributes:
        later: [R] these columns.
        position: [d, R, B] positions of G_br, -1 where a block does not meet a column.
        carried: [R, R] positions of the next form's values in this one's (-1: fill).
    """

    later: Int[np.ndarray, "R"]
    position: Int[np.ndarray, "d R B"]
    carried: Int[np.ndarray, "R R"]

    @classmethod
    def plan(
        cls, pattern: Pattern, columns: Int[np.ndarray, "B d"], later: Int[np.ndarray, "R"]
    ) -> tuple[Dense, Pattern]:
        """All later columns, and all pairs of them as the pattern that they leave."""
        i, j = np.meshgrid(later, later, indexing="ij")
        nxt = Pattern(later, i.reshape(-1), j.reshape(-1))
        position = positions(pattern, columns.T[:, None, :], later[None, :, None])
        carried = pattern.lookup(nxt.first, nxt.second).reshape(i.shape)
        return cls(later, position, carried), nxt

    @property
    def structure(self) -> str:
        """In a plan's words."""
        return f"dense to {len(self.later)}"

    def formula(self) -> Formula:
        """For a plan."""
        return lambda M, d, D: M * d * D**2, {"D": len(self.later)}

    def counts(self, columns: int, width: int) -> Counts:
        """For the planner."""
        entries, later = float(columns * len(self.later)), len(self.later)
        return Counts(columns=columns, products=entries * later, entries=entries)

    def half(self, form: QuadraticForm, lower: Float[Array, "d d B"]) -> Float[Array, "R d*B"]:
        """W, its rows side by side: one product for all components."""
        solved = small.solve_lower(lower, form.read(self.position))
        return jnp.concatenate(small.parts(solved), axis=-1)

    def rest(
        self, form: QuadraticForm, w: Float[Array, "R d*B"], g: Float[Array, "d B"]
    ) -> tuple[Float[Array, "entries"], Float[Array, "columns"]]:
        """The values of the next form, and h."""
        values = (form.read(self.carried) - gram(w)).reshape(-1)
        change = jnp.dot(w, g.reshape(-1), precision="highest")
        return values, form.h.at[self.later].add(-change)

    def shift(self, w: Float[Array, "R d*B"], z: Float[Array, "columns"]) -> Float[Array, "d B"]:
        """Σ_r W_br z_r [d, B]."""
        shift = jnp.dot(z[self.later], w, precision="highest")
        return shift.reshape(len(self.position), -1)


def _met(
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


def _slots(
    block: Int[np.ndarray, "E"], column: Int[np.ndarray, "E"], blocks: int
) -> tuple[Int[np.ndarray, "C"], Int[np.ndarray, "slots B"]] | None:
    """Columns that all blocks meet, and the others by block, -1 padded; None if too many slots."""
    times = np.bincount(column)
    own = times[column] < blocks
    others = padded(block[own], column[own], blocks).T
    common = np.flatnonzero(times == blocks)
    fits = others.size <= _PADDED * own.sum() and len(common) + len(others) <= _SLOTS
    return (common, others) if fits else None


def _pairs(count: int, slots: int) -> tuple[Int[np.ndarray, "Q"], Int[np.ndarray, "Q"]]:
    """Pairs of slots s ≤ t of which t is not common, in the order of s."""
    pairs = [(s, t) for s in range(slots) for t in range(max(s, count), slots)]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return left, right
