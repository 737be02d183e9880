"""Steps of NUTS chains over one vector, and energies with their gradients, compiled once each.

The loop of steps is a program of ours, not of NumPyro's ``MCMC``: data are its arguments, it is
found on disk, and XLA compiles it by the options of :func:`autmarg.compat.xla.sooner`. It takes as
many steps as it is asked for, so that warm-up, draws and progress are calls of the same executable.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.compat.kernels import (
    Averaging,
    Numbers,
    Place,
    averaged,
    averaging_from,
    step_size_of,
    transition,
)
from autmarg.compat.programs import compiled, traced_once
from autmarg.sampling.coordinates import Kind
from autmarg.sampling.metric import Frame
from autmarg.sampling.space import Space

_MOST = 100  # steps of one call
_BUFFER = 2**22  # numbers that the draws of one call may take
_POINTS = 16  # of which one call gives energies and gradients


class Chain(NamedTuple):
    """What a chain carries from step to step.

    Attributes:
        place: in coordinates of a frame.
        key: a raw random key.
        step_size: of the next step.
        averaging: of step sizes while they adapt.
    """

    place: Place
    key: Array
    step_size: Array
    averaging: Averaging

    @classmethod
    def started(cls, place: Place, key: Array) -> Chain:
        """A chain in a frame in which the density is about as wide as one in every direction."""
        size = jnp.asarray(len(place.point) ** -0.25, jnp.result_type(float))
        return cls(place, jax.random.key_data(key), size, averaging_from(size))


class Steps(NamedTuple):
    """What some steps gave: of each draw w and the gradient of the energy there, and statistics."""

    draws: Numbers
    gradients: Numbers
    potential_energy: Numbers
    energy: Numbers
    num_steps: Numbers
    accept_prob: Numbers
    diverging: Numbers


class Stepper:
    """NUTS on the energy of a space.

    Args:
        space: whose points are sampled.
        together: whether chains go side by side in one program, as suits an accelerator.
        threads: how many chains run at the same time otherwise.
        briefly: whether energies and gradients outside of the loop, some two thousand of them in
            the search of four starts, take less time than half of their compilation.

    Attributes:
        space: whose points are sampled.
        size: dimensions p.
        real: which are those of sites over all reals, [p].
        reach: by how much of their size points differ whose gradients make a Hessian.
        most: steps of one call.
    """

    def __init__(
        self, space: Space, *, together: bool, threads: int = 1, briefly: bool = False
    ) -> None:
        self.space, self.size = space, space.size
        self.together, self.threads = together, threads
        self.real = space.of_kind(Kind.REAL)
        self.reach = 1e-4 if space.digits > 10 else 1e-2
        self.most = max(1, min(_MOST, _BUFFER // max(space.size, 1)))
        self._energy = traced_once(space.energy)
        some = jax.vmap(self._steps, (0, 0, None, None)) if together else self._steps
        self._run, self._energies = compiled(some), compiled(self._rows, briefly=briefly)

    def compile(self, chains: list[Chain], frames: list[Frame]) -> None:
        """Compile the loop of steps for chains and frames like these."""
        some = chains if self.together else chains[:1]
        self._take(some, frames[: len(some)], 0, False)

    def take(
        self, chains: list[Chain], frames: list[Frame], count: int, *, adapting: bool = False,
        watch: Callable[[int], Any] = lambda _: None,
    ) -> tuple[list[Chain], list[Steps]]:  # fmt: skip
        """So many steps of every chain.

        Args:
            chains: one for each frame, which they are in.
            frames: coordinates.
            count: steps of each.
            adapting: whether step sizes change at each step.
            watch: called with the number of steps just taken.
        """
        taken: list[list[Steps]] = []
        while count > 0 or not taken:
            some = min(count, self.most)
            chains, out = self._take(chains, frames, some, adapting)
            taken.append([Steps(*(np.asarray(x)[:some] for x in each)) for each in out])
            count -= some
            watch(some * len(chains))
        return chains, [
            Steps(*map(np.concatenate, zip(*each, strict=True)))
            for each in zip(*taken, strict=True)
        ]

    def _take(
        self, chains: list[Chain], frames: list[Frame], count: int, adapting: bool
    ) -> tuple[list[Chain], list[Steps]]:
        options = jnp.asarray(adapting), jnp.asarray(count)
        if not self.together:
            double = jax.config.read("jax_enable_x64")  # which a thread does not inherit

            def run(chain: Chain, frame: Frame) -> tuple[Chain, Steps]:
                with jax.enable_x64(double):
                    return jax.block_until_ready(self._run(chain, frame, *options))

            if self.threads == 1:
                each = list(map(run, chains, frames))
            else:
                with ThreadPoolExecutor(self.threads) as pool:
                    each = list(pool.map(run, chains, frames))
            return [c for c, _ in each], [out for _, out in each]
        stacked = [jax.tree.map(lambda *xs: jnp.stack(xs), *each) for each in (chains, frames)]
        found = jax.device_get(self._run(*stacked, *options))
        rows = [jax.tree.map(lambda x, k=k: x[k], found) for k in range(len(chains))]
        return [c for c, _ in rows], [out for _, out in rows]

    def _steps(
        self, chain: Chain, frame: Frame, adapting: Array, count: Array
    ) -> tuple[Chain, Steps]:
        def energy(w: Array) -> Array:
            return self._energy(frame.z(w))

        def step(k: Array, carried: tuple[Chain, Steps]) -> tuple[Chain, Steps]:
            chain, out = carried
            key, own = jax.random.split(jax.random.wrap_key_data(chain.key))
            new = transition(energy, chain.place, chain.step_size, own)
            later = averaged(chain.averaging, new.accept_prob)
            size = jnp.where(adapting, step_size_of(later, average=False), chain.step_size)
            chain = Chain(new.place, jax.random.key_data(key), size, later)
            point, potential, gradient = new.place
            row = Steps(
                point, gradient, potential, new.energy, new.num_steps, new.accept_prob,
                new.diverging,
            )  # fmt: skip
            return chain, jax.tree.map(lambda xs, x: xs.at[k].set(x), out, row)

        point, number = chain.place.point, chain.place.energy
        kinds = Steps(point, point, number, number, jnp.zeros((), int), number, jnp.zeros((), bool))
        out = jax.tree.map(lambda x: jnp.zeros((self.most, *x.shape), x.dtype), kinds)
        return jax.lax.fori_loop(0, count, step, (chain, out))

    def places(self, points: np.ndarray) -> Place:
        """Energies [n] and gradients [n, p] in z at points z [n, p]."""
        found = [Place(points[:0], np.zeros(0), points[:0])]
        for k in range(0, len(points), _POINTS):
            some = points[k : k + _POINTS]
            padded = np.zeros((_POINTS, self.size), jnp.result_type(float))
            padded[: len(some)] = some
            # (arrays of JAX take longer to make, and to slice, than a gradient does)
            both = self._energies(padded, np.asarray(len(some), jnp.result_type(int)))
            energies, slopes = (np.asarray(x)[: len(some)] for x in both)
            found.append(Place(some, energies, slopes))
        parts = zip(*found, strict=True)
        return Place(*(np.concatenate([np.asarray(x, float) for x in each]) for each in parts))

    def place(self, point: np.ndarray) -> Place:
        """The same at one point z [p]."""
        return Place(*(x[0] for x in self.places(point[None])))

    def _rows(self, points: Array, count: Array) -> tuple[Array, Array]:
        def row(k: Array, out: tuple[Array, Array]) -> tuple[Array, Array]:
            found = jax.value_and_grad(self._energy)(points[k])
            energies, slopes = (x.at[k].set(own) for x, own in zip(out, found, strict=True))
            return energies, slopes

        return jax.lax.fori_loop(0, count, row, (jnp.zeros(len(points)), jnp.zeros_like(points)))


__all__ = ["Chain", "Stepper", "Steps"]
