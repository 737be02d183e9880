"""Chains: state-space recurrences, eliminated step by step as by a Kalman filter.

A chain's columns are its states v_t themselves, its density is over the innovations z_t (see
:mod:`autmarg.gaussian.recurrence`). A state s_t holds v_t and those columns of earlier steps that
are read once more, by a mean or by a row. The form

    zᵀz + Σ_t (s_tᵀ H_t s_t - 2 s_tᵀ B_t w) + (later columns),    w = (1, z of later columns),

is minimised over z_1, z_2, … in turn. With predicted mean μ_t w and covariance P_t,

    E_t = B_t - H_t μ_t,   K_t = (I + P_t H_t)⁻¹,   log|G| += log|I + P_t H_t|,
    μ_t⁺ = μ_t + K_t P_t E_t,   P_t⁺ = K_t P_t,   μ_{t+1} = A μ_t⁺ + M,   P_{t+1} = A P_t⁺ Aᵀ + QQᵀ,

and the later columns' form gains -Σ_t (μᵀE + Bᵀμ + EᵀKPE). Rows that are few in each step are
filtered one by one instead (:mod:`autmarg.gaussian.filtering`): the form then gains their ω e²/S,
and the minimum over z_1, z_2, … is a sum of squares without z. No covariance is inverted, so that
any scale may be zero (a precision form would lose its digits there). The conditional mean is
z_t = Q_tᵀλ_t with the adjoint λ_t = (I + H_t P_t)⁻¹(E_t w + A_{t+1}ᵀ λ_{t+1}) (de Jong 1989,
J. Am. Stat. Assoc. 84).

Draws use square roots: with s_t = μ_t w + S_t ζ_t, P = S Sᵀ, I + SᵀHS = LLᵀ and noise ξ,
ζ_t = L⁻ᵀ(L⁻¹SᵀE w + η_t), and an orthogonal matrix U turns (z_{t+1}, η_t) into (ζ_{t+1}, ξ_t) where
[Q, A S L⁻ᵀ] = [S_{t+1}, 0] U. So noise becomes innovations by orthogonal maps and L⁻ᵀ alone, and
the density of a draw is that of its noise times Π|L_t|. In that order padding, which has noise of
its own and no reader, stands at the same place on both sides, and Householder's U keeps it apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian import small
from autmarg.gaussian.affine import Member, Point, Rows
from autmarg.gaussian.batched import eye_plus, solve_lower, solve_upper
from autmarg.gaussian.filtering import (
    ROWS,
    Observations,
    Steps,
    filter_rows,
    kalman_filter,
    recursion,
)
from autmarg.gaussian.pieces import gather
from autmarg.gaussian.quadratic import Pattern, QuadraticForm
from autmarg.gaussian.recurrence import (
    Dynamics,
    Entries,
    Recurrence,
    entries,
    local,
    noise_of,
    padded,
    places_of,
    prior_scales,
)
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.blocks import filled, pairs_of, positions
from autmarg.gaussian.stages.cost import Cost, Counts, symbols

einsum = jnp.einsum
_EXACT: Any = {"precision": "highest"}


class Factor(NamedTuple):
    """A_t, M_t, Q_t, P_t, H_t, B_t, E_t over states [T, B, D, ·], and Σ log|L_t|.

    Where rows are filtered one by one, ``seen`` is what they read and their errors at the predicted
    means, and P, H, B and E are none.
    """

    step: Any
    entry: Any
    noise: Any
    covariance: Any
    information: Any
    linear: Any
    innovation: Any
    log_det: Any
    seen: Seen | None = None


class Seen(NamedTuple):
    """√ω a [T, B, n, D] and √ω (aᵀμ + b) [T, B, n, R+1] of rows at predicted means; e and ω/S of
    the filter."""

    read: Any
    ahead: Any
    error: Any
    weight: Any


@dataclass(frozen=True, eq=False)
class RowsInTime:
    """Rows of a chain by step: Σ known · ω[slot] adds up what they read, ``size`` [T, B, n].

    ``read`` and ``offset`` have their places in [T, B, n, D] and [T, B, n, R+1]; ``prior``
    [B, R, 3] is (member, block, component) of the later columns.
    """

    size: tuple[int, int, int]
    read: Entries
    offset: Entries
    weight: np.ndarray
    prior: np.ndarray

    def __call__(self, point: Point, state: int) -> Observations:
        """a, b over scaled later columns, and ω at a point, [T, B, n, ·]."""
        omega, later = point.omega, self.prior.shape[1]
        read = self.read(omega, (*self.size, state))
        offset = self.offset(omega, (*self.size, later + 1))
        if later:
            scale = prior_scales(self.prior, point.priors, omega.dtype)
            rest = einsum("tbnr,brs->tbns", offset[..., 1:], scale, **_EXACT)
            offset = jnp.concatenate([offset[..., :1], rest], axis=-1)
        return Observations(read, offset, omega[self.weight])


@dataclass(frozen=True, eq=False)
class Chain(Stage):
    """The stage that eliminates one recurrence.

    Attributes:
        recurrence: its chains; ``number`` is its place among the form's recurrences.
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
    lag: np.ndarray
    place: np.ndarray
    later: np.ndarray
    information: np.ndarray
    meeting: np.ndarray
    entry: np.ndarray
    carried: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    target: np.ndarray
    rows: RowsInTime | None = None
    name: str = "chain"

    @property
    def columns(self) -> np.ndarray:
        return self.recurrence.columns

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
        T, M, d, D, n = symbols("T M d D n")
        sizes = ((T, steps), (M, chains), (d, self.state), (D, self.later.shape[1]))
        text = f"{chains} chains of {steps} steps, states of {self.state}"
        work = T * M * (4 * d**3 + d**2 * D + d * D**2)
        if self.rows is not None:
            sizes = (*sizes, (n, self.rows.size[2]))
            work = T * M * (2 * d**3 + d**2 * D + n * (4 * d**2 + 2 * d * D + D**2))
        if (blocks := self.recurrence.blocks) > 1:
            text, work = f"{text}, {blocks} blocks of steps side by side", 3 * work
        each = float(work.subs(dict(sizes)))
        counts = Counts(columns=math.inf, small=each, steps=self._depth)
        return Cost(text, work, sizes, counts)

    @property
    def _depth(self) -> int:
        """Steps that go one after the other; a few rows of a step are one."""
        steps, blocks = self.recurrence.steps, self.recurrence.blocks
        rows = 1 if self.rows is None else self.rows.size[2]
        depth = steps if blocks == 1 else 2 * -(-steps // blocks) + blocks
        return depth if rows <= ROWS else depth * rows

    @property
    def fresh(self) -> np.ndarray:
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
        information = _information(pattern, recurrence, lag, place)
        meeting = positions(pattern, recurrence.columns[..., None], later[None, :, None, :])
        entry = _entry_places(recurrence.outside, later)
        left, right = width.pairs()
        nxt, target = width.filled(pattern, recurrence, left, right)
        at = np.flatnonzero((later >= 0).reshape(-1))
        order = np.argsort(target, kind="stable")
        carried = pattern.lookup(nxt.first, nxt.second)
        prior = noise_of(members)[later]
        prior[later < 0] = -1
        seen = _rows_in_time(rows, recurrence, lag, place, later, prior) if rows else None
        if seen is not None and not _noisy(seen, recurrence, lag):
            recurrence = replace(recurrence, blocks=1)
        stage = cls(
            recurrence, number, lag, place, later, information, meeting, entry, carried,
            (at[left[order]], at[right[order]]), target[order], seen,
        )  # fmt: skip
        return stage, nxt

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, QuadraticForm]:
        """Integrate the chains out: their factor, and the form over the later columns."""
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
        total = logs.sum()
        factor = Factor(a, m, q, cov, information, linear, innovation, total / 2)
        smaller = self._smaller(form, change)._replace(log_det=form.log_det + total)
        return factor, smaller._replace(error=form.error + _lost(cov, information))

    def _by_rows(self, form: QuadraticForm, a: Any, m: Any, q: Any) -> tuple[Factor, QuadraticForm]:
        assert self.rows is not None and form.point is not None
        rows = self.rows(form.point, self.state)
        steps = Steps(_last(a), _last(m), _last(q), None, None)
        last = Observations(*(_last(x) for x in rows))
        found = filter_rows(steps, last, self.recurrence.blocks)
        mean, error, weight, logs, lost = (_first(x) for x in found)
        change = -einsum("tbn,tbnr,tbns->brs", weight, error, error, **_EXACT)
        total = logs.sum()
        root = jnp.sqrt(rows.weight)[..., None]
        ahead = einsum("tbnd,tbdr->tbnr", rows.read, mean, **_EXACT) + rows.offset
        seen = Seen(rows.read * root, ahead * root, error, weight)
        factor = Factor(a, m, q, None, None, None, None, total / 2, seen)
        smaller = self._smaller(form, change)._replace(log_det=form.log_det + total)
        return factor, smaller._replace(filtered=form.filtered + lost.sum())

    def errors(self, factor: Factor) -> tuple[Any, Any]:
        """e [T, B, n, R+1] and ω/S of rows that are filtered one by one."""
        assert factor.seen is not None
        return factor.seen.error, factor.seen.weight

    def squares(self, errors: tuple[Any, Any], z: Any) -> Any:
        """Minimum over these chains of their rows' sum of squares, given z of later columns."""
        error, weight = errors
        error = einsum("tbnr,br->tbn", error, self._given(z), **_EXACT)
        return (weight * error**2).sum()

    def _states(self, dynamics: Dynamics) -> tuple[Any, Any, Any]:
        """A [T, B, D, D], M [T, B, D, R+1] and Q [T, B, D, d] over states."""
        a, m, q, _ = dynamics.solved()
        step = self.recurrence.companion(a, self.lag, self.place)
        padding = ((0, 0), (0, 0), (0, self.state - len(self.fresh)), (0, 0))
        m, q = m[:, :, self.fresh], q[:, :, self.fresh]
        m = jnp.concatenate([m, jnp.zeros((*m.shape[:3], 1), m.dtype)], axis=-1)
        entry = jnp.take_along_axis(m, jnp.asarray(self.entry)[None, :, None, :], axis=-1)
        return step, jnp.pad(entry, padding), jnp.pad(q, padding)

    def _linear(self, form: QuadraticForm) -> Any:
        """B_t [T, B, D, R+1]: h, and minus the meetings with later columns, at lag zero."""
        own = gather(form.h, self.columns[..., self.fresh])
        meetings = form.read(self.meeting[:, :, self.fresh])
        linear = jnp.concatenate([own[..., None], -meetings], axis=-1)
        rest = self.state - len(self.fresh)
        return jnp.pad(linear, ((0, 0), (0, 0), (0, rest), (0, 0)))

    def _smaller(self, form: QuadraticForm, change: Any) -> QuadraticForm:
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

    def _given(self, z: Any) -> Any:
        """w [B, R+1]: the constant and the later columns."""
        rest = gather(z, self.later)
        return jnp.concatenate([jnp.ones((rest.shape[0], 1), z.dtype), rest], axis=1)

    def mean(self, factor: Factor, z: Any) -> Any:
        """z with this stage's innovations at their conditional mean given the later columns.

        They stay zero where rows are filtered one by one: the minimum is known without them.
        """
        if factor.seen is not None:
            return z
        force = einsum("tbir,br->tbi", factor.innovation, self._given(z), **_EXACT)
        joint = jnp.matmul(factor.information, factor.covariance, **_EXACT)  # (P H)ᵀ
        following = jnp.concatenate([factor.step[1:], jnp.zeros_like(factor.step[:1])])

        def backward(at: Any, adjoint: Any, force: Any) -> Any:
            joint, following = at
            ratio = joint + jnp.eye(self.state, dtype=joint.dtype)[..., None]
            return small.solve(ratio, force + small.product(following, adjoint))[0]

        inputs = jnp.moveaxis(joint, 1, -1), jnp.moveaxis(jnp.swapaxes(following, 2, 3), 1, -1)
        blocks = self.recurrence.blocks
        adjoint = recursion(backward, inputs, jnp.moveaxis(force, 1, -1), blocks, reverse=True)
        adjoint = jnp.moveaxis(adjoint, -1, 1)
        own = einsum("tbij,tbi->tbj", factor.noise, adjoint, **_EXACT)
        return self._put(z, own)

    def back(self, factor: Factor, z: Any, noise: Any) -> Any:
        """z with this stage's innovations drawn from noise, given the later columns."""
        first, roots = self._roots(factor, z)
        xi, real = jnp.moveaxis(gather(noise, self.columns), 1, 0), self._real
        d, often = self.recurrence.width, np.flatnonzero(real[-1])
        # [B, noises]: the last state takes the last D of them, each step before what is new in it.
        flat = xi.reshape(len(xi), -1)[:, np.flatnonzero(real)]
        end = flat.shape[1] - roots.shift.shape[-1]
        tail = flat[:, end:]
        if real.all() and not self.state % d:  # in a state's order: padding meets padding
            tail = tail.reshape(len(xi), -1, d)[:, ::-1].reshape(len(xi), -1)
        zeta = solve_upper(roots.lower[-1], roots.shift[-1] + tail)

        def backward(zeta: Any, at: Any) -> tuple[Any, Any]:
            lower, shift, rotation, fresh = at
            before = einsum("bij,bj->bi", rotation, jnp.concatenate([zeta, fresh], -1), **_EXACT)
            own = rotation.shape[-1] - shift.shape[-1]
            innovation, eta = before[:, :own], before[:, own:]
            return (solve_upper(lower, shift + eta) if eta.size else eta), innovation

        q, full = len(first), roots.rotation.shape[0]
        new = len(often)
        fresh = flat[:, end - full * new : end].reshape(len(xi), full, new)
        steps = (roots.lower[:-1], roots.shift[:-1], roots.rotation, jnp.moveaxis(fresh, 1, 0))
        zeta, rest = jax.lax.scan(backward, zeta, steps, reverse=True)
        wide = jnp.zeros((*rest.shape[:2], d), z.dtype).at[..., often].set(rest)
        drawn, end = [wide], end - full * new
        for k in reversed(range(q)):
            lower, shift, rotation = first[k]
            more = rotation.shape[-1] - zeta.shape[-1]
            at = (lower, shift, rotation, flat[:, end - more : end])
            zeta, innovation = backward(zeta, at)
            own = jnp.zeros((len(xi), d), z.dtype).at[:, np.flatnonzero(real[k])]
            drawn, end = [own.set(innovation)[None], *drawn], end - more
        return self._put(z, jnp.concatenate(drawn))

    @property
    def _real(self) -> np.ndarray:
        """[T, d] which places have noise in draws: padding, too, unless all chains are even."""
        return (self.columns[:, 0] >= 0) | (not self.recurrence.even)

    def log_det(self, factor: Factor) -> Any:
        """log |L| over all steps."""
        return factor.log_det

    def _roots(self, factor: Factor, z: Any) -> tuple[list[tuple[Any, ...]], _Roots]:
        """The square-root filter at given later columns: of the first states, which hold less than
        a full one and come one by one, and of the full ones."""
        given = self._given(z)
        update = self._updates(factor, given)
        most, real = int(self.lag.max(initial=0)), self._real
        q = most + self.recurrence.ragged if self.recurrence.even else most
        q = min(q, self.recurrence.steps - 1)
        none = jnp.zeros((len(given), 0, 0), factor.step.dtype)
        root, lower, shift = none, none, none.reshape(len(given), 0)
        first, inside = [], self.lag < 0
        for t in range(q + 1):
            now = (self.lag <= t) & real[np.maximum(t - self.lag, 0), self.place]
            a = factor.step[t][:, now][:, :, inside]
            noise = factor.noise[t][:, now][:, :, np.flatnonzero(real[t])]
            root, rotation = _moved(lower, root, a, noise)
            first.append((lower, shift, rotation))
            lower, shift = update(t, root, now)
            inside = now

        def step(carry: Any, at: Any) -> tuple[Any, Any]:
            root, lower, shift = carry
            t, a, noise = at
            root, rotation = _moved(lower, root, a, noise)
            return (root, *update(t, root, inside)), (lower, shift, rotation)

        rest = jnp.arange(q + 1, self.recurrence.steps)
        often = np.flatnonzero(real[-1])
        a, noise = (x[q + 1 :, :, inside] for x in (factor.step, factor.noise))
        steps = (rest, a[..., inside], noise[..., often])
        (_, *end), (lower, shift, rotation) = jax.lax.scan(step, (root, lower, shift), steps)
        lower, shift = (
            jnp.concatenate([x, last[None]]) for x, last in zip((lower, shift), end, strict=True)
        )
        return first, _Roots(lower, shift, rotation)

    def _updates(self, factor: Factor, given: Any) -> Callable[[Any, Any, np.ndarray], Any]:
        """L with LLᵀ = I + SᵀHS and L⁻¹Sᵀ force of step t, for a root S over some elements."""
        if factor.seen is None:
            force = einsum("tbir,br->tbi", factor.innovation, given, **_EXACT)

            def by_information(t: Any, root: Any, inside: np.ndarray) -> tuple[Any, Any]:
                information = factor.information[t][:, inside][:, :, inside]
                return _update(root, information, force[t][:, inside])

            return by_information
        read, ahead = factor.seen.read, factor.seen.ahead
        ahead = einsum("tbnr,br->tbn", ahead, given, **_EXACT)

        def by_rows(t: Any, root: Any, inside: np.ndarray) -> tuple[Any, Any]:
            seen = jnp.matmul(read[t][:, :, inside], root, **_EXACT)
            eye = jnp.broadcast_to(jnp.eye(root.shape[-1], dtype=root.dtype), root.shape)
            orthogonal, upper = jnp.linalg.qr(jnp.concatenate([seen, eye], axis=1))
            shift = -einsum("bnd,bn->bd", orthogonal[:, : seen.shape[1]], ahead[t], **_EXACT)
            return jnp.swapaxes(upper, -1, -2), shift

        return by_rows

    def _put(self, z: Any, own: Any) -> Any:
        used = self.columns >= 0
        return z.at[self.columns[used]].set(own[used])


