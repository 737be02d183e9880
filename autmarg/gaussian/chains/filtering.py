"""The Kalman filter and other recursions over time, one step after the other or in blocks of steps.

A step takes a state with mean μ and covariance P (N(0, 0) before the first) to the next,

    μ ← A μ + M,  P ← A P Aᵀ + QQᵀ,  then with data ½ sᵀHs - sᵀB
    E = B - H μ,  K = (I + P H)⁻¹,  μ ← μ + K P E,  P ← K P.

Data of few rows a step, Σ ω (aᵀs + b)², are taken row by row instead: with g = P a, S = 1 + ω aᵀg
and K = ω g / S,

    e = aᵀμ + b,  μ ← μ - K e,  P ← (I - K aᵀ) P (I - K aᵀ)ᵀ + ω (g/S)(g/S)ᵀ

(Bucy & Joseph 1968), and their minimum is Σ ω e² / S. It has no difference of large numbers where ω
is large: an error in K enters P squared. What the subtraction rounds, ε g gᵀ ω/S, stays in P,
though, and tells where another row reads the same state with no new noise between the two. So that
error U is passed on as P is,

    U ← A U Aᵀ,  U ← (I - K aᵀ) U (I - K aᵀ)ᵀ + ε diag(g gᵀ) ω/S,

and log S of a row is off by ω aᵀU a / S.

In parallel, T steps are folded into blocks that go side by side, three times:

1. each block is summarised as if its first state x were known: N(Āx + b̄, C̄) of its last state and
   the likelihood exp(-½ xᵀJ̄x + xᵀη̄) of its data (the elements of Särkkä & García-Fernández 2021,
   IEEE Trans. Automatic Control 66(1), section III);
2. the summaries are passed from block to block;
3. each block is filtered from the state so found, by the very steps of the sequential filter.

With √T blocks of √T steps the depth is some 3 √T instead of T, for twice to three times the work; a
tree over single steps would have depth log T, and a program of log T different passes to compile.
Covariances are never inverted, in either form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar, overload

import jax
import jax.numpy as jnp
from jax import Array

from autmarg.gaussian.chains.linear import apart, joined
from autmarg.gaussian.small import congruence, eye_plus, product, solve, symmetric

if TYPE_CHECKING:
    from jaxtyping import Float

ROWS = 16  # of a step, up to which each is written out

Carry = TypeVar("Carry")
Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")


class Steps(NamedTuple):
    """A, M, Q, H and B of all steps, [T, D, ·, N]."""

    transition: Float[Array, "T D D N"]
    entry: Float[Array, "T D R+1 N"]
    noise: Float[Array, "T D d N"]
    information: Float[Array, "T D D N"]
    linear: Float[Array, "T D R+1 N"]


class Moves(NamedTuple):
    """A, M and Q of all steps, [T, D, ·, N], where data are taken row by row."""

    transition: Float[Array, "T D D N"]
    entry: Float[Array, "T D R+1 N"]
    noise: Float[Array, "T D d N"]


class Observations(NamedTuple):
    """a, b and ω of all rows, [T, n, D, N], [T, n, R+1, N] and [T, n, N]."""

    read: Float[Array, "T n D N"]
    offset: Float[Array, "T n R+1 N"]
    weight: Float[Array, "T n N"]


class Observed(NamedTuple):
    """Predicted means at all steps [T, D, R+1, N], and e, ω/S, log S and its error of all rows."""

    mean: Float[Array, "T D R+1 N"]
    error: Float[Array, "T n R+1 N"]
    weight: Float[Array, "T n N"]
    log_det: Float[Array, "T n N"]
    lost: Float[Array, "T n N"]


class Filtered(NamedTuple):
    """Predicted means and covariances, E, K P E and log|I + P H| at all steps, [T, ·, N]."""

    mean: Float[Array, "T D R+1 N"]
    covariance: Float[Array, "T D D N"]
    innovation: Float[Array, "T D R+1 N"]
    gained: Float[Array, "T D R+1 N"]
    log_det: Float[Array, "T N"]


# μ and P; with the error U of P where it is followed.
State: TypeAlias = tuple[Array, Array]
Rounded: TypeAlias = tuple[Array, Array, Array]
# Ā, b̄, C̄, η̄ and J̄ of a block.
Summary: TypeAlias = tuple[Array, Array, Array, Array, Array]


def kalman_filter(steps: Steps, blocks: int) -> Filtered:
    """Filter from a state that is zero; ``blocks`` of steps go side by side."""
    state = jnp.zeros_like(steps.entry[0]), jnp.zeros_like(steps.information[0])
    if blocks == 1:
        return scan(_filter_step, state, steps)[1]
    count, folded = len(steps.entry), Steps(*(fold(x, blocks) for x in steps))
    ends: Summary = jax.tree.map(lambda x: apart(x, blocks), _summaries(folded))
    starts = scan(_pass_on, state, ends)[1]
    found = scan(_filter_step, (joined(starts[0]), joined(starts[1])), folded)[1]
    return Filtered(*(unfold(x, blocks, count) for x in found))


def _filter_step(state: State, at: Steps) -> tuple[State, Filtered]:
    mean, covariance = _predicted(*state, at)
    innovation = at.linear - product(at.information, mean)
    ratio = eye_plus(covariance, at.information)
    stacked = jnp.concatenate([product(covariance, innovation), covariance], axis=1)
    solved, log_det = solve(ratio, stacked)
    r = mean.shape[1]
    gained, after = solved[:, :r], symmetric(solved[:, r:])
    return (mean + gained, after), Filtered(mean, covariance, innovation, gained, log_det)


def filter_rows(moves: Moves, rows: Observations, blocks: int) -> Observed:
    """Filter data row by row, from a state that is zero."""
    t, d, r, n = moves.entry.shape
    state = jnp.zeros((d, r, n), moves.entry.dtype), jnp.zeros((d, d, n), moves.entry.dtype)
    if blocks == 1:
        return scan(_row_step, _with_rounding(*state), (moves, rows))[1]
    folded: tuple[Moves, Observations] = jax.tree.map(lambda x: fold(x, blocks), (moves, rows))
    ends: Summary = jax.tree.map(lambda x: apart(x, blocks), _row_summaries(*folded))
    starts = scan(_pass_on, state, ends)[1]
    found = scan(_row_step, _with_rounding(joined(starts[0]), joined(starts[1])), folded)[1]
    return Observed(*(unfold(x, blocks, t) for x in found))


def _with_rounding(mean: Float[Array, "D R+1 N"], covariance: Float[Array, "D D N"]) -> Rounded:
    """A state with the error U of its covariance, one rounding of each variance."""
    fixed = jax.lax.stop_gradient(covariance)
    eye = jnp.eye(len(fixed), dtype=fixed.dtype)[..., None]
    return mean, covariance, jnp.finfo(fixed.dtype).eps * eye * fixed


def _row_step(state: Rounded, at: tuple[Moves, Observations]) -> tuple[Rounded, Observed]:
    (mean, covariance, rounding), (moves, rows) = state, at
    predicted = _predicted(mean, covariance, moves)
    rounding = congruence(jax.lax.stop_gradient(moves.transition), rounding)
    after, found = _updated((*predicted, rounding), rows)
    return after, Observed(predicted[0], *found)


@overload
def _updated(state: State, rows: Observations) -> tuple[State, tuple[Array, Array, Array]]: ...
@overload
def _updated(
    state: Rounded, rows: Observations
) -> tuple[Rounded, tuple[Array, Array, Array, Array]]: ...
def _updated(
    state: State | Rounded, rows: Observations
) -> tuple[State | Rounded, tuple[Array, ...]]:
    """The state given rows one after the other; e [n, R+1, N], ω/S, log S and its error [n, N].

    A state without U has no error of log S.
    """
    if len(rows.read) > ROWS:
        return jax.lax.scan(_by_row, state, rows)
    found: list[tuple[Array, ...]] = []
    for k in range(len(rows.read)):
        state, one = _by_row(state, Observations(*(x[k] for x in rows)))
        found.append(one)
    return state, tuple(jnp.stack(x) for x in zip(*found, strict=True))


def _by_row(state: State | Rounded, row: Observations) -> tuple[State | Rounded, tuple[Array, ...]]:
    """The same of one row: the state, and e, ω/S, log S and its error."""
    (mean, covariance, *rounding), (a, b, weight) = state, row
    g = (covariance * a[None]).sum(axis=1)
    spread = 1.0 + weight * (a * g).sum(axis=0)
    error = (a[:, None] * mean).sum(axis=0) + b
    gain = g * (weight / spread)
    once = covariance - gain[:, None] * g[None]
    # (I - K aᵀ) P is once; the other side takes out what a reads of it.
    twice = once - (once * a[None]).sum(axis=1)[:, None] * gain[None]
    covariance = symmetric(twice) + (gain / spread)[:, None] * g[None]
    mean = mean - gain[:, None] * error[None]
    found = error, weight / spread, jnp.log(spread)
    if not rounding:
        return (mean, covariance), found
    a, g, gain, weight = jax.lax.stop_gradient((a, g, gain, weight / spread))
    after, lost = _rounded(rounding[0], a, g, gain, weight)
    return (mean, covariance, after), (*found, lost)


def _rounded(
    rounding: Float[Array, "D D N"],
    a: Float[Array, "D N"],
    g: Float[Array, "D N"],
    gain: Float[Array, "D N"],
    weight: Float[Array, "N"],
) -> tuple[Float[Array, "D D N"], Float[Array, "N"]]:
    """The error U of P after a row, and that of the row's log S; ``weight`` is ω/S."""
    eye = jnp.eye(len(a), dtype=a.dtype)[..., None]
    lost = weight * (a * (rounding * a[None]).sum(axis=1)).sum(axis=0)
    left = eye - gain[:, None] * a[None]
    own = jnp.finfo(a.dtype).eps * eye * (gain * g)[:, None]
    return congruence(left, rounding) + own, lost


