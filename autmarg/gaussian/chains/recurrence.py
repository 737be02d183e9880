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
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from autmarg.gaussian.affine import Member
from autmarg.gaussian.chains.filtering import recursion
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.small import product

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_RAGGED = 12  # first steps of other columns, up to which draws take them one by one


class Dynamics(NamedTuple):
    """A recurrence at a point: ``transition`` A [T, B, p, d, d], ``entry`` M [T, B, d, R+1] with
    the constant first, ``noise`` Q [T, B, d, d], and ``within`` A_t0 [T, B, d, d] (None for 0)."""

    transition: Float[Array, "T B p d d"]
    entry: Float[Array, "T B d R+1"]
    noise: Float[Array, "T B d d"]
    within: Float[Array, "T B d d"] | None = None

    def solved(self) -> Dynamics:
        """The same, with what a column reads of its own step substituted: A_t0 A_t0 is zero."""
        if self.within is None:
            return self

        def add(x: Array, letters: str) -> Array:
            return x + jnp.einsum(f"tbij,{letters}", self.within, x, precision="highest")

        transition = add(self.transition, "tbkjm->tbkim")
        return Dynamics(transition, add(self.entry, "tbjr->tbir"), add(self.noise, "tbjr->tbir"))


@dataclass(frozen=True, eq=False)
class Entries:
    """Σ known · ω[slot] added up into places of an array of some shape."""

    target: Int[np.ndarray, "n"]
    known: Float[np.ndarray, "n"]
    slot: Int[np.ndarray, "n"]

    def __call__(
        self, omega: Float[Array, "slots"] | Omega, shape: tuple[int, ...]
    ) -> Float[Array, "..."]:
        """The array, at the numbers ω."""
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
        blocks: of steps that go side by side (:mod:`autmarg.gaussian.chains.filtering`).
    """

    columns: Int[np.ndarray, "T B d"]
    order: int
    outside: Int[np.ndarray, "B R"]
    prior: Int[np.ndarray, "T B d 3"]
    outside_prior: Int[np.ndarray, "B R 3"]
    transition: Entries
    entry: Entries
    within: Entries
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
    def reads(self) -> Int[np.ndarray, "n 4"]:
        """[n, 4] (step, chain, lag, place) of the columns of earlier steps that means read."""
        shape = (self.steps, self.chains, self.order, self.width, self.width)
        t, b, lag, _, place = np.unravel_index(self.transition.target, shape)
        return np.unique(np.stack([t, b, lag + 1, place], axis=1), axis=0)

    def noisy(
        self, step: Int[np.ndarray, "n"], chain: Int[np.ndarray, "n"], place: Int[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "n"]:
        """Whether columns have noise of their step: their own, or that of a column they read."""
        own = self.prior[..., 0] >= 0
        shape = (*self.columns.shape, self.width)
        t, b, i, _ = np.unravel_index(self.within.target, shape)
        own[t, b, i] = True
        return own[step, chain, place]

    @property
    def idle(self) -> Int[np.ndarray, "idle"]:
        """Columns without noise of their own."""
        return self.columns[(self.columns >= 0) & (self.prior[..., 0] < 0)]

    def dynamics(
        self, omega: Float[Array, "slots"] | Omega, priors: tuple[Float[Array, "..."], ...]
    ) -> Dynamics:
        """A, M and Q at ω and the prior scales of all members."""
        t, b, d = self.columns.shape
        r = self.outside.shape[1]
        transition = self.transition(omega, (t, b, self.order, d, d))
        entry = self.entry(omega, (t, b, d, r + 1))
        if r:
            scale = prior_scales(self.outside_prior, priors, omega.dtype)
            rest = jnp.einsum("tbir,brs->tbis", entry[..., 1:], scale, precision="highest")
            entry = jnp.concatenate([entry[..., :1], rest], axis=-1)
        noise = prior_scales(self.prior, priors, omega.dtype)
        if (padding := self.columns < 0).any():
            # Independent stand-ins, which the rotations of draws keep apart (see the chain stage).
            noise = noise + jnp.asarray(padding[..., None] * np.eye(d), omega.dtype)
        within = None
        if len(self.within.target):
            within = self.within(omega, (t, b, d, d))
        return Dynamics(transition, entry, noise, within)

    def advance(
        self,
        dynamics: Dynamics,
        inputs: Float[Array, "T B d *rest"],
        given: tuple[Float[Array, "T B d *rest"], Bool[np.ndarray, "T B d"]] | None = None,
    ) -> Float[Array, "T B d *rest"]:
        """v [T, B, d, …] of v_t = Σ A_tk v_{t-k} + inputs_t; ``given`` (values, mask) overrides."""
        if self.blocks > 1 and given is None and inputs.ndim == 3:
            return self._advance_in_blocks(dynamics, inputs)
        transition, within = dynamics.transition, dynamics.within
        if within is None:
            within = jnp.zeros((self.steps, 1, self.width, 0), inputs.dtype)
        window = jnp.zeros((self.order, *inputs.shape[1:]), inputs.dtype)
        values, mask = given or (inputs, np.zeros(self.columns.shape, bool))

        def step(
            window: Array, at: tuple[Array, Array, Array, Array, Array | np.ndarray]
        ) -> tuple[Array, Array]:
            a, own, u, value, known = at
            new = u + jnp.einsum("bkij,kbj...->bi...", a, window, precision="highest")
            known = known.reshape(known.shape + (1,) * (new.ndim - known.ndim))
            new = jnp.where(known, value, new)
            if dynamics.within is not None:
                new = new + jnp.einsum("bij,bj...->bi...", own, new, precision="highest")
            return jnp.concatenate([new[None], window[:-1]]), new

        return jax.lax.scan(step, window, (transition, within, inputs, values, mask))[1]

    def companion(
        self,
        transition: Float[Array, "T B p d d"],
        lag: Int[np.ndarray, "D"],
        place: Int[np.ndarray, "D"],
    ) -> Float[Array, "T B D D"]:
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

    def _advance_in_blocks(
        self, dynamics: Dynamics, inputs: Float[Array, "T B d"]
    ) -> Float[Array, "T B d"]:
        """The same by blocks of steps side by side."""

        def move(step: Array, x: Array, force: Array) -> Array:
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

    def _window(self) -> tuple[Int[np.ndarray, "D"], Int[np.ndarray, "D"]]:
        """Lag and place of v_t and of all older columns that means read."""
        oldest = np.ones(self.width, int)
        np.maximum.at(oldest, self.reads[:, 3], self.reads[:, 2])
        return places_of(oldest)


def places_of(count: Int[np.ndarray, "d"]) -> tuple[Int[np.ndarray, "D"], Int[np.ndarray, "D"]]:
    """Lag and place of a state with the ``count`` [d] last columns at each place, lag by lag."""
    lag, place = np.nonzero(np.arange(int(count.max(initial=0)))[:, None] < count)
    return lag, place


def prior_scales(
    where: Int[np.ndarray, "*lead n 3"], priors: tuple[Float[Array, "..."], ...], dtype: DTypeLike
) -> Float[Array, "*lead n n"]:
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


def noise_of(members: Sequence[Member]) -> Int[np.ndarray, "columns+1 3"]:
    """[columns + 1, 3] (member, block, component), member -1 where there is no noise."""
    where = np.full((sum(m.blocks * m.size for m in members) + 1, 3), -1)
    for k, member in enumerate(members):
        if member.random:
            block, component = np.indices((member.blocks, member.size))
            where[member.columns] = np.stack([np.full_like(block, k), block, component], axis=-1)
    return where


def local(
    later: Int[np.ndarray, "B R"], chain: Int[np.ndarray, "n"], column: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
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


def entries(
    target: Int[np.ndarray, "n"], known: Float[np.ndarray, "n"], slot: Int[np.ndarray, "n"]
) -> Entries:
    """Summands known · ω[slot] at their places ``target``."""
    order = np.argsort(target, kind="stable")
    return Entries(target[order], known[order].astype(np.float64), slot[order].astype(np.int64))
