"""The search for chains among the columns of members whose means read each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from autmarg.errors import InternalError
from autmarg.gaussian.affine import Member, Rows
from autmarg.gaussian.chains.places import steps_of
from autmarg.gaussian.chains.recurrence import Recurrence, entries, local, noise_of
from autmarg.gaussian.ragged import padded, ranks

if TYPE_CHECKING:
    from jaxtyping import Int

_NEAR = 8  # steps that a row may join without any reason to look for closer ones


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
        row, column, _, _ = means[m].coefficients
        inside = node[column] >= 0
        pairs.append(np.stack([node[column[inside]], own[row[inside]]]))
    parent, child = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return parent, child


def _joined(rows: Sequence[Rows], node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and node of all that rows read, or blocks of rows, numbered through all sites."""
    at, read, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for each in rows:
        row, column, _, _ = each.coefficients
        inside = node[column] >= 0
        at.append(first + row[inside] // each.block)
        read.append(node[column[inside]])
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


def _spread(
    depth: Int[np.ndarray, "nodes"], row: Int[np.ndarray, "n"], read: Int[np.ndarray, "n"]
) -> int:
    """Most steps between two columns that one row reads."""
    ends = np.zeros((2, int(row.max(initial=-1)) + 1), np.int64)
    ends[1] = np.iinfo(np.int64).max
    np.maximum.at(ends[0], row, depth[read])
    np.minimum.at(ends[1], row, depth[read])
    return int((ends[0] - ends[1]).max(initial=0))


def _labels(
    parent: Int[np.ndarray, "edges"], child: Int[np.ndarray, "edges"], count: int
) -> Int[np.ndarray, "nodes"]:
    graph = coo_array((np.ones(len(parent), bool), (parent, child)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _batches(
    node: Int[np.ndarray, "columns+1"],
    depth: Int[np.ndarray, "nodes"],
    label: Int[np.ndarray, "nodes"],
) -> list[Int[np.ndarray, "T B d"]]:
    """[T, B, d] columns: the connected chains, those of equal length and width together."""
    columns = np.flatnonzero(node >= 0)
    step, chain = depth[node[columns]], label[node[columns]]
    order = np.lexsort((columns, step, chain))
    columns, step, chain = columns[order], step[order], chain[order]
    key = chain * (int(step.max(initial=0)) + 1) + step
    new = np.r_[True, key[1:] != key[:-1]][: len(key)]
    starts = np.flatnonzero(new)
    size = np.diff(np.r_[starts, len(key)])
    place = ranks(size)
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
        count = size[np.cumsum(new) - 1]
        at = (place + d - count)[inside]
        batch[step[inside], local[chain[inside]], at] = columns[inside]
        batches.append(batch)
    return batches


def _recurrence(
    columns: Int[np.ndarray, "T B d"],
    members: Sequence[Member],
    means: Sequence[Rows],
    implicit: Sequence[int],
    where: Int[np.ndarray, "columns+1 3"],
    total: int,
) -> Recurrence:
    """The recurrence of chains with the columns [T, B, d]."""
    t, b, d = columns.shape
    place, used = steps_of(columns, total + 1), columns >= 0
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


def _summands(
    member: Member, mean: Rows, place: Int[np.ndarray, "columns+1 3"]
) -> tuple[np.ndarray, ...]:
    """Child column, read column, known factor and slot of a mean's non-zero summands."""
    own = member.columns.reshape(-1)
    row, column, known, slot = mean.coefficients
    here = place[own[row], 0] >= 0
    return own[row[here]], column[here], known[here], slot[here]


def _outside(
    members: Sequence[Member],
    chain: Int[np.ndarray, "n"],
    column: Int[np.ndarray, "n"],
    b: int,
    total: int,
) -> Int[np.ndarray, "B R"]:
    """[B, R] columns that enter each chain, whole prior blocks, -1 padded."""
    block_of = np.zeros((total + 1, 2), np.int64)
    for m in members:
        block_of[m.columns] = np.stack(np.broadcast_arrays(m.columns[:, :1], m.size), axis=-1)
    real = column < total
    pairs = np.unique(np.stack([chain[real], block_of[column[real], 0]], axis=1), axis=0)
    sizes = block_of[pairs[:, 1], 1]
    chain = np.repeat(pairs[:, 0], sizes)
    return padded(chain, np.repeat(pairs[:, 1], sizes) + ranks(sizes), b)
