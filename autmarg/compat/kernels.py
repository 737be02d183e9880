"""NumPyro's NUTS as a pure function: one transition, and the adaptation of its step size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer.hmc import hmc
from numpyro.infer.hmc_util import dual_averaging
from numpyro.infer.util import ParamInfo

TARGET = 0.8  # of the acceptance probability, to which step sizes adapt
_AVERAGING: Any = dual_averaging()
_START, _UPDATE = _AVERAGING

Numbers = Array | np.ndarray
Averaging = tuple[Array, ...]  # log step size, its average, and what these are updated by


class Place(NamedTuple):
    """A point [p] with the energy -log p there, and its gradient [p]."""

    point: Numbers
    energy: Numbers
    gradient: Numbers


class Transition(NamedTuple):
    """Where a transition ended and how it went, by the names of NumPyro's ``extra_fields``."""

    place: Place
    num_steps: Array
    accept_prob: Array
    diverging: Array
    energy: Array


def transition(
    energy: Callable[[Array], Array], place: Place, step_size: Array, key: Array
) -> Transition:
    """One transition of NUTS with a unit mass matrix.

    Args:
        energy: -log p of a point [p].
        place: where it starts. (The energy there is not evaluated again.)
        step_size: of the leapfrog steps.
        key: a JAX random key.
    """
    # What a kernel of MCMC would carry from step to step is made anew, and XLA drops it.
    kernel: Any = hmc(energy, algo="NUTS")
    start, step = kernel
    state = start(
        ParamInfo(*place), num_warmup=0, step_size=step_size, adapt_step_size=False,
        adapt_mass_matrix=False, rng_key=key,
    )  # fmt: skip
    new = step(state)
    reached = Place(new.z, new.potential_energy, new.z_grad)
    return Transition(reached, new.num_steps, new.accept_prob, new.diverging, new.energy)


def averaging_from(step_size: Any) -> Averaging:
    """Dual averaging before its first update, about this step size."""
    return tuple(jnp.asarray(x, jnp.result_type(float)) for x in _START(jnp.log(step_size)))


def averaged(averaging: Averaging, accept_prob: Array) -> Averaging:
    """Dual averaging after a transition with this acceptance probability."""
    found: Any = _UPDATE(TARGET - accept_prob, averaging)
    return tuple(jnp.asarray(x, jnp.result_type(float)) for x in found)


def step_size_of(averaging: Averaging, *, average: bool) -> Array:
    """The step size of the next transition, or the average over all of them."""
    kind = jnp.finfo(jnp.result_type(float))
    return jnp.clip(jnp.exp(averaging[1 if average else 0]), kind.tiny, kind.max)


__all__ = [
    "TARGET", "Averaging", "Numbers", "Place", "Transition", "averaged", "averaging_from",
    "step_size_of", "transition",
]  # fmt: skip