class _Roots(NamedTuple):
    """L_t and L⁻¹SᵀEw at every full state, and the rotation U between them."""

    lower: Any
    shift: Any
    rotation: Any


def _lost(covariance: Any, information: Any) -> Any:
    """A bound on the rounding error of Σ log|I + P_t H_t|, whose pivots are one or more.

    H is a sum of cross-products, of which a direction that it does not have is left as ε H.
    """
    covariance, information = jax.lax.stop_gradient((covariance, information))
    if covariance.shape[-1] == 1:
        return jnp.zeros((), covariance.dtype)  # one direction: nothing is subtracted
    size = einsum("tbii,tbii->", covariance, information)
    return 2 * jnp.finfo(size.dtype).eps * size


def _last(x: Any) -> Any:
    """[T, …, N] from [T, N, …]."""
    return jnp.moveaxis(x, 1, -1)


def _first(x: Any) -> Any:
    return jnp.moveaxis(x, -1, 1)


def _moved(lower: Any, root: Any, a: Any, noise: Any) -> tuple[Any, Any]:
    """The next root [D, D], and U with [Q, A S L⁻ᵀ] = [S, 0] U."""
    ahead = jnp.swapaxes(jnp.matmul(a, root, **_EXACT), -1, -2)
    moved = jnp.swapaxes(solve_lower(lower, ahead) if ahead.size else ahead, -1, -2)
    rotation, upper = _turned(jnp.concatenate([noise, moved], axis=-1))
    return upper, rotation


