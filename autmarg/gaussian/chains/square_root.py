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

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.chains.filtering import scan
from autmarg.gaussian.chains.recurrence import Recurrence
from autmarg.gaussian.rotations import Reflections, rotated_back, triangularise

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_EXACT: Any = {"precision": "highest"}
# (step, root S [D, D, B] over some elements of a state, which) → L and the gain there.
Update: TypeAlias = Callable[[Array | int, Array, np.ndarray], tuple[Array, Array]]


class Roots(NamedTuple):
    """L_t [·, ·, B] with LLᵀ = I + SᵀHS, the gain by which forces become L⁻¹SᵀE_t, and U into the
    next step; of ``first`` steps (each with what is before it) one by one, and of full ones."""

    first: list[tuple[Array, Array, Reflections]]
    lower: Float[Array, "T D D B"]
    gain: Float[Array, "T D forces B"]
    rotation: Reflections


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
        update: Update,
        forces: int,
    ) -> Roots:
        """The roots: of the first states, which hold less than a full one, one by one.

        Args:
            step, noise: A [T, D, D, B] and Q [T, D, d, B].
            update: for :func:`by_information` or :func:`by_rows`.
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
            lower, gain = update(t, root, now)
            inside = now

        def one(
            carry: tuple[Array, Array, Array], at: tuple[Array, Array, Array]
        ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Reflections]]:
            root, lower, gain = carry
            t, a, fresh = at
            root, rotation = _moved(lower, root, a, fresh)
            return (root, *update(t, root, inside)), (lower, gain, rotation)

        rest = jnp.arange(q + 1, self.recurrence.steps)
        often = np.flatnonzero(real[-1])
        a, fresh = (x[q + 1 :, inside] for x in (step, noise))
        steps = (rest, a[:, :, inside], fresh[:, :, often])
        (_, *end), (lower, gain, rotation) = scan(one, (root, lower, gain), steps)
        lower, gain = (
            jnp.concatenate([x, last[None]]) for x, last in zip((lower, gain), end, strict=True)
        )
        return Roots(first, lower, gain, rotation)

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

        def backward(
            zeta: Array, at: tuple[Array, Array, Reflections, Array]
        ) -> tuple[Array, Array]:
            lower, shift, rotation, fresh = at
            before = rotated_back(rotation, jnp.concatenate([zeta, fresh]))
            innovation, eta = before[: len(before) - len(shift)], before[len(before) - len(shift) :]
            return (small.solve_upper(lower, shift + eta) if eta.size else eta), innovation

        fresh = flat[end - full * new : end].reshape(full, new, chains)
        steps = (roots.lower[:-1], shifts[:-1], roots.rotation, fresh)
        zeta, rest = scan(backward, zeta, steps, reverse=True)
        drawn, end = [self._wide(rest, often, d)], end - full * new
        for k in reversed(range(q)):
            lower, gain, rotation = roots.first[k]
            shift = jnp.einsum(
                "ijb,jb->ib", gain, force[k - 1], **_EXACT
            )  # (none before the first)
            more = rotation.vector.shape[1] - len(zeta)
            zeta, innovation = backward(zeta, (lower, shift, rotation, flat[end - more : end]))
            drawn.append(self._wide(innovation[None], np.flatnonzero(real[k]), d))
            end -= more
        return jnp.concatenate(drawn[::-1])

    def _wide(
        self, innovations: Float[Array, "t places B"], places: Int[np.ndarray, "places"], d: int
    ) -> Float[Array, "t d B"]:
        """[·, d, B] with zeros at other places."""
        if len(places) == d:
            return innovations
        wide = jnp.zeros((len(innovations), d, innovations.shape[-1]), innovations.dtype)
        return wide.at[:, places].set(innovations, unique_indices=True)


def by_information(information: Float[Array, "T D D B"]) -> Update:
    """L with LLᵀ = I + SᵀHS and the gain L⁻¹Sᵀ, of H [T, D, D, B]."""

    def update(t: Array | int, root: Array, inside: np.ndarray) -> tuple[Array, Array]:
        own = information[t][inside][:, inside]
        turned = jnp.swapaxes(root, 0, 1)
        lower = small.cholesky(small.eye_plus(turned, small.product(own, root)))
        gain = small.solve_lower(lower, turned)
        if inside.all():
            return lower, gain
        whole = jnp.zeros((len(gain), len(inside), gain.shape[-1]), gain.dtype)
        return lower, whole.at[:, np.flatnonzero(inside)].set(gain, unique_indices=True)

    return update


def by_rows(read: Float[Array, "T n D B"]) -> Update:
    """The same of rows R [T, n, D, B], divided by their noise: H = RᵀR, and gains turn rows.

    L comes from [(RS)ᵀ, I] = [L, 0] U: a product of RS with itself would lose half of the digits.
    """

    def update(t: Array | int, root: Array, inside: np.ndarray) -> tuple[Array, Array]:
        seen = jnp.swapaxes(small.product(read[t][:, inside], root), 0, 1)
        d, _, chains = seen.shape
        eye = jnp.broadcast_to(jnp.eye(d, dtype=seen.dtype)[..., None], (d, d, chains))
        lower, _ = triangularise(jnp.concatenate([seen, eye], axis=1))
        return lower, -small.solve_lower(lower, seen)

    return update


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
