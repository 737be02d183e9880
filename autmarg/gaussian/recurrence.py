"""Columns that follow one another in time: state-space chains, read once instead of unrolled.

The mean of a chain's element reads earlier elements of the same chain. Substituting it, as is done
for other members, would give every element a term for each of its predecessors. Such columns stay
as they are instead: for step t of a chain with states v_t [d],

    v_t = Σ_{k=1..p} A_tk v_{t-k} + M_t w + Q_t z_t,      z_t ~ N(0, I),

w being the scaled columns of members outside the chain, and 1. A column's step is the length of the
longest path of means that leads to it, so that it does not matter whether a program writes a chain
as one site with a time axis, as several sites, or as a site a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from autmarg.errors import InternalError
from autmarg.gaussian.affine import Member, Rows
from autmarg.gaussian.filtering import recursion
from autmarg.gaussian.small import product


class Dynamics(NamedTuple):
    """A recurrence at a point: ``transition`` A [T, B, p, d, d], ``entry`` M [T, B, d, R+1] with
    the constant first, ``noise`` Q [T, B, d, d]."""

    transition: Any
    entry: Any
    noise: Any


@dataclass(frozen=True, eq=False)
class _Entries:
    """Σ known · ω[slot] added up into places of an array of some shape."""

    target: np.ndarray
    known: np.ndarray
    slot: np.ndarray

    def __call__(self, omega: Any, shape: tuple[int, ...]) -> Any:
        products = jnp.asarray(self.known, omega.dtype) * omega[self.slot]
        size = int(np.prod(shape))
        total = jax.ops.segment_sum(
            products, self.target, num_segments=size, indices_are_sorted=True
        )
        return total.reshape(shape)


@dataclass(frozen=True, eq=False)
class Recurrence:
    """``B`` chains of ``T`` steps of up to ``d`` columns.

    Attributes:
        columns: [T, B, d] column numbers, -1 for padding.
        order: p, the largest lag.
        outside: [B, R] columns of other members that enter, whole prior blocks of them, -1 padded.
        prior: [T, B, d] (member, block, component) of each column's noise, -1 for none.
        blocks: of steps that go side by side (:mod:`autmarg.gaussian.filtering`).
    """

    columns: np.ndarray
    order: int
    outside: np.ndarray
    prior: np.ndarray
    outside_prior: np.ndarray
    _transition: _Entries
    _entry: _Entries
    blocks: int = 1

    @property
    def steps(self) -> int:
        return self.columns.shape[0]

    @property
    def chains(self) -> int:
        return self.columns.shape[1]

    @property
    def width(self) -> int:
        """d, the number of columns of a step."""
        return self.columns.shape[2]

    @property
    def idle(self) -> np.ndarray:
        """Columns without noise of their own."""
        return self.columns[(self.columns >= 0) & (self.prior[..., 0] < 0)]

    def dynamics(self, omega: Any, priors: tuple[Any, ...]) -> Dynamics:
        """A, M and Q at ω and the prior scales of all members."""
        t, b, d = self.columns.shape
        r = self.outside.shape[1]
        transition = self._transition(omega, (t, b, self.order, d, d))
        entry = self._entry(omega, (t, b, d, r + 1))
        if r:
            scale = _scales(self.outside_prior, priors, omega.dtype)
            rest = jnp.einsum("tbir,brs->tbis", entry[..., 1:], scale, precision="highest")
            entry = jnp.concatenate([entry[..., :1], rest], axis=-1)
        noise = _scales(self.prior, priors, omega.dtype)
        if (padding := self.columns < 0).any():
            # Independent stand-ins, which the rotations of draws keep apart (see the chain stage).
            noise = noise + jnp.asarray(padding[..., None] * np.eye(d), omega.dtype)
        return Dynamics(transition, entry, noise)

    def advance(self, transition: Any, inputs: Any, given: Any = None) -> Any:
        """v [T, B, d, …] of v_t = Σ A_tk v_{t-k} + inputs_t; ``given`` (values, mask) overrides."""
        if self.blocks > 1 and given is None and inputs.ndim == 3:
            return self._advance_in_blocks(transition, inputs)
        window = jnp.zeros((self.order, *inputs.shape[1:]), inputs.dtype)
        fixed = given or (inputs, np.zeros(self.columns.shape, bool))

        def step(window: Any, at: Any) -> tuple[Any, Any]:
            a, u, value, known = at
            new = u + jnp.einsum("bkij,kbj...->bi...", a, window, precision="highest")
            known = known.reshape(known.shape + (1,) * (new.ndim - known.ndim))
            new = jnp.where(known, value, new)
            return jnp.concatenate([new[None], window[:-1]]), new

        return jax.lax.scan(step, window, (transition, inputs, *fixed))[1]

    def companion(self, transition: Any, lags: int) -> Any:
        """A [T, B, D, D] of states (v_t, …, v_{t-lags+1}), the last ``order`` of which A reads."""
        t, b, p, d, _ = transition.shape
        top = jnp.moveaxis(transition, 2, 3).reshape(t, b, d, p * d)
        size = lags * d
        top = jnp.pad(top, ((0, 0), (0, 0), (0, 0), (0, size - p * d)))
        shift = np.broadcast_to(np.eye(size - d, size), (t, b, size - d, size))
        return jnp.concatenate([top, jnp.asarray(shift, transition.dtype)], axis=2)

    def _advance_in_blocks(self, transition: Any, inputs: Any) -> Any:
        def move(step: Any, x: Any, force: Any) -> Any:
            return product(step, x) + force

        rest = (self.order - 1) * self.width
        force = jnp.moveaxis(jnp.pad(inputs, ((0, 0), (0, 0), (0, rest))), 1, -1)
        step = jnp.moveaxis(self.companion(transition, self.order), 1, -1)
        states = recursion(move, step, force, self.blocks)
        return jnp.moveaxis(states[:, : self.width], -1, 1)


def _scales(where: np.ndarray, priors: tuple[Any, ...], dtype: Any) -> Any:
    """The prior factor restricted to columns: [..., n, n] from ``where`` [..., n, 3]."""
    sizes = [int(np.prod(p.shape)) for p in priors]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    zero = int(starts[-1])
    shared = np.array([p.shape[0] == 1 for p in priors] or [True])
    size = np.array([1 if p.ndim == 1 else p.shape[-1] for p in priors] or [1])
    member, block, component = (np.moveaxis(where, -1, 0)[k] for k in range(3))
    m = np.maximum(member, 0)
    own = np.where(shared[m], 0, block) * size[m] ** 2 + starts[m]
    same = (member[..., :, None] == member[..., None, :]) & (member[..., :, None] >= 0)
    same &= block[..., :, None] == block[..., None, :]
    entry = (own + component * size[m])[..., :, None] + component[..., None, :]
    flat = jnp.concatenate([*(jnp.ravel(p) for p in priors), jnp.zeros(1, dtype)])
    index = np.where(same, entry, zero)
    lead = tuple(range(index.ndim - 2))
    if index.ndim > 2 and index.size and (index == index[(slice(0, 1),) * len(lead)]).all():
        one = flat[index[(0,) * len(lead)]]
        return jnp.broadcast_to(one, index.shape)
    return flat[index]


def find_recurrences(
    members: Sequence[Member],
    means: Sequence[Rows],
    rows: Sequence[Rows],
    implicit: Sequence[int],
) -> tuple[Recurrence, ...]:
    """The chains among the columns of the ``implicit`` members.

    Columns that a mean or a row of data joins belong to one chain: they depend on each other, if
    not a priori then given the data.

    Args:
        members, means, rows: of the whole form.
        implicit: indices of the members whose means read each other's columns.
    """
    total = sum(m.blocks * m.size for m in members)
    node = np.full(total + 1, -1)
    count = 0
    for m in implicit:
        block = members[m]
        node[block.columns] = count + np.arange(block.blocks)[:, None]
        count += block.blocks
    parent, child = _edges(members, means, implicit, node)
    depth = _depths(parent, child, count)
    met = [pair for each in rows for pair in _joined(each, node)]
    joined = np.concatenate([np.stack([parent, child]), *met], axis=1)
    label = _labels(joined[0], joined[1], count)
    where = _where(members, total)
    found = []
    for columns in _batches(node, depth, label):
        found.append(_recurrence(columns, members, means, implicit, where, total))
    return tuple(found)


def _edges(
    members: Sequence[Member], means: Sequence[Rows], implicit: Sequence[int], node: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (parent, child) pairs of nodes; a node is a prior block of columns."""
    pairs = [np.zeros((2, 0), np.int64)]
    for m in implicit:
        own = node[members[m].columns.reshape(-1)]
        for term in means[m].terms:
            column, known, _ = term.full(means[m].n)
            row, k = np.nonzero((node[column] >= 0) & (known != 0))
            pairs.append(np.stack([node[column[row, k]], own[row]]))
    parent, child = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return parent, child


