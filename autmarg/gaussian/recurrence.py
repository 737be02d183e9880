"""Columns that follow one another in time: state-space chains, read once instead of unrolled.

The mean of a chain's element reads earlier elements of the same chain. Substituting it, as is done
for other members, would give every element a term for each of its predecessors. Such columns stay
as they are instead: for step t of a chain with states v_t [d],

    v_t = Σ_{k=0..p} A_tk v_{t-k} + M_t w + Q_t z_t,      z_t ~ N(0, I),

w being the scaled columns of members outside the chain, and 1; within a step (k = 0) only columns
without noise read others, which have noise. A column's step is the length of the longest path of
means that leads to it, so that it does not matter whether a program writes a chain as one site with
a time axis, as several sites, or as a site a step; and columns wait for those that rows read along
with them.
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

_RAGGED = 12  # first steps of other columns, up to which draws take them one by one
_NEAR = 8  # steps that a row may join without any reason to look for closer ones


class Dynamics(NamedTuple):
    """A recurrence at a point: ``transition`` A [T, B, p, d, d], ``entry`` M [T, B, d, R+1] with
    the constant first, ``noise`` Q [T, B, d, d], and ``within`` A_t0 [T, B, d, d] (None for 0)."""

    transition: Any
    entry: Any
    noise: Any
    within: Any = None

    def solved(self) -> Dynamics:
        """The same, with what a column reads of its own step substituted: A_t0 A_t0 is zero."""
        if self.within is None:
            return self

        def add(x: Any, letters: str) -> Any:
            return x + jnp.einsum(f"tbij,{letters}", self.within, x, precision="highest")

        transition = add(self.transition, "tbkjm->tbkim")
        return Dynamics(transition, add(self.entry, "tbjr->tbir"), add(self.noise, "tbjr->tbir"))


@dataclass(frozen=True, eq=False)
class Entries:
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
    _transition: Entries
    _entry: Entries
    _within: Entries
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
    def ragged(self) -> int:
        """Number of first steps after which all steps use the same places."""
        used = self.columns >= 0
        return int(np.flatnonzero((used != used[-1]).any(axis=(1, 2))).max(initial=-1)) + 1

    @property
    def even(self) -> bool:
        """Whether all chains use the same places, and all but a few first steps do."""
        used = self.columns >= 0
        return self.ragged <= min(_RAGGED, self.steps - 1) and bool((used == used[:, :1]).all())

    @property
    def reads(self) -> np.ndarray:
        """[n, 4] (step, chain, lag, place) of the columns of earlier steps that means read."""
        shape = (self.steps, self.chains, self.order, self.width, self.width)
        t, b, lag, _, place = np.unravel_index(self._transition.target, shape)
        return np.unique(np.stack([t, b, lag + 1, place], axis=1), axis=0)

    def noisy(self, step: np.ndarray, chain: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Whether columns have noise of their step: their own, or that of a column they read."""
        own = self.prior[..., 0] >= 0
        shape = (*self.columns.shape, self.width)
        t, b, i, _ = np.unravel_index(self._within.target, shape)
        own[t, b, i] = True
        return own[step, chain, place]

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
            scale = prior_scales(self.outside_prior, priors, omega.dtype)
            rest = jnp.einsum("tbir,brs->tbis", entry[..., 1:], scale, precision="highest")
            entry = jnp.concatenate([entry[..., :1], rest], axis=-1)
        noise = prior_scales(self.prior, priors, omega.dtype)
        if (padding := self.columns < 0).any():
            # Independent stand-ins, which the rotations of draws keep apart (see the chain stage).
            noise = noise + jnp.asarray(padding[..., None] * np.eye(d), omega.dtype)
        within = None
        if len(self._within.target):
            within = self._within(omega, (t, b, d, d))
        return Dynamics(transition, entry, noise, within)

    def advance(self, dynamics: Dynamics, inputs: Any, given: Any = None) -> Any:
        """v [T, B, d, …] of v_t = Σ A_tk v_{t-k} + inputs_t; ``given`` (values, mask) overrides."""
        if self.blocks > 1 and given is None and inputs.ndim == 3:
            return self._advance_in_blocks(dynamics, inputs)
        transition, within = dynamics.transition, dynamics.within
        if within is None:
            within = jnp.zeros((self.steps, 1, self.width, 0), inputs.dtype)
        window = jnp.zeros((self.order, *inputs.shape[1:]), inputs.dtype)
        fixed = given or (inputs, np.zeros(self.columns.shape, bool))

        def step(window: Any, at: Any) -> tuple[Any, Any]:
            a, own, u, value, known = at
            new = u + jnp.einsum("bkij,kbj...->bi...", a, window, precision="highest")
            known = known.reshape(known.shape + (1,) * (new.ndim - known.ndim))
            new = jnp.where(known, value, new)
            if dynamics.within is not None:
                new = new + jnp.einsum("bij,bj...->bi...", own, new, precision="highest")
            return jnp.concatenate([new[None], window[:-1]]), new

        return jax.lax.scan(step, window, (transition, within, inputs, *fixed))[1]

    def companion(self, transition: Any, lag: np.ndarray, place: np.ndarray) -> Any:
        """A [T, B, D, D] of states whose elements are v_{t-lag}[place], ``lag`` in order.

        Whatever A reads of the step before is in a state, and so is v_{t-k+1} where v_{t-k} is.
        """
        t, b, _, d, _ = transition.shape
        read = lag < self.order
        top = jnp.zeros((t, b, d, len(lag)), transition.dtype)
        # (lag 0 of the state before is lag 1 of this step, the first of the transitions)
        found = transition[:, :, lag[read], :, place[read]]
        top = top.at[..., np.flatnonzero(read)].set(jnp.moveaxis(found, 0, -1))
        own, older = lag == 0, np.flatnonzero(lag > 0)
        before = (lag[older, None] - 1 == lag) & (place[older, None] == place)
        shift = np.broadcast_to(before.astype(float), (t, b, *before.shape))
        return jnp.concatenate([top[:, :, place[own]], jnp.asarray(shift, top.dtype)], axis=2)

    def _advance_in_blocks(self, dynamics: Dynamics, inputs: Any) -> Any:
        def move(step: Any, x: Any, force: Any) -> Any:
            return product(step, x) + force

        if dynamics.within is not None:
            own = jnp.einsum("tbij,tbj->tbi", dynamics.within, inputs, precision="highest")
            inputs = inputs + own
        lag, place = self._window()
        rest = int((lag > 0).sum())
        force = jnp.moveaxis(jnp.pad(inputs, ((0, 0), (0, 0), (0, rest))), 1, -1)
        step = self.companion(dynamics.solved().transition, lag, place)
        states = recursion(move, jnp.moveaxis(step, 1, -1), force, self.blocks)
        return jnp.moveaxis(states[:, : self.width], -1, 1)

    def _window(self) -> tuple[np.ndarray, np.ndarray]:
        """Lag and place of v_t and of all older columns that means read."""
        oldest = np.ones(self.width, int)
        np.maximum.at(oldest, self.reads[:, 3], self.reads[:, 2])
        return places_of(oldest)