def _turned(joint: Any) -> tuple[Any, Any]:
    """U and S with ``joint`` [D, E] = [S, 0] U, S [D, D] for D ≤ E."""
    state = joint.shape[-2]
    rotation, upper = jnp.linalg.qr(jnp.swapaxes(joint, -1, -2), mode="complete")
    return rotation, jnp.swapaxes(upper[:, :state], -1, -2)


def _update(root: Any, information: Any, force: Any) -> tuple[Any, Any]:
    """L with LLᵀ = I + SᵀHS, and L⁻¹Sᵀ force."""
    turned = jnp.swapaxes(root, -1, -2)
    lower = jnp.linalg.cholesky(eye_plus(turned, jnp.matmul(information, root, **_EXACT)))
    return lower, solve_lower(lower, jnp.matmul(turned, force[..., None], **_EXACT))[..., 0]


@dataclass(frozen=True, eq=False)
class Width:
    """What a state of a recurrence holds, and the later columns that its chains meet.

    Attributes:
        lag, place: [D] as in :class:`Chain`.
        later: [B, R] later columns of each chain, -1 padded; ``chain`` [·] that of each.
    """

    lag: np.ndarray
    place: np.ndarray
    later: np.ndarray
    chain: np.ndarray

    @property
    def state(self) -> int:
        """D."""
        return len(self.lag)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All ordered pairs of later columns of one chain, by their numbers through all chains."""
        return pairs_of(self.chain, (self.later >= 0).sum(axis=1))

    def filled(
        self, pattern: Pattern, recurrence: Recurrence, left: np.ndarray, right: np.ndarray
    ) -> tuple[Pattern, np.ndarray]:
        """The pattern without the recurrence, and the place in it of each pair."""
        _, chain = _places(recurrence, pattern)
        rest = np.setdiff1d(pattern.columns, recurrence.columns.reshape(-1))
        return filled(pattern, chain, rest, self.later[self.later >= 0], left, right)

    def left(self, pattern: Pattern, recurrence: Recurrence) -> Pattern:
        """The pattern without the recurrence."""
        return self.filled(pattern, recurrence, *self.pairs())[0]

    @classmethod
    def of(
        cls, pattern: Pattern, recurrence: Recurrence, states: np.ndarray, read: np.ndarray
    ) -> Width | None:
        """None where the columns do not go step by step.

        That is where chains meet each other, or where they meet ``states``, columns of recurrences
        that are still to be eliminated. ``read`` [columns] says which columns rows read.
        """
        step, chain = _places(recurrence, pattern)
        first, second = pattern.first, pattern.second
        own = (step[first] >= 0) & (step[second] >= 0)
        if (chain[first] != chain[second])[own].any() or _meets(chain >= 0, pattern, states):
            return None
        used = recurrence.columns >= 0
        at = np.zeros(len(step), int)
        at[recurrence.columns[used]] = np.nonzero(used)[2]
        pairs = own & (first != second)
        i, j = first[pairs], second[pairs]
        last = np.maximum(step[i], step[j])
        kept = np.zeros(recurrence.width, int)
        for column in (i, j):
            np.maximum.at(kept, at[column], last - step[column] + 1)
        alone = recurrence.columns[used & read[recurrence.columns]]
        np.maximum.at(kept, at[alone], 1)
        np.maximum.at(kept, recurrence.reads[:, 3], recurrence.reads[:, 2])
        kept[:] = np.maximum(kept, 0 if kept.any() else 1)
        if not recurrence.even:
            kept[:] = kept.max()  # every place alike, so that draws keep padding apart
        later, at_chain = _later(pattern, recurrence, chain)
        return cls(*places_of(kept), later, at_chain)


def _rows_in_time(
    rows: Sequence[Rows],
    recurrence: Recurrence,
    lag: np.ndarray,
    place: np.ndarray,
    later: np.ndarray,
    prior: np.ndarray,
) -> RowsInTime:
    """The rows of a recurrence by step: each at the last step of what it reads."""
    (t, b, d), total = (
        recurrence.columns.shape,
        int(max(recurrence.columns.max(), later.max(initial=0))),
    )
    where = np.full((total + 2, 3), -1)
    used = recurrence.columns >= 0
    where[recurrence.columns[used]] = np.stack(np.nonzero(used), axis=1)
    parts, weights, first = [], [], 0
    for each in rows:
        for term in each.terms:
            column, known, slot = term.full(each.n)
            row, k = np.nonzero(known)
            parts.append((first + row, column[row, k], known[row, k], slot[row, k]))
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
    rank[order] = np.arange(first) - np.searchsorted(key[order], key[order])
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


def _noisy(rows: RowsInTime, recurrence: Recurrence, lag: np.ndarray) -> bool:
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


def _meets(own: np.ndarray, pattern: Pattern, states: np.ndarray) -> bool:
    """Whether a column of ``own`` has an entry with one of ``states``."""
    theirs = np.zeros(len(own), bool)
    theirs[states] = True
    i, j = pattern.first, pattern.second
    return bool(((own[i] & theirs[j]) | (theirs[i] & own[j])).any())


def _places(recurrence: Recurrence, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """Step and chain of every column, -1 outside."""
    size = int(max(pattern.columns.max(initial=0), recurrence.columns.max(initial=0))) + 1
    step, chain = np.full(size, -1), np.full(size, -1)
    t, b, _ = (used := recurrence.columns >= 0).nonzero()
    step[recurrence.columns[used]], chain[recurrence.columns[used]] = t, b
    return step, chain


def _later(
    pattern: Pattern, recurrence: Recurrence, chain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[B, R] later columns by chain, -1 padded, and the chain of each."""
    first, second = chain[pattern.first], chain[pattern.second]
    forward, backward = (first >= 0) & (second < 0), (first < 0) & (second >= 0)
    b, _ = (recurrence.outside >= 0).nonzero()
    at = np.concatenate([first[forward], second[backward], b])
    column = np.concatenate(
        [
            pattern.second[forward],
            pattern.first[backward],
            recurrence.outside[recurrence.outside >= 0],
        ]
    )
    at, column = np.unique(np.stack([at, column], axis=1), axis=0).T
    return padded(at, column, recurrence.chains), at


def _information(
    pattern: Pattern, recurrence: Recurrence, lag: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """[T, B, D, D] positions of H_t: pairs of columns whose later step is t."""
    t, b, _ = recurrence.columns.shape
    where = np.full((t, b, len(lag), len(lag)), -1)
    own = np.flatnonzero(lag == 0)
    for k in range(min(int(lag.max(initial=0)) + 1, t)):
        then = np.flatnonzero(lag == k)
        now, before = recurrence.columns[k:], recurrence.columns[: t - k]
        now, before = now[:, :, place[own], None], before[:, :, None, place[then]]
        found = positions(pattern, now, before)
        where[k:, :, own[:, None], then] = found
        where[k:, :, then[:, None], own] = np.swapaxes(found, 2, 3)
    return where


def _entry_places(outside: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Index of each later column among [1, outside, 0], the constant in front."""
    b, r = outside.shape
    same = later[:, :, None] == outside[:, None, :]
    same &= (later >= 0)[:, :, None]
    place = np.where(same.any(axis=2), same.argmax(axis=2) + 1, r + 1) if r else np.ones_like(later)
    return np.concatenate([np.zeros((b, 1), np.int64), place], axis=1)