def _joined(rows: Rows, node: np.ndarray) -> list[np.ndarray]:
    """Pairs [2, n] of nodes that connect all those which one row, or block of rows, reads."""
    at, read = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for term in rows.terms:
        column, known, _ = term.full(rows.n)
        row, k = np.nonzero((node[column] >= 0) & (known != 0))
        at.append(row // rows.block)
        read.append(node[column[row, k]])
    row, found = np.unique(np.stack([np.concatenate(at), np.concatenate(read)]), axis=1)
    same = row[1:] == row[:-1]
    return [np.stack([found[:-1][same], found[1:][same]])]


def _depths(parent: np.ndarray, child: np.ndarray, count: int) -> np.ndarray:
    """Length of the longest path that leads to each node."""
    order = np.argsort(parent, kind="stable")
    starts = np.searchsorted(parent[order], np.arange(count + 1))
    targets = child[order].tolist()
    waiting = np.bincount(child, minlength=count).tolist()
    depth, ready, bounds = [0] * count, [], starts.tolist()
    ready = [n for n in range(count) if not waiting[n]]
    done = 0
    while done < len(ready):
        n = ready[done]
        done += 1
        for at in targets[bounds[n] : bounds[n + 1]]:
            depth[at] = max(depth[at], depth[n] + 1)
            waiting[at] -= 1
            if not waiting[at]:
                ready.append(at)
    if done < count:
        raise InternalError("the means of the integrated sites read each other in a circle")
    return _as_late_as_possible(np.array(depth, np.int64), parent, child)


def _as_late_as_possible(depth: np.ndarray, parent: np.ndarray, child: np.ndarray) -> np.ndarray:
    """Depths with nodes that read nothing put right before the first node that reads them.

    Noise that a later step reads is then met at that step, and not carried to it from the start.
    """
    first = np.full(len(depth), np.iinfo(np.int64).max)
    np.minimum.at(first, parent, depth[child])
    free = np.ones(len(depth), bool)
    free[child] = False
    return np.where(free & (first <= depth.max(initial=0)), first - 1, depth)


def _labels(parent: np.ndarray, child: np.ndarray, count: int) -> np.ndarray:
    ones: Any = (np.ones(len(parent), bool), (parent, child))
    return connected_components(coo_array(ones, shape=(count, count)), directed=False)[1]


def _batches(node: np.ndarray, depth: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    """[T, B, d] columns: the connected chains, those of equal length and width together."""
    columns = np.flatnonzero(node >= 0)
    step, chain = depth[node[columns]], label[node[columns]]
    order = np.lexsort((columns, step, chain))
    columns, step, chain = columns[order], step[order], chain[order]
    key = chain * (int(step.max(initial=0)) + 1) + step
    new = np.r_[True, key[1:] != key[:-1]][: len(key)]
    starts = np.flatnonzero(new)
    place = np.arange(len(key)) - np.repeat(starts, np.diff(np.r_[starts, len(key)]))
    chains = int(chain.max(initial=-1)) + 1
    length, width = np.zeros(chains, np.int64), np.zeros(chains, np.int64)
    np.maximum.at(length, chain, step + 1)
    np.maximum.at(width, chain, place + 1)
    batches = []
    for t, d in np.unique(np.stack([length, width], axis=1), axis=0):
        members = np.flatnonzero((length == t) & (width == d))
        local = np.full(chains, -1)
        local[members] = np.arange(len(members))
        inside = local[chain] >= 0
        batch = np.full((t, len(members), d), -1)
        batch[step[inside], local[chain[inside]], place[inside]] = columns[inside]
        batches.append(batch)
    return batches


def _where(members: Sequence[Member], total: int) -> np.ndarray:
    """[columns + 1, 3] (member, block, component), member -1 where there is no noise."""
    where = np.full((total + 1, 3), -1)
    for k, member in enumerate(members):
        if member.random:
            block, component = np.indices((member.blocks, member.size))
            where[member.columns] = np.stack([np.full_like(block, k), block, component], axis=-1)
    return where


def _recurrence(
    columns: np.ndarray,
    members: Sequence[Member],
    means: Sequence[Rows],
    implicit: Sequence[int],
    where: np.ndarray,
    total: int,
) -> Recurrence:
    t, b, d = columns.shape
    place = np.full((total + 1, 3), -1)
    used = columns >= 0
    place[columns[used]] = np.stack(np.nonzero(used), axis=-1)
    summands = [_summands(members[m], means[m], place) for m in implicit]
    child, column, known, slot = (np.concatenate(part) for part in zip(*summands, strict=True))
    here = place[child]
    there = place[column]
    inside = there[:, 0] >= 0
    lag = here[:, 0] - there[:, 0]
    order = max(int(lag[inside].max(initial=1)), 1)
    target = np.ravel_multi_index(
        (here[inside, 0], here[inside, 1], lag[inside] - 1, here[inside, 2], there[inside, 2]),
        (t, b, order, d, d),
    )
    transition = _entries(target, known[inside], slot[inside])
    outside = _outside(members, here[~inside, 1], column[~inside], b, total)
    local = _local(outside, here[~inside, 1], column[~inside], total)
    target = np.ravel_multi_index(
        (here[~inside, 0], here[~inside, 1], here[~inside, 2], local),
        (t, b, d, outside.shape[1] + 1),
    )
    entry = _entries(target, known[~inside], slot[~inside])
    none = np.array([-1, -1, -1])
    prior = np.where(used[..., None], where[np.maximum(columns, 0)], none)
    out_prior = np.where((outside >= 0)[..., None], where[np.maximum(outside, 0)], none)
    return Recurrence(columns, order, outside, prior, out_prior, transition, entry)


def _summands(member: Member, mean: Rows, place: np.ndarray) -> tuple[np.ndarray, ...]:
    """Child column, read column, known factor and slot of a mean's non-zero summands."""
    own = member.columns.reshape(-1)
    parts = [tuple(np.zeros(0, np.int64) for _ in range(4))]
    for term in mean.terms:
        column, known, slot = term.full(mean.n)
        row, k = np.nonzero((known != 0) & (place[own, 0] >= 0)[:, None])
        parts.append((own[row], column[row, k], known[row, k], slot[row, k]))
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))