def places_of(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lag and place of a state with the ``count`` [d] last columns at each place, lag by lag."""
    lag, place = np.nonzero(np.arange(int(count.max(initial=0)))[:, None] < count)
    return lag, place


def prior_scales(where: np.ndarray, priors: tuple[Any, ...], dtype: Any) -> Any:
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
    random = np.zeros(count, bool)
    for m in implicit:
        random[node[members[m].columns]] = members[m].random
    row, read = _joined(rows, node)
    # A column without noise stands in the step of the noise that it reads.
    later = ~(random[parent] & ~random[child])
    depth, order = _depths(parent, child, later.astype(int), count)
    edges = parent, child, later.astype(int)
    depth = _waiting(depth, order, edges)
    if _spread(depth, row, read) > _NEAR:
        depth = _waiting(depth, order, edges, (row, read))
    same = np.flatnonzero(row[1:] == row[:-1])
    joined = np.concatenate([np.stack([parent, child]), read[same + np.array([[0], [1]])]], axis=1)
    label = _labels(joined[0], joined[1], count)
    where = noise_of(members)
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


def _joined(rows: Sequence[Rows], node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and node of all that rows read, or blocks of rows, numbered through all sites."""
    at, read, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for each in rows:
        for term in each.terms:
            column, known, _ = term.full(each.n)
            row, k = np.nonzero((node[column] >= 0) & (known != 0))
            at.append(first + row // each.block)
            read.append(node[column[row, k]])
        first += each.n
    row, found = np.unique(np.stack([np.concatenate(at), np.concatenate(read)]), axis=1)
    return row, found


def _depths(
    parent: np.ndarray, child: np.ndarray, later: np.ndarray, count: int
) -> tuple[np.ndarray, list[int]]:
    """Length of the longest path that leads to each node, an edge counting ``later`` steps; and
    the nodes in order, parents first."""
    order = np.argsort(parent, kind="stable")
    starts = np.searchsorted(parent[order], np.arange(count + 1))
    targets, lengths = child[order].tolist(), later[order].tolist()
    waiting = np.bincount(child, minlength=count).tolist()
    depth, ready, bounds = [0] * count, [], starts.tolist()
    ready = [n for n in range(count) if not waiting[n]]
    done = 0
    while done < len(ready):
        n = ready[done]
        done += 1
        for k in range(bounds[n], bounds[n + 1]):
            at = targets[k]
            depth[at] = max(depth[at], depth[n] + lengths[k])
            waiting[at] -= 1
            if not waiting[at]:
                ready.append(at)
    if done < count:
        raise InternalError("the means of the integrated sites read each other in a circle")
    return np.array(depth, np.int64), ready


def _waiting(
    depth: np.ndarray,
    nodes: Sequence[int],
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Depths with nodes that read none put as late as their children allow.

    Noise that a later step reads is then met at that step, and not carried to it from the start.
    With ``rows`` all nodes wait, for their children and for rows with others: of two chains that
    rows join, the one with fewer means a period then keeps pace with the other.

    Args:
        depth, nodes: of :func:`_depths`.
        edges: parent and child of each, and how many steps it counts.
        rows: row and node of all that rows read, sorted by row.
    """
    never, (parent, child, later) = np.iinfo(np.int64).max, edges
    latest, waits = np.full(len(depth), never), np.ones(len(depth), bool)
    if rows is None:
        waits[child] = False
    else:
        row, read = rows
        last = np.full(int(row.max(initial=-1)) + 1, -1)
        np.maximum.at(last, row, depth[read])
        shared = np.bincount(row, minlength=len(last)) > 1
        np.minimum.at(latest, read[shared[row]], last[row[shared[row]]])
    order = np.argsort(parent, kind="stable")
    bounds = np.searchsorted(parent[order], np.arange(len(depth) + 1)).tolist()
    targets, lengths = child[order].tolist(), later[order].tolist()
    result = np.where(waits, latest, depth).tolist()
    for n in reversed(nodes):
        if waits[n]:
            for k in range(bounds[n], bounds[n + 1]):
                result[n] = min(result[n], result[targets[k]] - lengths[k])
        if result[n] == never:
            result[n] = int(depth[n])
    return np.array(result, np.int64)


def _spread(depth: np.ndarray, row: np.ndarray, read: np.ndarray) -> int:
    """Most steps between two columns that one row reads."""
    ends = np.zeros((2, int(row.max(initial=-1)) + 1), np.int64)
    ends[1] = np.iinfo(np.int64).max
    np.maximum.at(ends[0], row, depth[read])
    np.minimum.at(ends[1], row, depth[read])
    return int((ends[0] - ends[1]).max(initial=0))


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
        # Aligned at the end: what a first step has besides (initial values) mostly comes first.
        count = np.diff(np.r_[starts, len(key)])[np.cumsum(new) - 1]
        at = (place + d - count)[inside]
        batch[step[inside], local[chain[inside]], at] = columns[inside]
        batches.append(batch)
    return batches


def noise_of(members: Sequence[Member]) -> np.ndarray:
    """[columns + 1, 3] (member, block, component), member -1 where there is no noise."""
    where = np.full((sum(m.blocks * m.size for m in members) + 1, 3), -1)
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
    before, same = inside & (lag > 0), inside & (lag == 0)
    target = np.ravel_multi_index(
        (here[before, 0], here[before, 1], lag[before] - 1, here[before, 2], there[before, 2]),
        (t, b, order, d, d),
    )
    transition = entries(target, known[before], slot[before])
    pairs = (here[same, 0], here[same, 1], here[same, 2], there[same, 2])
    target = np.asarray(np.ravel_multi_index(pairs, (t, b, d, d)))
    within = entries(target, known[same], slot[same])
    outside = _outside(members, here[~inside, 1], column[~inside], b, total)
    entered = local(outside, here[~inside, 1], column[~inside])
    target = np.ravel_multi_index(
        (here[~inside, 0], here[~inside, 1], here[~inside, 2], entered),
        (t, b, d, outside.shape[1] + 1),
    )
    entry = entries(target, known[~inside], slot[~inside])
    none = np.array([-1, -1, -1])
    prior = np.where(used[..., None], where[np.maximum(columns, 0)], none)
    out_prior = np.where((outside >= 0)[..., None], where[np.maximum(outside, 0)], none)
    return Recurrence(columns, order, outside, prior, out_prior, transition, entry, within)


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


def local(later: np.ndarray, chain: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Place of each column among the columns [B, R] of its chain, from 1; 0 is the constant."""
    stride = int(max(later.max(initial=0), column.max(initial=0))) + 1
    b, k = np.nonzero(later >= 0)
    keys = b * stride + later[b, k]
    order = np.argsort(keys)
    wanted = chain * stride + column
    at = np.minimum(np.searchsorted(keys[order], wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.zeros(len(column), np.int64)
    return np.where(keys[order][at] == wanted, k[order][at] + 1, 0)


def entries(target: np.ndarray, known: np.ndarray, slot: np.ndarray) -> Entries:
    """Summands known · ω[slot] at their places ``target``."""
    order = np.argsort(target, kind="stable")
    return Entries(target[order], known[order].astype(np.float64), slot[order].astype(np.int64))


__all__ = [
    "Dynamics",
    "Entries",
    "Recurrence",
    "entries",
    "find_recurrences",
    "local",
    "noise_of",
    "padded",
    "places_of",
    "prior_scales",
]
