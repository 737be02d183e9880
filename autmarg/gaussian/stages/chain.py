"""Chains: state-space recurrences, eliminated step by step as by a Kalman filter.

A chain's columns are its states v_t themselves, its density is over the innovations z_t (see
:mod:`autmarg.gaussian.chains.recurrence`). A state s_t holds v_t and those columns of earlier steps
that are read once more, by a mean or by a row. The form

    zᵀz + Σ_t (s_tᵀ H_t s_t - 2 s_tᵀ B_t w) + (later columns),    w = (1, z of later columns),

is minimised over z_1, z_2, … in turn. With predicted mean μ_t w and covariance P_t,

    E_t = B_t - H_t μ_t,   K_t = (I + P_t H_t)⁻¹,   log|G| += log|I + P_t H_t|,
    μ_t⁺ = μ_t + K_t P_t E_t,   P_t⁺ = K_t P_t,   μ_{t+1} = A μ_t⁺ + M,   P_{t+1} = A P_t⁺ Aᵀ + QQᵀ,

and the later columns' form gains -Σ_t (μᵀE + Bᵀμ + EᵀKPE). Rows that are few in each step are
filtered one by one instead (:mod:`autmarg.gaussian.chains.filtering`): the form then gains their
ω e²/S, and the minimum over z_1, z_2, … is a sum of squares without z. No covariance is inverted,
so that any scale may be zero (a precision form would lose its digits there). The conditional mean
is z_t = Q_tᵀλ_t with the adjoint λ_t = (I + H_t P_t)⁻¹(E_t w + A_{t+1}ᵀ λ_{t+1}) (de Jong 1989,
J. Am. Stat. Assoc. 84).

Draws use square roots (:mod:`autmarg.gaussian.chains.square_root`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.affine import Member, Rows
from autmarg.gaussian.chains.filtering import (
    Moves,
    Observations,
    Steps,
    filter_rows,
    kalman_filter,
    recursion,
)
from autmarg.gaussian.chains.places import entry_places, information_places
from autmarg.gaussian.chains.recurrence import Dynamics, Recurrence, noise_of
from autmarg.gaussian.chains.rows_in_time import RowsInTime, noisy, rows_in_time
from autmarg.gaussian.chains.square_root import Roots, SquareRoot, by_information, by_rows
from autmarg.gaussian.chains.width import Width
from autmarg.gaussian.pattern import Pattern, positions
from autmarg.gaussian.pieces import gather
from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.cost import Cost, filter_counts, filter_work

if TYPE_CHECKING:
    from jaxtyping import Float, Int

einsum = jnp.einsum
_EXACT: Any = {"precision": "highest"}


class Factor(NamedTuple):
    """A_t, Q_t, P_t, H_t, and E_t of later columns, over states [T, B, D, ·].

    Where rows are filtered one by one, ``seen`` is what they read and their errors at the predicted
    means, and P, H and E are none. ``roots`` are those of the square-root filter, for draws.
    """

    step: Float[Array, "T B D D"]
    noise: Float[Array, "T B D d"]
    covariance: Float[Array, "T B D D"] | None
    information: Float[Array, "T B D D"] | None
    innovation: Float[Array, "T B D R"] | None
    seen: Seen | None = None
    roots: Roots | None = None


class Seen(NamedTuple):
    """√ω a [T, B, n, D] and √ω (aᵀμ + b) [T, B, n, R] of rows at predicted means, over later
    columns; e [T, B, n, R] and ω/S [T, B, n] of the filter."""

    read: Float[Array, "T B n D"]
    ahead: Float[Array, "T B n R"]
    error: Float[Array, "T B n R"]
    weight: Float[Array, "T B n"]


class Own(NamedTuple):
    """The same where later columns are zero: E_t [T, B, D], or √ω (aᵀμ + b) and e [T, B, n]."""

    innovation: Float[Array, "T B D"] | None
    ahead: Float[Array, "T B n"] | None = None
    error: Float[Array, "T B n"] | None = None


# e where later columns are zero, e of these, and ω/S.
Errors: TypeAlias = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Chain(Stage[Factor, Own]):
    """The stage that eliminates one recurrence.

    Attributes:
        recurrence: its chains; ``number`` is its place among the form's recurrences.
        columns: [T, B, d] of its states, -1 padded.
        lag, place: [D] the columns of a state, v_{t-lag}[place], lag by lag.
        later: [B, R] later columns that each chain meets or is entered by, -1 padded.
        information: [T, B, D, D] positions of H_t in the form's values.
        meeting: [T, B, d, R] positions of the meetings with later columns.
        entry: [B, R+1] which of the recurrence's outside columns each later column is.
        carried: positions of the next form's values in this one's; pairs of ``later`` places
            ``left``, ``right`` and the ``target`` of their product in the next form.
    """

    recurrence: Recurrence
    number: int
    columns: Int[np.ndarray, "T B d"]
    lag: Int[np.ndarray, "D"]
    place: Int[np.ndarray, "D"]
    later: Int[np.ndarray, "B R"]
    information: Int[np.ndarray, "T B D D"]
    meeting: Int[np.ndarray, "T B d R"]
    entry: Int[np.ndarray, "B R+1"]
    carried: Int[np.ndarray, "entries"]
    pairs: tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]
    target: Int[np.ndarray, "P"]
    rows: RowsInTime | None = None
    name: str = "chain"

    @property
    def size(self) -> int:
        return int((self.columns >= 0).sum())

    @property
    def state(self) -> int:
        """D, the elements of a state."""
        return len(self.lag)

    @property
    def cost(self) -> Cost:
        """A filter over the steps; three times the work in blocks of steps side by side."""
        steps, chains = self.recurrence.steps, self.recurrence.chains
        sizes = {"T": steps, "M": chains, "d": self.state, "D": self.later.shape[1]}
        text = (
            f"{chains} chain{'' if chains == 1 else 's'} of {steps} steps, states of {self.state}"
        )
        if self.rows is not None:
            sizes["n"] = self.rows.size[2]
        if (blocks := self.recurrence.blocks) > 1:
            text = f"{text}, {blocks} blocks of steps side by side"
        work = partial(filter_work, blocks=blocks)
        return Cost(text, work, sizes, filter_counts(**sizes, blocks=blocks))

    @property
    def fresh(self) -> Int[np.ndarray, "now"]:
        """Places of v_t that a state holds, its first elements."""
        return self.place[self.lag == 0]

    @classmethod
    def plan(
        cls,
        pattern: Pattern,
        recurrence: Recurrence,
        number: int,
        width: Width,
        members: Sequence[Member] = (),
        rows: Sequence[Rows] = (),
    ) -> tuple[Chain, Pattern]:
        """The stage, and the pattern it leaves.

        Args:
            pattern: of the form's values, which are without ``rows``.
            recurrence, number: a recurrence and its place among the form's.
            width: what :meth:`Width.of` says of it.
            members, rows: the form's members, and its rows that are filtered one by one.
        """
        later, lag, place = width.later, width.lag, width.place
        information = information_places(pattern, recurrence.columns, lag, place)
        meeting = positions(pattern, recurrence.columns[..., None], later[None, :, None, :])
        entry = entry_places(recurrence.outside, later)
        left, right = width.pairs()
        nxt, target = width.filled(pattern, recurrence, left, right)
        at = np.flatnonzero((later >= 0).reshape(-1))
        order = np.argsort(target, kind="stable")
        carried = pattern.lookup(nxt.first, nxt.second)
        prior = noise_of(members)[later]
        prior[later < 0] = -1
        seen = rows_in_time(rows, recurrence, lag, place, later, prior) if rows else None
        if seen is not None and not noisy(seen, recurrence, lag):
            recurrence = replace(recurrence, blocks=1)
        stage = cls(
            recurrence, number, recurrence.columns, lag, place, later, information, meeting,
            entry, carried, (at[left[order]], at[right[order]]), target[order], seen,
        )  # fmt: skip
        return stage, nxt

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, Own, QuadraticForm]:
        """Integrate the chains out: their factor, and the form over the later columns.

        One pass in time has both what G and what h leaves.
        """
        a, m, q = self._states(form.dynamics[self.number])
        if self.rows is not None:
            return self._by_rows(form, a, m, q)
        information = form.read(self.information)
        linear = self._linear(form)

        steps = Steps(*(_last(x) for x in (a, m, q, information, linear)))
        found = kalman_filter(steps, self.recurrence.blocks)
        mean, cov, innovation, gained, logs = (_first(x) for x in found)
        change = (
            einsum("tbir,tbis->brs", mean, innovation, **_EXACT)
            + einsum("tbir,tbis->brs", linear, mean, **_EXACT)
            + einsum("tbir,tbis->brs", innovation, gained, **_EXACT)
        )
        factor = Factor(a, q, cov, information, innovation[..., 1:])
        smaller = self._smaller(form, change)._replace(log_det=form.log_det + logs.sum())
        smaller = smaller._replace(error=form.error + _lost(cov, information))
        products = jnp.stack([mean * innovation, linear * mean, innovation * gained])
        smaller = self._grown(smaller, jnp.abs(products).sum(axis=(0, 1, 3)))
        return factor, Own(innovation[..., 0]), smaller

    def _by_rows(
        self,
        form: QuadraticForm,
        a: Float[Array, "T B D D"],
        m: Float[Array, "T B D R+1"],
        q: Float[Array, "T B D d"],
    ) -> tuple[Factor, Own, QuadraticForm]:
        """The same where rows are filtered one by one."""
        assert self.rows is not None and form.point is not None
        rows = self.rows(form.point, self.state)
        steps = Moves(_last(a), _last(m), _last(q))
        last = Observations(*(_last(x) for x in rows))
        found = filter_rows(steps, last, self.recurrence.blocks)
        mean, error, weight, logs, lost = (_first(x) for x in found)
        change = -einsum("tbn,tbnr,tbns->brs", weight, error, error, **_EXACT)
        root = jnp.sqrt(rows.weight)[..., None]
        ahead = root * (einsum("tbnd,tbdr->tbnr", rows.read, mean, **_EXACT) + rows.offset)
        seen = Seen(rows.read * root, ahead[..., 1:], error[..., 1:], weight)
        factor = Factor(a, q, None, None, None, seen)
        smaller = self._smaller(form, change)._replace(log_det=form.log_det + logs.sum())
        smaller = smaller._replace(filtered=form.filtered + lost.sum())
        smaller = self._grown(smaller, -jnp.diagonal(change, axis1=1, axis2=2))
        return factor, Own(None, ahead[..., 0], error[..., 0]), smaller

    def errors(self, factor: Factor, own: Own) -> Errors:
        """e of rows that are filtered one by one, where later columns are zero [T, B, n] and of
        these [T, B, n, R]; and ω/S."""
        assert factor.seen is not None and own.error is not None
        return own.error, factor.seen.error, factor.seen.weight

    def squares(self, errors: Errors, z: Float[Array, "columns"]) -> Float[Array, ""]:
        """Minimum over these chains of their rows' sum of squares, given z of later columns."""
        own, error, weight = errors
        return (weight * self._given(own, error, z) ** 2).sum()

    def _states(
        self, dynamics: Dynamics
    ) -> tuple[Float[Array, "T B D D"], Float[Array, "T B D R+1"], Float[Array, "T B D d"]]:
        """A [T, B, D, D], M [T, B, D, R+1] and Q [T, B, D, d] over states."""
        a, m, q, _ = dynamics.solved()
        step = self.recurrence.companion(a, self.lag, self.place)
        padding = ((0, 0), (0, 0), (0, self.state - len(self.fresh)), (0, 0))
        m, q = m[:, :, self.fresh], q[:, :, self.fresh]
        m = jnp.concatenate([m, jnp.zeros((*m.shape[:3], 1), m.dtype)], axis=-1)
        entry = jnp.take_along_axis(m, jnp.asarray(self.entry)[None, :, None, :], axis=-1)
        return step, jnp.pad(entry, padding), jnp.pad(q, padding)

    def _linear(self, form: QuadraticForm) -> Float[Array, "T B D R+1"]:
        """B_t [T, B, D, R+1]: h, and minus the meetings with later columns, at lag zero."""
        own = gather(form.h, self.columns[..., self.fresh])
        meetings = form.read(self.meeting[:, :, self.fresh])
        linear = jnp.concatenate([own[..., None], -meetings], axis=-1)
        rest = self.state - len(self.fresh)
        return jnp.pad(linear, ((0, 0), (0, 0), (0, rest), (0, 0)))

    def _smaller(self, form: QuadraticForm, change: Float[Array, "B R+1 R+1"]) -> QuadraticForm:
        """The form over the later columns, to which ``change`` is added."""
        remaining, h = form.read(self.carried), form.h
        if self.later.size:
            left, right = self.pairs
            r = self.later.shape[1]
            square = change[:, 1:, 1:]
            square = (square + jnp.swapaxes(square, 1, 2)) / 2
            update = square.reshape(-1)[(left // r) * r * r + (left % r) * r + right % r]
            remaining = remaining - jax.ops.segment_sum(
                update, self.target, num_segments=len(self.carried), indices_are_sorted=True
            )
            used = self.later >= 0
            both = (change[:, 0, 1:] + change[:, 1:, 0]) / 2
            h = h.at[self.later[used]].add(both[used])
        return form._replace(values=(remaining,), h=h)

    def _grown(self, form: QuadraticForm, added: Float[Array, "B R+1"]) -> QuadraticForm:
        """The form with what the chains added to later columns in its diagonal.

        Pivots of these columns are what is left of it (:func:`~autmarg.gaussian.quadratic.lost`).
        """
        used = self.later >= 0
        more = jax.lax.stop_gradient(added)[:, 1:][used]
        return form._replace(diagonal=form.diagonal.at[self.later[used]].add(more))

    def _given(
        self, own: Float[Array, "T B i"], other: Float[Array, "T B i R"], z: Float[Array, "columns"]
    ) -> Float[Array, "T B i"]:
        """``own`` [T, B, ·] and what ``other`` [T, B, ·, R] makes of the later columns."""
        return own + einsum("tbir,br->tbi", other, gather(z, self.later), **_EXACT)

    def mean(self, factor: Factor, own: Own, z: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """z with this stage's innovations at their conditional mean given the later columns.

        They stay zero where rows are filtered one by one: the minimum is known without them.
        """
        if factor.seen is not None:
            return z
        assert factor.covariance is not None and factor.information is not None
        assert factor.innovation is not None and own.innovation is not None
        force = self._given(own.innovation, factor.innovation, z)
        joint = jnp.matmul(factor.information, factor.covariance, **_EXACT)  # (P H)ᵀ
        following = jnp.concatenate([factor.step[1:], jnp.zeros_like(factor.step[:1])])

        def backward(at: tuple[Array, Array], adjoint: Array, force: Array) -> Array:
            joint, following = at
            ratio = joint + jnp.eye(self.state, dtype=joint.dtype)[..., None]
            return small.solve(ratio, force + small.product(following, adjoint))[0]

        inputs = jnp.moveaxis(joint, 1, -1), jnp.moveaxis(jnp.swapaxes(following, 2, 3), 1, -1)
        blocks = self.recurrence.blocks
        adjoint = recursion(backward, inputs, jnp.moveaxis(force, 1, -1), blocks, reverse=True)
        adjoint = jnp.moveaxis(adjoint, -1, 1)
        innovations = einsum("tbij,tbi->tbj", factor.noise, adjoint, **_EXACT)
        return self._put(z, innovations)

    def back(
        self, factor: Factor, own: Own, z: Float[Array, "columns"], noise: Float[Array, "columns"]
    ) -> Float[Array, "columns"]:
        """z with this stage's innovations drawn from noise, given the later columns."""
        assert factor.roots is not None
        if factor.seen is None:
            assert factor.innovation is not None and own.innovation is not None
            force = self._given(own.innovation, factor.innovation, z)
        else:
            assert own.ahead is not None
            force = self._given(own.ahead, factor.seen.ahead, z)
        xi = _last(gather(noise, self.columns))
        return self._put(z, _first(self._square_root.draw(factor.roots, _last(force), xi)))

    def rooted(self, factor: Factor) -> Factor:
        """The factor with the square-root filter."""
        if factor.seen is None:
            assert factor.information is not None
            data, update, forces = factor.information, by_information, self.state
        else:
            data, update = factor.seen.read, by_rows
            forces = data.shape[2]
        step, noise = _last(factor.step), _last(factor.noise)
        roots = self._square_root.filter(step, noise, _last(data), update, forces)
        return factor._replace(roots=roots)

    @property
    def _square_root(self) -> SquareRoot:
        return SquareRoot(self.recurrence, self.lag, self.place)

    def _put(
        self, z: Float[Array, "columns"], own: Float[Array, "T B d"]
    ) -> Float[Array, "columns"]:
        used = self.columns >= 0
        return z.at[self.columns[used]].set(own[used], unique_indices=True)


def _lost(
    covariance: Float[Array, "T B D D"], information: Float[Array, "T B D D"]
) -> Float[Array, ""]:
    """A bound on the rounding error of Σ log|I + P_t H_t|, whose pivots are one or more.

    H is a sum of cross-products, of which a direction that it does not have is left as ε H.
    """
    covariance, information = jax.lax.stop_gradient((covariance, information))
    if covariance.shape[-1] == 1:
        return jnp.zeros((), covariance.dtype)  # one direction: nothing is subtracted
    size = einsum("tbii,tbii->", covariance, information)
    return 2 * jnp.finfo(size.dtype).eps * size


def _last(x: Float[Array, "T N *rest"]) -> Float[Array, "T *rest N"]:
    """[T, …, N] from [T, N, …]."""
    return jnp.moveaxis(x, 1, -1)


def _first(x: Float[Array, "T *rest N"]) -> Float[Array, "T N *rest"]:
    return jnp.moveaxis(x, -1, 1)
