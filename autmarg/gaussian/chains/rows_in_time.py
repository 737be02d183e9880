"""Rows that a chain's filter takes one by one, by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.affine import Point, Rows
from autmarg.gaussian.chains.filtering import Observations
from autmarg.gaussian.chains.places import steps_of
from autmarg.gaussian.chains.recurrence import Entries, Recurrence, entries, local, prior_scales
from autmarg.gaussian.ragged import ranks

if TYPE_CHECKING:
    from jaxtyping import Int

_EXACT: Any = {"precision": "highest"}


@dataclass(frozen=True, eq=False)
class RowsInTime:
    """Rows of a chain by step: Σ known · ω[slot] adds up what they read, ``size`` [T, B, n].

    ``read`` and ``offset`` have their places in [T, B, n, D] and [T, B, n, R+1]; ``prior``
    [B, R, 3] is (member, block, component) of the later columns.
    """

    size: tuple[int, int, int]
    read: Entries
    offset: Entries
    weight: Int[np.ndarray, "T B n"]
    prior: Int[np.ndarray, "B R 3"]

    def __call__(self, point: Point, state: int) -> Observations:
        """a, b over scaled later columns, and ω at a point, [T, B, n, ·]."""
        omega, later = point.omega, self.prior.shape[1]
        read = self.read(omega, (*self.size, state))
        offset = self.offset(omega, (*self.size, later + 1))
        if later:
            scale = prior_scales(self.prior, point.priors, omega.dtype)
            rest = jnp.einsum("tbnr,brs->tbns", offset[..., 1:], scale, **_EXACT)
            offset = jnp.concatenate([offset[..., :1], rest], axis=-1)
        return Observations(read, offset, omega[self.weight])


def rows_in_time(
    rows: Sequence[Rows],
    recurrence: Recurrence,
    lag: Int[np.ndarray, "D"],
    place: Int[np.ndarray, "D"],
    later: Int[np.ndarray, "B R"],
    prior: Int[np.ndarray, "B R 3"],
) -> RowsInTime:
    """The rows of a recurrence by step: each at the last step of what it reads."""
    (t, b, d), total = (
        recurrence.columns.shape,
        int(max(recurrence.columns.max(), later.max(initial=0))),
    )
    where = steps_of(recurrence.columns, total + 2)
    parts, weights, first = [], [], 0
    for each in rows:
        own = each.coefficients
        parts.append(own._replace(row=first + own.row))
        assert each.precision is not None
        weights.append(np.broadcast_to(each.precision, each.n))
        first += each.n
    row, column, known, slot = (np.concatenate(x) for x in zip(*parts, strict=True))
    found = where[np.minimum(column, total + 1)]
    state = found[:, 0] >= 0
    step, chain = np.full(first, -1), np.full(first, -1)
    np.maximum.at(step, row[state], found[state, 0])
    chain[row[state]] = found[state, 1]
    # Rows of one step and chain are numbered, in their order.
    key = step * b + chain
    order = np.argsort(key, kind="stable")
    rank = np.empty(first, int)
    rank[order] = ranks(np.unique(key, return_counts=True)[1])
    n = int(rank.max(initial=0)) + 1
    index = np.full((int(lag.max(initial=0)) + 1, d), -1)
    index[lag, place] = np.arange(len(lag))
    at = np.ravel_multi_index((step, chain, rank), (t, b, n))
    own = row[state]
    element = index[step[own] - found[state, 0], found[state, 2]]
    read = entries(at[own] * len(lag) + element, known[state], slot[state])
    rest = row[~state]
    entered = local(later, chain[rest], column[~state])
    target = at[rest] * (later.shape[1] + 1) + entered
    offset = entries(target, known[~state], slot[~state])
    weight = np.zeros((t, b, n), np.int64)
    weight.reshape(-1)[at] = np.concatenate(weights)
    return RowsInTime((t, b, n), read, offset, weight, prior)


def noisy(rows: RowsInTime, recurrence: Recurrence, lag: Int[np.ndarray, "D"]) -> bool:
    """Whether every row reads noise of its own step.

    Blocks of steps begin from a known state. A row without noise besides that of its observation
    would tell all there is of it, and digits of what others tell would be lost.
    """
    t, b, n = rows.size
    at, element = np.divmod(rows.read.target, len(lag))
    step, chain = np.unravel_index(at // n, (t, b))
    fresh = recurrence.noisy(step, chain, np.minimum(element, recurrence.width - 1))
    heard = np.zeros(t * b * n, bool)
    heard[at[(lag[element] == 0) & fresh]] = True
    return bool(heard[np.unique(at)].all())
