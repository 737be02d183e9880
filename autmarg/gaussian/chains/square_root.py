"""The square-root filter of chains, by which their draws are made.

With s_t = μ_t w + S_t ζ_t, P = S Sᵀ, I + SᵀHS = LLᵀ and noise ξ, ζ_t = L⁻ᵀ(L⁻¹SᵀE w + η_t), and an
orthogonal matrix U turns (z_{t+1}, η_t) into (ζ_{t+1}, ξ_t) where [Q, A S L⁻ᵀ] = [S_{t+1}, 0] U. So
noise becomes innovations by orthogonal maps and L⁻ᵀ alone, and the density of a draw is that of its
noise times Π|L_t|. In that order padding, which has noise of its own and no reader, stands at the
same place on both sides, and U keeps it apart.

Arrays are component-major, their last axis that of the chains (:mod:`autmarg.gaussian.small`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.chains.filtering import scan
from autmarg.gaussian.chains.linear import apart, joined, linear_recursion, scan_by_tangents
from autmarg.gaussian.chains.recurrence import Recurrence
from autmarg.gaussian.rotations import Reflections, rotated_back, triangularise

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_EXACT: Any = {"precision": "highest"}
# (data of a step, root S [D, D, B] over some elements of a state, which) → L and the gain there.
Update: TypeAlias = Callable[[Array, Array, np.ndarray], tuple[Array, Array]]
# Elements of a state, up to which only what must goes step by step. With two, a gradient takes half
# of the time at 2,500 steps and as long at 100, and compiles for more than twice as long.
_SMALL = 1


class Roots(NamedTuple):
    """L_t [·, ·, B] with LLᵀ = I + SᵀHS, the gain by which forces become L⁻¹SᵀE_t, and U into the
    next step; of ``first`` steps (each with what is before it) one by one, and of full ones.
    ``back`` is N with ζ_{t-1} = N_t ζ_t + …, where only that goes step by step."""

    first: list[tuple[Array, Array, Reflections]]
    lower: Float[Array, "T D D B"]
    gain: Float[Array, "T D forces B"]
    rotation: Reflections
    back: Float[Array, "T D D B"] | None


@dataclass(frozen=True, eq=False)
class SquareRoot:
    """The filter of a recurrence; ``lag`` and ``place`` [D] are the columns of a state."""

    recurrence: Recurrence
    lag: Int[np.ndarray, "D"]
    place: Int[np.ndarray, "D"]

    @property
    def real(self) -> Bool[np.ndarray, "T d"]:
        """[T, d] which places have noise in draws: padding, too, unless all chains are even."""
        return (self.recurrence.columns[:, 0] >= 0) | (not self.recurrence.even)

    def filter(
        self,
        step: Float[Array, "T D D B"],
        noise: Float[Array, "T D d B"],
        data: Float[Array, "T n D B"],
        update: Update,
        forces: int,
    ) -> Roots:
        """The roots: of the first states, which hold less than a full one, one by one.

        Args:
            step, noise: A [T, D, D, B] and Q [T, D, d, B].
            data: H [T, D, D, B] for :func:`by_information`, R [T, n, D, B] for :func:`by_rows`.
            update: one of these.
            forces: the number of columns of a gain.
        """
        most, real = int(self.lag.max(initial=0)), self.real
        q = most + self.recurrence.ragged if self.recurrence.even else most
        q = min(q, self.recurrence.steps - 1)
        chains = step.shape[-1]
        root = lower = jnp.zeros((0, 0, chains), step.dtype)
        gain = jnp.zeros((0, forces, chains), step.dtype)
        first, inside = [], self.lag < 0
        for t in range(q + 1):
            now = (self.lag <= t) & real[np.maximum(t - self.lag, 0), self.place]
            a, fresh = step[t][now][:, inside], noise[t][now][:, np.flatnonzero(real[t])]
            root, rotation = _moved(lower, root, a, fresh)
            first.append((lower, gain, rotation))
            lower, gain = update(data[t], root, now)
            inside = now

        def one(
            root: Array, at: tuple[Array, Array, Array]
        ) -> tuple[Array, tuple[Array, Array, Reflections]]:
            seen, a, fresh = at
            lower, gain = update(seen, root, inside)
            root, rotation = _moved(lower, root, a, fresh)
            return root, (lower, gain, rotation)

        # A step has the data of the state that it leaves.
        often = np.flatnonzero(real[-1])
        a, fresh = (x[q + 1 :, inside] for x in (step, noise))
        steps = (data[q:-1], a[:, :, inside], fresh[:, :, often])
        back = None
        if len(a) and 0 < len(root) <= _SMALL:
            root, (lower, gain, rotation) = scan_by_tangents(one, root, steps)
            back = _map_back(lower, rotation)
        else:
            root, (lower, gain, rotation) = scan(one, root, steps)
        end = update(data[-1], root, inside)
        lower, gain = (
            jnp.concatenate([x, last[None]]) for x, last in zip((lower, gain), end, strict=True)
        )
        return Roots(first, lower, gain, rotation, back)

    def draw(
        self, roots: Roots, force: Float[Array, "T forces B"], noise: Float[Array, "T d B"]
    ) -> Float[Array, "T d B"]:
        """Innovations [T, d, B] from noise [T, d, B] and forces [T, ·, B]."""
        real, (_, d, chains) = self.real, noise.shape
        often = np.flatnonzero(real[-1])
        # [noises, B]: the last state takes the last D of them, each step before what is new in it.
        flat = noise.reshape(-1, chains)[np.flatnonzero(real)]
        end = len(flat) - roots.lower.shape[1]
        tail = flat[end:]
        if real.all() and not len(self.lag) % d:  # in a state's order: padding meets padding
            tail = tail.reshape(-1, d, chains)[::-1].reshape(-1, chains)
        q, full, new = len(roots.first), len(roots.rotation.scale), len(often)
        shifts = jnp.einsum("tijb,tjb->tib", roots.gain, force[q - 1 :], **_EXACT)
        zeta = small.solve_upper(roots.lower[-1], shifts[-1] + tail)

        fresh = flat[end - full * new : end].reshape(full, new, chains)
        steps = (roots.lower[:-1], shifts[:-1], roots.rotation, fresh)
        if roots.back is None:
            zeta, rest = scan(_backward, zeta, steps, reverse=True)
        else:
            zeta, rest = self._side_by_side(roots.back, zeta, steps)
        drawn, end = [self._wide(rest, often, d)], end - full * new
        for k in reversed(range(q)):
            lower, gain, rotation = roots.first[k]
            shift = jnp.einsum(
                "ijb,jb->ib", gain, force[k - 1], **_EXACT
            )  # (none before the first)
            more = rotation.vector.shape[1] - len(zeta)
            zeta, innovation = _backward(zeta, (lower, shift, rotation, flat[end - more : end]))
            drawn.append(self._wide(innovation[None], np.flatnonzero(real[k]), d))
            end -= more
        return jnp.concatenate(drawn[::-1])

    def _side_by_side(
        self,
        back: Float[Array, "T D D B"],
        zeta: Float[Array, "D B"],
        steps: tuple[Array, Array, Reflections, Array],
    ) -> tuple[Float[Array, "D B"], Float[Array, "T d B"]]:
        """A scan of :func:`_backward`, of which only ζ_{t-1} = N ζ_t + … goes in time."""
        count, side = len(back), jax.tree.map(joined, steps)
        own, _ = _backward(jnp.zeros_like(joined(steps[1])), side)
        matrix = jnp.concatenate([back, jnp.zeros_like(back[:1])])
        force = jnp.concatenate([apart(own, count), zeta[None]])
        found = linear_recursion(matrix, force, reverse=True)
        _, innovations = _backward(joined(found[1:]), side)
        return found[0], apart(innovations, count)

    def _wide(
        self, innovations: Float[Array, "t places B"], places: Int[np.ndarray, "places"], d: int
    ) -> Float[Array, "t d B"]:
        """[·, d, B] with zeros at other places."""
        if len(places) == d:
            return innovations
        wide = jnp.zeros((len(innovations), d, innovations.shape[-1]), innovations.dtype)
        return wide.at[:, places].set(innovations, unique_indices=True)


def _backward(
    zeta: Float[Array, "D B"], at: tuple[Array, Array, Reflections, Array]
) -> tuple[Float[Array, "D B"], Float[Array, "d B"]]:
    """ζ of the step before, and the innovations, from L, the shift, U and the noise of a step."""
    lower, shift, rotation, fresh = at
    before = rotated_back(rotation, jnp.concatenate([zeta, fresh]))
    innovation, eta = before[: len(before) - len(shift)], before[len(before) - len(shift) :]
    return (small.solve_upper(lower, shift + eta) if eta.size else eta), innovation


def _map_back(lower: Float[Array, "T D D B"], rotation: Reflections) -> Float[Array, "T D D B"]:
    """N_t with ζ_{t-1} = N_t ζ_t + … of all steps: L⁻ᵀ times the lower left part of Uᵀ."""
    (count, d), e = lower.shape[:2], rotation.vector.shape[2]
    eye = jnp.eye(e, d, dtype=lower.dtype)[..., None]
    eye = jnp.broadcast_to(eye, (e, d, count * lower.shape[-1]))
    turned = rotated_back(Reflections(*(joined(x) for x in rotation)), eye)
    return apart(small.solve_upper(joined(lower), turned[e - d :]), count)


def by_information(
    information: Float[Array, "D D B"], root: Float[Array, "D D B"], inside: np.ndarray
) -> tuple[Array, Array]:
    """L with LLᵀ = I + SᵀHS and the gain L⁻¹Sᵀ, of H [D, D, B]."""
    own, turned = information[inside][:, inside], jnp.swapaxes(root, 0, 1)
    lower = small.cholesky(small.eye_plus(turned, small.product(own, root)))
    gain = small.solve_lower(lower, turned)
    if inside.all():
        return lower, gain
    whole = jnp.zeros((len(gain), len(inside), gain.shape[-1]), gain.dtype)
    return lower, whole.at[:, np.flatnonzero(inside)].set(gain, unique_indices=True)


def by_rows(
    read: Float[Array, "n D B"], root: Float[Array, "D D B"], inside: np.ndarray
) -> tuple[Array, Array]:
    """The same of rows R [n, D, B], divided by their noise: H = RᵀR, and gains turn rows.

    L comes from [(RS)ᵀ, I] = [L, 0] U: a product of RS with itself would lose half of the digits.
    So would L⁻¹(RS)ᵀ as a solution, whose small entries meet forces as large as RS: it is a part
    of U. (Of one column the solution is a quotient, and quicker.)
    """
    seen = jnp.swapaxes(small.product(read[:, inside], root), 0, 1)
    d, n, chains = seen.shape
    eye = jnp.broadcast_to(jnp.eye(d, dtype=seen.dtype)[..., None], (d, d, chains))
    lower, rotation = triangularise(jnp.concatenate([seen, eye], axis=1))
    if d == 1:
        return lower, -small.solve_lower(lower, seen)
    first = jnp.eye(d + n, d, dtype=seen.dtype)[..., None]
    turned = rotated_back(rotation, jnp.broadcast_to(first, (d + n, d, chains)))
    return lower, -jnp.swapaxes(turned[:n], 0, 1)


def _moved(
    lower: Float[Array, "D D B"],
    root: Float[Array, "D D B"],
    a: Float[Array, "D D B"],
    noise: Float[Array, "D d B"],
) -> tuple[Float[Array, "D D B"], Reflections]:
    """The next root [D, D, B], and U with [Q, A S L⁻ᵀ] = [S, 0] U."""
    if not len(root):
        return triangularise(noise)
    ahead = jnp.swapaxes(small.product(a, root), 0, 1)
    moved = jnp.swapaxes(small.solve_lower(lower, ahead), 0, 1)
    return triangularise(jnp.concatenate([noise, moved], axis=1))
