"""Reading known places of a vector that is kept in pieces.

Which places is known when a program is planned, so that most reads are no gathers: a run of places
is a slice, and one whose axes are exchanged a transposition. A gather costs little, but its
derivative is a scatter, and that of many reads of one long vector is that vector over and over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_FEW = 0.25  # share of places read up to which they are put among zeros


def gather(x: Float[Array, "size"], index: Int[np.ndarray, "*places"]) -> Float[Array, "*places"]:
    """``x[index]`` with 0 where the index is -1."""
    run = _run(index)
    if run is not None:
        sizes = (run.first, index.size, len(x) - run.first - index.size)
        part = jax.lax.split(x, sizes)[1]  # backwards no slow padding
        part = part.reshape([run.shape[axis] for axis in run.axes])
        return jnp.transpose(part, np.argsort(run.axes).tolist()).reshape(index.shape)
    if (index >= 0).all():
        return x[index]
    if _few(index):
        used = np.flatnonzero(index >= 0)
        return _put(x[index.reshape(-1)[used]], used, index.shape)
    # Out of bounds: zero forwards, and dropped backwards, where adding zeros takes time.
    outside = np.where(index >= 0, index, len(x))
    return x.at[outside].get(mode="fill", fill_value=0)


def gather_pieces(
    pieces: Sequence[Float[Array, "..."]], index: Int[np.ndarray, "*places"]
) -> Float[Array, "*places"]:
    """The same of pieces that lie end to end, each read by itself where they do not mix."""
    ends = np.cumsum([len(piece) for piece in pieces])
    piece = np.where(index >= 0, np.searchsorted(ends, index, side="right"), -1)
    used = np.unique(piece[piece >= 0])
    if not len(used):
        return jnp.zeros(index.shape, pieces[0].dtype)
    starts = ends - [len(piece) for piece in pieces]
    if len(used) == 1:
        return gather(pieces[used[0]], np.where(index >= 0, index - starts[used[0]], -1))
    for axis in range(index.ndim):
        cuts = _cuts(np.moveaxis(piece, axis, 0).reshape(index.shape[axis], -1))
        if cuts is not None and len(cuts) < 2 * len(used):
            parts = np.split(index, cuts, axis)
            return jnp.concatenate([gather_pieces(pieces, part) for part in parts], axis)
    if _few(index):
        by_piece = np.argsort(piece, axis=None, kind="stable")
        at = by_piece[np.count_nonzero(piece < 0) :]
        return _put(gather_pieces(pieces, index.reshape(-1)[at]), at, index.shape)
    shift = np.zeros(len(pieces), np.int64)
    shift[used] = starts[used] - np.cumsum([0, *(len(pieces[k]) for k in used[:-1])])
    together = jnp.concatenate([pieces[k] for k in used])
    return gather(together, np.where(index >= 0, index - shift[piece], -1))


class _Run(NamedTuple):
    """Places from ``first`` on, read as ``shape`` with its ``axes`` in order, slowest first."""

    first: int
    shape: list[int]
    axes: list[int]


def _run(index: np.ndarray) -> _Run | None:
    """An index that is one run of places, its axes (or halves of them) exchanged."""
    if not index.size or index.flat[0] < 0:
        return None
    first, grid = int(index.flat[0]), np.zeros(1, np.int64)
    shape, strides = [], []
    for axis, size in enumerate(index.shape):
        along = np.moveaxis(index, axis, 0).reshape(size, -1)[:, 0]
        for count, stride in _digits(along):
            shape.append(count)
            strides.append(stride)
            grid = (grid[:, None] + stride * np.arange(count)).reshape(-1)
    axes = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    expected = 1
    for axis in reversed(axes):
        if strides[axis] != expected:
            return None
        expected *= shape[axis]
    same = np.array_equal(index.reshape(-1), first + grid)
    return _Run(first, shape, axes) if same else None


def _digits(along: np.ndarray) -> list[tuple[int, int]]:
    """Counts and strides of one axis: one, or two where a step of another size comes in.

    None where there is no step, and where they do not come out even: places then are not all met.
    """
    steps = np.diff(along)
    if not len(steps):
        return []
    other = np.flatnonzero(steps != steps[0])
    inner = int(other[0]) + 1 if len(other) else len(along)
    if len(along) % inner:
        return []
    outer = [(len(along) // inner, int(along[inner] - along[0]))] if len(other) else []
    return [*outer, (inner, int(steps[0]))]


def _cuts(piece: np.ndarray) -> np.ndarray | None:
    """Where to cut rows [n, ...] so that each part reads one piece; None where a row reads two."""
    high = piece.max(axis=1)
    low = np.where(piece < 0, high[:, None], piece).min(axis=1)
    if (low != high).any():
        return None
    # Rows of zeros go with those before them.
    known = np.maximum.accumulate(np.where(high >= 0, np.arange(len(high)), 0))
    return np.flatnonzero(np.diff(high[known])) + 1


def _few(index: np.ndarray) -> bool:
    return bool((index >= 0).mean() < _FEW)


def _put(
    values: Float[Array, "n"], at: Int[np.ndarray, "n"], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Values among zeros."""
    zeros = jnp.zeros(int(np.prod(shape)), values.dtype)
    return zeros.at[at].set(values, unique_indices=True).reshape(shape)
