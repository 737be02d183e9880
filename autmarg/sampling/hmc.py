"""NUTS where it stays the better method: from a model to chains of draws."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer import MCMC
from tqdm.auto import tqdm

from autmarg.backend.nuts import dense_block, keeps_values
from autmarg.compat.kernels import Place
from autmarg.plan.plan import Plan
from autmarg.sampling.coordinates import Kind
from autmarg.sampling.impossible import check_possible
from autmarg.sampling.space import Space, generator_of, has_computed_sites
from autmarg.sampling.start import Start, start
from autmarg.sampling.steps import Chain, Stepper, Steps
from autmarg.sampling.warmup import warmed

if TYPE_CHECKING:
    from autmarg.posterior.after_fit import AfterFit

WARMUP = 150  # more effective draws for each gradient than 500, warm-up counted (docs/sampling.md)
# Seconds of a gradient up to which those of the starts are compiled with little optimisation: that
# saves 0.6 to 0.9 seconds, and takes 0.5 of a gradient longer (1.5 at most) two thousand times.
_BRIEF = 2e-4
_NUMPYROS = 500  # steps of NumPyro's own warm-up
_FIELDS = ("num_steps", "accept_prob", "diverging", "energy", "potential_energy")


@dataclass(frozen=True)
class Asked:
    """How many draws were asked for, and how.

    Attributes:
        num_samples, num_chains: draws of each chain, and chains.
        num_warmup: steps before them, None for the usual number.
        progress: whether a bar shows.
    """

    num_samples: int
    num_chains: int
    num_warmup: int | None
    progress: bool


@dataclass(frozen=True, eq=False)
class Run:
    """Chains of NUTS that have run.

    Attributes:
        samples: values of sites by name, [chains, draws, *shape].
        fields: statistics of each draw by NumPyro's names, [chains, draws].
        warmup: gradients before the draws; None where NumPyro does not tell.
        started: where the chains started, in words.
        seconds: by phase.
        mcmc: NumPyro's object, where it ran them.
    """

    samples: dict[str, Array]
    fields: dict[str, np.ndarray]
    warmup: int | None
    started: str
    seconds: dict[str, float]
    mcmc: MCMC | None = None


def run_nuts(
    marg: AfterFit, plan: Plan, rng_key: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
    asked: Asked,
) -> Run:  # fmt: skip
    """Chains of NUTS on a transformed model.

    Where the model has values that only NumPyro's kernel keeps (params, random numbers drawn in
    it), discrete sites, or no finite density at random points, NumPyro's ``MCMC`` runs them.

    Args:
        marg: the model.
        plan: for its arguments.
        rng_key: a JAX random key.
        args, kwargs: what the model is called with.
        asked: how many draws.

    Raises:
        ModelError: the data are impossible.
    """
    model: Any = marg
    clock, first = Clock(), dense_block(plan)
    if not keeps_values(plan.program):
        predicted = plan.predicted
        brief = predicted is not None and predicted[0].gradient < _BRIEF
        stepper = _stepper(marg, plan, args, kwargs, first, asked, briefly=brief)
        space = stepper.space
        if all(c.kind is not Kind.DISCRETE for c in space.coordinates):
            found = _run(stepper, first, generator_of(rng_key), asked, clock)
            if found is not None:
                return _finished(space, plan, found, clock)
            check_possible(plan.program, model.source, args, kwargs)
    return _by_numpyro(model, rng_key, args, kwargs, asked, clock)


@dataclass(frozen=True, eq=False)
class _Chains:
    """Draws z [chains, draws, p], their statistics, and what came before them."""

    z: np.ndarray
    taken: list[Steps]
    warmup: int
    started: str


def _stepper(
    marg: AfterFit, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any],
    first: tuple[str, ...], asked: Asked, *, briefly: bool,
) -> Stepper:  # fmt: skip
    """What takes steps on this machine; that of an earlier call, if there was one."""
    model: Any = marg
    several = jax.local_device_count() >= asked.num_chains  # as asked for by NumPyro's users
    threads = asked.num_chains if several else 1
    together = jax.default_backend() != "cpu"

    def make() -> Stepper:
        space = Space(model, args, kwargs, first)
        return Stepper(space, together=together, threads=threads, briefly=briefly)

    options = together, threads, briefly
    return model.targets.stepper(plan, options, args, kwargs, make)


def _run(
    stepper: Stepper, first: tuple[str, ...], random: np.random.Generator, asked: Asked,
    clock: Clock,
) -> _Chains | None:  # fmt: skip
    """The chains; None where no random point has a finite density."""
    dense = sum(c.size for c in stepper.space.coordinates if c.name in first)
    starts = [start(stepper, random, dense) for _ in range(asked.num_chains)]
    known = [each for each in starts if each is not None]
    if len(known) < len(starts):
        return None
    clock.lap("start")
    keys = jax.random.split(jax.random.key(int(random.integers(2**31))), asked.num_chains)
    chains = [
        Chain.started(Place(*map(jnp.asarray, each.place)), key)
        for each, key in zip(known, keys, strict=True)
    ]
    frames = [each.frame for each in known]
    stepper.compile(chains, frames)
    clock.lap("compile")
    steps = WARMUP if asked.num_warmup is None else asked.num_warmup
    total = asked.num_chains * (steps + asked.num_samples)
    with tqdm(total=total, unit="step", disable=not asked.progress) as bar:
        chains, frames, warmup = warmed(stepper, chains, frames, steps, bar.update)
        clock.lap("warm up")
        taken = stepper.take(chains, frames, asked.num_samples, watch=bar.update)[1]
    clock.lap("sample")
    z = [np.asarray(f.z(s.draws)) for f, s in zip(frames, taken, strict=True)]
    return _Chains(np.stack(z), taken, warmup, _words(known))


def _words(starts: list[Start]) -> str:
    """Where chains started."""
    unfit = [each.unfit for each in starts if each.unfit]
    if not unfit:
        return "chains start near the mode"
    return f"{len(unfit)} of {len(starts)} chains start at a random point: {unfit[0]}"


def _finished(space: Space, plan: Plan, found: _Chains, clock: Clock) -> Run:
    """With the values of all sites."""
    samples = jax.block_until_ready(space.sites(found.z, has_computed_sites(plan)))
    clock.lap("sites")
    fields = {n: np.stack([getattr(steps, n) for steps in found.taken]) for n in _FIELDS}
    return Run(samples, fields, found.warmup, found.started, clock.seconds)


def _by_numpyro(
    model: Any, rng_key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], asked: Asked,
    clock: Clock,
) -> Run:  # fmt: skip
    """By NumPyro's ``MCMC``, from its start, with its warm-up."""
    together = "parallel" if jax.local_device_count() >= asked.num_chains else "sequential"
    mcmc = MCMC(
        model.nuts(),
        num_warmup=_NUMPYROS if asked.num_warmup is None else asked.num_warmup,
        num_samples=asked.num_samples,
        num_chains=asked.num_chains,
        chain_method=together if jax.default_backend() == "cpu" else "vectorized",
        progress_bar=asked.progress,
    )
    mcmc.run(rng_key, *args, extra_fields=_FIELDS, **kwargs)
    clock.lap("compile and sample")
    fields = {n: np.asarray(x) for n, x in mcmc.get_extra_fields(group_by_chain=True).items()}
    samples = mcmc.get_samples(group_by_chain=True)
    return Run(samples, fields, None, "chains are NumPyro's own", clock.seconds, mcmc)


class Clock:
    """Seconds by phase.

    Attributes:
        seconds: of each phase so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """End a phase."""
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now


__all__ = ["WARMUP", "Asked", "Run", "run_nuts"]