def _row_summaries(moves: Moves, rows: Observations) -> Summary:
    """Ā, b̄, C̄, η̄ and J̄ of each block: its first state x is one more thing that means read."""
    d, r = moves.entry.shape[1:3]
    none, empty = jnp.zeros_like(moves.transition[0]), jnp.zeros_like(moves.entry[0])
    start = jnp.concatenate([empty, eye_plus(none, none)], axis=1)

    def step(
        summary: tuple[Array, Array, Array, Array], at: tuple[Moves, Observations]
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        """The summary with one more step."""
        (mean, covariance, eta, j), (moves, rows) = summary, at
        wide = moves._replace(entry=jnp.concatenate([moves.entry, none], axis=1))
        state = _predicted(mean, covariance, wide)
        no_x = jnp.zeros((*rows.offset.shape[:1], d, *rows.offset.shape[2:]), rows.offset.dtype)
        rows = rows._replace(offset=jnp.concatenate([rows.offset, no_x], axis=1))
        (mean, covariance), (error, size, _) = _updated(state, rows)
        of_x = error[:, r:]
        scaled = of_x * size[:, None]
        eta = eta - (scaled[:, :, None] * error[:, None, :r]).sum(axis=0)
        j = j + (scaled[:, :, None] * of_x[:, None]).sum(axis=0)
        return (mean, covariance, eta, symmetric(j)), None

    mean, covariance, eta, j = scan(step, (start, none, empty, none), (moves, rows))[0]
    return mean[:, r:], mean[:, :r], covariance, eta, j


def _predicted(
    mean: Float[Array, "D R+1 N"], covariance: Float[Array, "D D N"], at: Steps | Moves
) -> State:
    moved = congruence(at.transition, covariance) + congruence(at.noise, None)
    return product(at.transition, mean) + at.entry, moved


def _summaries(steps: Steps) -> Summary:
    """Ā, b̄, C̄, η̄ and J̄ of each block."""
    d, r = steps.entry.shape[1:3]
    none, empty = jnp.zeros_like(steps.information[0]), jnp.zeros_like(steps.entry[0])
    start = (eye_plus(none, none), empty, none, empty, none)

    def step(summary: Summary, at: Steps) -> tuple[Summary, None]:
        """The summary with one more step."""
        moved, mean, covariance, eta, j = summary
        mean, covariance = _predicted(mean, covariance, at)
        moved = product(at.transition, moved)
        innovation = at.linear - product(at.information, mean)
        ratio = eye_plus(covariance, at.information)
        stacked = [product(covariance, innovation), covariance, moved]
        solved, _ = solve(ratio, jnp.concatenate(stacked, axis=1))
        left = jnp.swapaxes(solved[:, r + d :], 0, 1)
        eta = eta + product(left, innovation)
        j = symmetric(j + product(left, product(at.information, moved)))
        after = symmetric(solved[:, r : r + d])
        return (solved[:, r + d :], mean + solved[:, :r], after, eta, j), None

    return scan(step, start, steps)[0]


def _pass_on(state: State, block: Summary) -> tuple[State, State]:
    """The state after a block of which a summary is known, and the one before it."""
    (mean, covariance), (moved, own, spread, eta, j) = state, block
    r = mean.shape[1]
    stacked = jnp.concatenate([mean + product(covariance, eta), covariance], axis=1)
    solved, _ = solve(eye_plus(covariance, j), stacked)
    after = congruence(moved, symmetric(solved[:, r:])) + spread
    return (product(moved, solved[:, :r]) + own, after), state


def recursion(
    step: Callable[[Inputs, Array, Array], Array],
    inputs: Inputs,
    force: Float[Array, "T D N"],
    blocks: int,
    reverse: bool = False,
) -> Float[Array, "T D N"]:
    """x_t = step(inputs_t, x_{t-1}, force_t) from zero, the step being linear in (x, force).

    Args:
        step: takes x and force [D, C, N].
        inputs: a pytree of [T, …, N]; where it is zero, the step must stay defined.
        force: [T, D, N].
        blocks: of steps that go side by side.
        reverse: whether time runs backwards.

    Returns:
        x [T, D, N].
    """

    def run(start: Array, inputs: Inputs, force: Array) -> tuple[Array, Array]:
        def one(x: Array, at: tuple[Inputs, Array]) -> tuple[Array, Array]:
            x = step(at[0], x, at[1])
            return x, x

        return scan(one, start, (inputs, force), reverse)

    count, force = len(force), force[:, :, None]
    if blocks == 1:
        return run(jnp.zeros_like(force[0]), inputs, force)[1][:, :, 0]
    inputs, force = jax.tree.map(lambda x: fold(x, blocks), (inputs, force))
    length, d, _, n = force.shape
    none = jnp.zeros((d, d, n), force.dtype)
    wide = jnp.concatenate([force, jnp.zeros((length, *none.shape), force.dtype)], axis=2)
    start = jnp.concatenate([jnp.zeros_like(force[0]), eye_plus(none, none)], axis=1)
    maps = apart(run(start, inputs, wide)[0], blocks)

    def pass_on(x: Array, block: Array) -> tuple[Array, Array]:
        return block[:, :1] + product(block[:, 1:], x), x

    starts = scan(pass_on, jnp.zeros_like(maps[0, :, :1]), maps, reverse)[1]
    found = run(joined(starts), inputs, force)[1]
    return unfold(found, blocks, count)[:, :, 0]


def scan(
    step: Callable[[Carry, Inputs], tuple[Carry, Outputs]],
    start: Carry,
    inputs: Inputs,
    reverse: bool = False,
) -> tuple[Carry, Outputs]:
    """A scan that keeps its states for the derivative, and computes the rest of a step again."""
    again: Callable[[Carry, Inputs], tuple[Carry, Outputs]]
    again = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(again, start, inputs, reverse=reverse)


def fold(x: Float[Array, "T *rest N"], blocks: int) -> Float[Array, "L *rest blocks*N"]:
    """[T, …, N] as [⌈T / blocks⌉, …, blocks · N], zeros at the end."""
    length = -(-len(x) // blocks)
    padding = [(0, blocks * length - len(x)), *((0, 0) for _ in x.shape[1:])]
    return joined(jnp.pad(x, padding).reshape(blocks, length, *x.shape[1:]))


def unfold(
    x: Float[Array, "L *rest blocks*N"], blocks: int, count: int
) -> Float[Array, "T *rest N"]:
    """[L, …, blocks · N] as the first ``count`` steps of [blocks · L, …, N]."""
    found = apart(x, blocks)
    return found.reshape(-1, *found.shape[2:])[:count]
