"""One NUTS chain, step by step: what it took, and where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_MOST = 50  # steps in one call of the compiled loop
_BUFFER = 2**22  # numbers that the draws of one call may take
_CALL = 0.3  # seconds that a call should take: how often a progress bar moves

Watch = Callable[[str, int], Any]


@dataclass(frozen=True, eq=False)
class Chain:
    """What one chain gave.

    Attributes:
        z: unconstrained draws by sampled site, arrays [draws, *shape].
        steps: leapfrog steps of each draw, [draws].
        diverging: whether each draw ended in a divergence, [draws].
        warmup: warm-up steps that were taken.
        warmup_seconds, sampling_seconds: of each phase; compilation is in neither.
        cut: "" if the chain is complete, else the phase in which its time was up: "warm-up" or
            "sampling".
    """

    z: dict[str, Any]
    steps: np.ndarray
    diverging: np.ndarray
    warmup: int
    warmup_seconds: float
    sampling_seconds: float
    cut: str = ""

    @property
    def dimensions(self) -> int:
        """Unconstrained dimensions that NUTS moves in."""
        return sum(int(np.prod(np.shape(v)[1:])) for v in self.z.values())

    @property
    def gradients(self) -> int:
        """Leapfrog steps of all draws, each one gradient."""
        return int(self.steps.sum())


@dataclass(frozen=True, eq=False)
class Sampler:
    """A NUTS kernel on one model and its arguments, its loop of steps compiled; serves all seeds.

    Attributes:
        init_seconds: what the initial point and step size took, compilation included.
        compile_seconds: what the compilation of the loop took.
    """

    kernel: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    warmup: int
    seed: int
    start: Any
    loop: Callable[[Any, Any], tuple[Any, Any]]
    most: int
    init_seconds: float
    compile_seconds: float
    _constrain: list[Any] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        kernel: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        *,
        warmup: int,
        seed: int = 0,
    ) -> Sampler:
        """Initialise a chain and compile its loop.

        Args:
            kernel: a :class:`numpyro.infer.NUTS`.
            args, kwargs: what its model is called with.
            warmup: steps of warm-up; the kernel adapts during these.
            seed: of the first chain.
        """
        given = dict(kwargs or {})
        started = time.perf_counter()
        start = jax.block_until_ready(_initial(kernel, seed, warmup, args, given))
        ready = time.perf_counter()
        size = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(start.z))
        most = max(1, min(_MOST, _BUFFER // max(size, 1)))

        def loop(state: Any, count: Any) -> tuple[Any, Any]:
            def one(k: Any, carried: tuple[Any, Any]) -> tuple[Any, Any]:
                state, out = carried
                state = kernel.sample(state, args, given)
                new = (state.z, state.num_steps, state.diverging)
                return state, jax.tree.map(lambda xs, x: xs.at[k].set(x), out, new)

            draw = (state.z, state.num_steps, state.diverging)
            empty = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), draw)
            return jax.lax.fori_loop(0, count, one, (state, empty))

        compiled: Any = jax.jit(loop).lower(start, jnp.asarray(1)).compile()
        done = time.perf_counter()
        times = (ready - started, done - ready)
        return cls(kernel, args, given, warmup, seed, start, compiled, most, *times)

    def run(
        self, seed: int, draws: int, *, limit: float = float("inf"), watch: Watch | None = None
    ) -> Chain:
        """One chain: warm-up, then draws.

        Args:
            seed: of the chain.
            draws: how many after warm-up.
            limit: seconds for warm-up and draws together. The chain is stopped after the call of
                the loop (0.3 seconds, or one step, whichever is longer) in which they are up.
            watch: called with the phase and the number of steps just taken.
        """
        state = self.start
        if seed != self.seed:
            state = _initial(self.kernel, seed, self.warmup, self.args, self.kwargs)
        warm = _Phase(self, "warm-up", limit, watch)
        state = warm.take(jax.block_until_ready(state), self.warmup)
        if warm.cut:
            taken = _joined([jax.tree.map(lambda x: x[:0], warm.last)])
            return Chain(*taken, warm.steps, warm.seconds, 0.0, "warm-up")
        main = _Phase(self, "sampling", limit - warm.seconds, watch, warm.size)
        main.take(state, draws, keep=True)
        cut = "sampling" if main.cut else ""
        return Chain(*_joined(main.kept), warm.steps, warm.seconds, main.seconds, cut)

    def constrained(
        self, z: Mapping[str, Any], names: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Values of sites at unconstrained draws: those sampled, and those of ``names`` (all)."""
        if not z:  # every latent is integrated out
            return {}
        if not self._constrain:
            one = self.kernel.postprocess_fn(self.args, self.kwargs)

            def wanted(point: Any) -> dict[str, Any]:
                values = one(point).items()
                return {k: v for k, v in values if names is None or k in names or k in point}

            self._constrain.append(jax.jit(jax.vmap(wanted)))
        return dict(self._constrain[0](dict(z)))


class _Phase:
    """Warm-up or sampling: calls of the loop that each take some tenths of a second."""

    def __init__(
        self, sampler: Sampler, name: str, limit: float, watch: Watch | None, size: int = 1
    ) -> None:
        self.sampler, self.name, self.limit, self.watch, self.size = (
            sampler, name, limit, watch, size,
        )  # fmt: skip
        self.seconds, self.steps, self.cut, self.kept = 0.0, 0, False, list[Any]()
        self.last: Any = None

    def take(self, state: Any, count: int, *, keep: bool = False) -> Any:
        """Take so many steps, fewer if the time is up; the state after them."""
        while self.steps < count or self.last is None:
            some = min(self.size, count - self.steps)
            began = time.perf_counter()
            state, out = jax.block_until_ready(self.sampler.loop(state, jnp.asarray(some)))
            taken = time.perf_counter() - began
            self.seconds, self.steps, self.last = self.seconds + taken, self.steps + some, out
            if keep:
                self.kept.append(jax.tree.map(lambda x, n=some: np.asarray(x[:n]), out))
            if self.watch is not None:
                self.watch(self.name, some)
            self.cut = self.seconds > self.limit and self.steps < count
            if self.cut:
                break
            wanted = int(some * _CALL / max(taken, 1e-6))
            self.size = max(1, min(self.sampler.most, 4 * self.size, wanted))
        return state


def _initial(kernel: Any, seed: int, warmup: int, args: Any, kwargs: Any) -> Any:
    return kernel.init(jax.random.key(seed), warmup, None, args, kwargs)


def _joined(parts: list[Any]) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    z, steps, diverging = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    return z, steps, diverging


__all__ = ["Chain", "Sampler", "Watch"]
