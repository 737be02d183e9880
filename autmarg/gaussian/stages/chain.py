"""Chains: state-space recurrences, eliminated step by step as by a Kalman filter.

A chain's columns are its states v_t themselves, its density is over the innovations z_t (see
:mod:`autmarg.gaussian.recurrence`). With the state s_t = (v_t, …, v_{t-q+1}) the form

    zᵀz + Σ_t (s_tᵀ H_t s_t - 2 s_tᵀ B_t w) + (later columns),    w = (1, z of later columns),

is minimised over z_1, z_2, … in turn. With predicted mean μ_t w and covariance P_t,

    E_t = B_t - H_t μ_t,   K_t = (I + P_t H_t)⁻¹,   log|G| += log|I + P_t H_t|,
    μ_t⁺ = μ_t + K_t P_t E_t,   P_t⁺ = K_t P_t,   μ_{t+1} = A μ_t⁺ + M,   P_{t+1} = A P_t⁺ Aᵀ + QQᵀ,

and the later columns' form gains -Σ_t (μᵀE + Bᵀμ + EᵀKPE). No covariance is inverted, so that any
scale may be zero (a precision form would lose its digits there). The conditional mean is
z_t = Q_tᵀλ_t with the adjoint λ_t = (I + H_t P_t)⁻¹(E_t w + A_{t+1}ᵀ λ_{t+1}) (de Jong 1989,
J. Am. Stat. Assoc. 84).

Draws use square roots: with s_t = μ_t w + S_t ζ_t, P = S Sᵀ, I + SᵀHS = LLᵀ and noise ξ,
ζ_t = L⁻ᵀ(L⁻¹SᵀE w + η_t), and an orthogonal matrix U turns (z_{t+1}, η_t) into (ζ_{t+1}, ξ_t) where
[Q, A S L⁻ᵀ] = [S_{t+1}, 0] U. So noise becomes innovations by orthogonal maps and L⁻ᵀ alone, and
the density of a draw is that of its noise times Π|L_t|. In that order padding, which has noise of
its own and no reader, stands at the same place on both sides, and Householder's U keeps it apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian import small
from autmarg.gaussian.batched import eye_plus, solve_lower, solve_upper
from autmarg.gaussian.filtering import Steps, kalman_filter, recursion
from autmarg.gaussian.pieces import gather
from autmarg.gaussian.quadratic import Pattern, QuadraticForm
from autmarg.gaussian.recurrence import Dynamics, Recurrence, padded
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.blocks import filled, pairs_of, positions

einsum = jnp.einsum
_EXACT: Any = {"precision": "highest"}


class Factor(NamedTuple):
    """A_t, M_t, Q_t, P_t, H_t, B_t, E_t over states [T, B, D, ·], and Σ log|L_t|."""

    step: Any
    entry: Any
    noise: Any
    covariance: Any
    information: Any
    linear: Any
    innovation: Any
    log_det: Any


@dataclass(frozen=True, eq=False)
class Chain(Stage):
    """The stage that eliminates one recurrence.

    Attributes:
        recurrence: its chains; ``number`` is its place among the form's recurrences.
        lags: q, the steps that one state holds.
        later: [B, R] later columns that each chain meets or is entered by, -1 padded.
        information: [T, B, D, D] positions of H_t in the form's values.
        meeting: [T, B, d, R] positions of the meetings with later columns.
        entry: [B, R+1] which of the recurrence's outside columns each later column is.
        carried: positions of the next form's values in this one's; pairs of ``later`` places
            ``left``, ``right`` and the ``target`` of their product in the next form.
    """

    recurrence: Recurrence
    number: int
    lags: int
    later: np.ndarray
    information: np.ndarray
    meeting: np.ndarray
    entry: np.ndarray
    carried: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    target: np.ndarray
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
        return self.lags * self.recurrence.width

    @classmethod
    def plan(
        cls, pattern: Pattern, recurrence: Recurrence, number: int, states: np.ndarray
    ) -> tuple[Chain, Pattern] | None:
        """The stage, and the pattern it leaves; None where the columns do not go step by step.

        That is where one state would have to hold most steps, where chains meet each other, or
        where they meet ``states``, columns of recurrences that are still to be eliminated.
        """
        step, chain = _places(recurrence, pattern)
        first, second = pattern.first, pattern.second
        own = (step[first] >= 0) & (step[second] >= 0)
        if (chain[first] != chain[second])[own].any() or _meets(chain >= 0, pattern, states):
            return None
        lag = np.abs(step[first] - step[second])[own]
        lags = max(int(lag.max(initial=0)) + 1, recurrence.order)
        if lags > max_lags(recurrence.steps):
            return None
        later, at_chain = _later(pattern, recurrence, chain)
        information = _information(pattern, recurrence, lags)
        meeting = positions(pattern, recurrence.columns[..., None], later[None, :, None, :])
        entry = _entry_places(recurrence.outside, later)
        column = later[later >= 0]
        counts = (later >= 0).sum(axis=1)
        left, right = pairs_of(at_chain, counts)
        rest = np.setdiff1d(pattern.columns, recurrence.columns.reshape(-1))
        nxt, target = filled(pattern, chain, rest, column, left, right)
        place = np.flatnonzero((later >= 0).reshape(-1))
        order = np.argsort(target, kind="stable")
        carried = pattern.lookup(nxt.first, nxt.second)
        stage = cls(
            recurrence, number, lags, later, information, meeting, entry, carried,
            (place[left[order]], place[right[order]]), target[order],
        )  # fmt: skip
        return stage, nxt

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, QuadraticForm]:
        """Integrate the chains out: their factor, and the form over the later columns."""
        a, m, q = self._states(form.dynamics[self.number])
        information = form.read(self.information)
        linear = self._linear(form)

        steps = Steps(*(jnp.moveaxis(x, 1, -1) for x in (a, m, q, information, linear)))
        found = kalman_filter(steps, self.recurrence.blocks)
        mean, cov, innovation, gained, logs = (jnp.moveaxis(x, -1, 1) for x in found)
        change = (
            einsum("tbir,tbis->brs", mean, innovation, **_EXACT)
            + einsum("tbir,tbis->brs", linear, mean, **_EXACT)
            + einsum("tbir,tbis->brs", innovation, gained, **_EXACT)
        )
        total = logs.sum()
        factor = Factor(a, m, q, cov, information, linear, innovation, total / 2)
        return factor, self._smaller(form, change)._replace(log_det=form.log_det + total)

    def _states(self, dynamics: Dynamics) -> tuple[Any, Any, Any]:
        """A [T, B, D, D], M [T, B, D, R+1] and Q [T, B, D, d] over states."""
        a, m, q = dynamics
        d, state = self.recurrence.width, self.state
        step = self.recurrence.companion(a, self.lags)
        padding = ((0, 0), (0, 0), (0, state - d), (0, 0))
        m = jnp.concatenate([m, jnp.zeros((*m.shape[:3], 1), m.dtype)], axis=-1)
        entry = jnp.take_along_axis(m, jnp.asarray(self.entry)[None, :, None, :], axis=-1)
        return step, jnp.pad(entry, padding), jnp.pad(q, padding)

    def _linear(self, form: QuadraticForm) -> Any:
        """B_t [T, B, D, R+1]: h, and minus the meetings with later columns, at lag zero."""
        own = gather(form.h, self.columns)
        meetings = form.read(self.meeting)
        linear = jnp.concatenate([own[..., None], -meetings], axis=-1)
        rest = self.state - self.recurrence.width
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
        """z with this stage's innovations at their conditional mean given the later columns."""
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
        roots, q, d = self._roots(factor, z), self.lags, self.recurrence.width
        xi = gather(noise, self.columns)
        zeta = solve_upper(roots.lower[-1], roots.shift[-1] + _stack(xi[-q:]))

        def backward(zeta: Any, at: Any) -> tuple[Any, Any]:
            lower, shift, rotation, fresh = at
            before = einsum("bij,bj->bi", rotation, jnp.concatenate([zeta, fresh], -1), **_EXACT)
            innovation, eta = before[:, :d], before[:, d:]
            return solve_upper(lower, shift + eta), innovation

        steps = (roots.lower[:-1], roots.shift[:-1], roots.rotation, xi[: xi.shape[0] - q])
        first, rest = jax.lax.scan(backward, zeta, steps, reverse=True)
        return self._put(z, jnp.concatenate([_unstack(first, q), rest]))

    def log_det(self, factor: Factor) -> Any:
        """log |L| over all steps."""
        return factor.log_det

    def _roots(self, factor: Factor, z: Any) -> _Roots:
        """The square-root filter at given later columns, from the first full state on."""
        given = self._given(z)
        root, information, force = self._first_state(factor, given)
        innovation = einsum("tbir,br->tbi", factor.innovation, given, **_EXACT)
        q = self.lags

        def step(root: Any, at: Any) -> tuple[Any, Any]:
            information, force, a, noise = at
            lower, shift = _update(root, information, force)
            moved = jnp.swapaxes(
                solve_lower(lower, jnp.swapaxes(jnp.matmul(a, root, **_EXACT), -1, -2)), -1, -2
            )
            joint = jnp.concatenate([noise, moved], axis=-1)  # aligned with the new state
            rotation, upper = jnp.linalg.qr(jnp.swapaxes(joint, -1, -2), mode="complete")
            state = root.shape[-1]
            return jnp.swapaxes(upper[:, :state], -1, -2), (lower, shift, rotation)

        informations = jnp.concatenate([information[None], factor.information[q:]])
        forces = jnp.concatenate([force[None], innovation[q:]])
        inputs = (informations[:-1], forces[:-1], factor.step[q:], factor.noise[q:])
        root, (lower, shift, rotation) = jax.lax.scan(step, root, inputs)
        last = _update(root, informations[-1], forces[-1])
        return _Roots(
            jnp.concatenate([lower, last[0][None]]), jnp.concatenate([shift, last[1][None]]),
            rotation,
        )  # fmt: skip

    def _first_state(self, factor: Factor, given: Any) -> tuple[Any, Any, Any]:
        """Root, information and force of the first state that holds ``lags`` steps, all at once."""
        q, d = self.lags, self.recurrence.width
        b, state = factor.step.shape[1:3]
        root = jnp.zeros((b, state, state), factor.step.dtype)
        mean = jnp.zeros((b, state), factor.step.dtype)
        information, force = jnp.zeros_like(root), jnp.zeros_like(mean)
        for t in range(q):
            a = factor.step[t]
            entry = einsum("bir,br->bi", factor.entry[t], given, **_EXACT)
            mean = einsum("bij,bj->bi", a, mean, **_EXACT) + entry
            shift = (q - 1 - t) * d  # where step t's state stands in the full one
            root = jnp.matmul(a, root, **_EXACT)
            root = root.at[:, :, shift : shift + d].add(factor.noise[t])
            inside = slice(0, state - shift)
            block = factor.information[t][:, inside, inside]
            information = information.at[:, shift:, shift:].add(block)
            linear = einsum("bir,br->bi", factor.linear[t], given, **_EXACT)
            force = force.at[:, shift:].add(linear[:, inside])
        force = force - einsum("bij,bj->bi", information, mean, **_EXACT)
        return root, information, force

    def _put(self, z: Any, own: Any) -> Any:
        used = self.columns >= 0
        return z.at[self.columns[used]].set(own[used])


