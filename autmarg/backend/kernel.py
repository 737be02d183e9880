"""NUTS for a transformed model: what its plan knows about the mass matrix, and one compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from numpyro.infer import NUTS
from numpyro.util import is_prng_key

from autmarg.plan.plan import Plan

_TOGETHER = 32  # dimensions whose joint covariance a usual warm-up can learn


def dense_block(plan: Plan) -> tuple[str, ...]:
    """Names of the sampled sites that belong into one dense block of the mass matrix, sorted.

    Scales, correlations and whatever else is small, but no effects with a prior that reads other
    latents: the smallest sites first, to 32 unconstrained dimensions in all.
    """
    sizes = plan.dimensions
    others = [name for name in plan.kept if name not in plan.centrings and sizes[name]]
    chosen, total = [], 0
    for name in sorted(others, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total > _TOGETHER:
            break
        chosen.append(name)
    return tuple(sorted(chosen))


@contextlib.contextmanager
def _compiled_for_one_run() -> Iterator[None]:
    """Compile with little optimisation for a while: the search of an initial point runs once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


class MarginalNUTS(NUTS):
    """NUTS with a dense block of the mass matrix, and an initial point that is found compiled.

    Args:
        model: a NumPyro model.
        plan: the model's arguments → its plan. It is asked when the kernel meets the arguments.
        options: of :class:`numpyro.infer.NUTS`; ``dense_mass`` overrides the block.
    """

    def __init__(
        self, model: Callable[..., Any], plan: Callable[..., Plan], **options: Any
    ) -> None:
        super().__init__(model, **options)
        self._plan = None if "dense_mass" in options else plan

    def _init_state(
        self, rng_key: Any, model_args: Any, model_kwargs: Any, init_params: Any
    ) -> Any:
        # NumPyro evaluates the potential of a single chain operation by operation and compiles
        # each; that of several chains is one program. So one chain is made a row of chains.
        single = is_prng_key(rng_key)
        keys = rng_key[None] if single else rng_key
        with _compiled_for_one_run():
            found = super()._init_state(keys, model_args, model_kwargs, init_params)
        if single and init_params is None:
            found = jax.tree.map(lambda x: x[0], found)
        if self._plan is not None:
            sampled = {*getattr(found, "z", found)}
            names = dense_block(self._plan(*model_args, **model_kwargs))
            block = tuple(name for name in names if name in sampled)
            self._dense_mass = [block] if block else []
        return found