def _outside(
    members: Sequence[Member], chain: np.ndarray, column: np.ndarray, b: int, total: int
) -> np.ndarray:
    """[B, R] columns that enter each chain, whole prior blocks, -1 padded."""
    block_of = np.zeros((total + 1, 2), np.int64)
    for m in members:
        block_of[m.columns] = np.stack(np.broadcast_arrays(m.columns[:, :1], m.size), axis=-1)
    real = column < total
    pairs = np.unique(np.stack([chain[real], block_of[column[real], 0]], axis=1), axis=0)
    sizes = block_of[pairs[:, 1], 1]
    chain = np.repeat(pairs[:, 0], sizes)
    within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return padded(chain, np.repeat(pairs[:, 1], sizes) + within, b)


def padded(row: np.ndarray, value: np.ndarray, rows: int) -> np.ndarray:
    """[rows, most] values by row (sorted), -1 padded."""
    counts = np.bincount(row, minlength=rows)
    out = np.full((rows, int(counts.max(initial=0))), -1)
    out[row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)] = value
    return out


def _local(outside: np.ndarray, chain: np.ndarray, column: np.ndarray, total: int) -> np.ndarray:
    """Place of each column among its chain's outside columns, from 1; 0 is the constant."""
    stride = total + 1
    b, k = np.nonzero(outside >= 0)
    keys = b * stride + outside[b, k]
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], chain * stride + column)
    at = np.minimum(at, max(len(keys) - 1, 0))
    found = k[order][at] + 1 if len(keys) else np.zeros(len(column), np.int64)
    return np.where(column == total, 0, found)


def _entries(target: np.ndarray, known: np.ndarray, slot: np.ndarray) -> _Entries:
    order = np.argsort(target, kind="stable")
    return _Entries(target[order], known[order].astype(np.float64), slot[order].astype(np.int64))


__all__ = ["Dynamics", "Recurrence", "find_recurrences", "padded"]