class _Roots(NamedTuple):
    """L_t and L⁻¹SᵀEw at every full state, and the rotation U between them."""

    lower: Any
    shift: Any
    rotation: Any


def max_lags(steps: int) -> int:
    """Most steps that one state may hold: the cost grows with its cube."""
    return min(8, steps)


def _stack(steps: Any) -> Any:
    """[B, q d] from [q, B, d], the last step first, as in a state."""
    return jnp.moveaxis(steps[::-1], 0, 1).reshape(steps.shape[1], -1)


def _unstack(stacked: Any, q: int) -> Any:
    return jnp.moveaxis(stacked.reshape(stacked.shape[0], q, -1), 1, 0)[::-1]


def _update(root: Any, information: Any, force: Any) -> tuple[Any, Any]:
    """L with LLᵀ = I + SᵀHS, and L⁻¹Sᵀ force."""
    turned = jnp.swapaxes(root, -1, -2)
    lower = jnp.linalg.cholesky(eye_plus(turned, jnp.matmul(information, root, **_EXACT)))
    return lower, solve_lower(lower, jnp.matmul(turned, force[..., None], **_EXACT))[..., 0]


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


def _information(pattern: Pattern, recurrence: Recurrence, lags: int) -> np.ndarray:
    """Positions of H_t: pairs of columns whose later step is t."""
    t, b, d = recurrence.columns.shape
    where = np.full((t, b, lags * d, lags * d), -1)
    for lag in range(min(lags, t)):
        now, before = recurrence.columns[lag:], recurrence.columns[: t - lag]
        found = positions(pattern, now[:, :, :, None], before[:, :, None, :])
        where[lag:, :, :d, lag * d : (lag + 1) * d] = found
        where[lag:, :, lag * d : (lag + 1) * d, :d] = np.swapaxes(found, 2, 3)
    return where


def _entry_places(outside: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Index of each later column among [1, outside, 0], the constant in front."""
    b, r = outside.shape
    same = later[:, :, None] == outside[:, None, :]
    same &= (later >= 0)[:, :, None]
    place = np.where(same.any(axis=2), same.argmax(axis=2) + 1, r + 1) if r else np.ones_like(later)
    return np.concatenate([np.zeros((b, 1), np.int64), place], axis=1)
