"""NUTS for a transformed model: what its plan knows about the mass matrix, and one compilation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from autmarg.compat.jaxprs import is_traced
from autmarg.compat.numpyro import Kernel, is_prng_key, sampled_sites
from autmarg.compat.xla import quick
from autmarg.ir.nodes import Param
from autmarg.ir.program import Program
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


@dataclass(frozen=True)
class _Start:
    """NumPyro's start of a chain from an initial point as one program.

    Attributes:
        own: NumPyro's function.
        outermost: whether no other program is traced around it; only then does JAX take options.
    """

    own: Callable[..., Any]
    outermost: bool

    def __call__(self, init_params: Any, *, rng_key: Any, **options: Any) -> Any:
        def start(params: Any, key: Any) -> Any:
            return self.own(params, rng_key=key, **options)

        compiler_options = quick() if self.outermost else None
        return jax.jit(start, compiler_options=compiler_options)(init_params, rng_key)


def keeps_values(program: Program) -> bool:
    """Whether only NumPyro's kernel can run a program: it keeps params and mutable sites."""
    return bool(program.obstacles) or any(isinstance(n, Param) for n in program.nodes)


class MarginalNUTS(Kernel):
    """NUTS with a dense block of the mass matrix, whose initial point one compiled program finds.

    Args:
        model: a NumPyro model.
        plan: the model's arguments → its plan. It is asked when the kernel meets the arguments.
        options: of :class:`numpyro.infer.NUTS`; ``dense_mass`` overrides the block.
    """

    def __init__(
        self, model: Callable[..., Any], plan: Callable[..., Plan], **options: Any
    ) -> None:
        super().__init__(model, **options)
        self._plan = plan
        self._own_block = "dense_mass" not in options

    def initial_point(
        self,
        search: Callable[[Any], Any],
        rng_key: Any,
        model_args: tuple[Any, ...],
        model_kwargs: Mapping[str, Any],
        given: Any,
    ) -> Any:
        """See :class:`~autmarg.compat.numpyro.Kernel`."""
        # NumPyro runs the model, and the search of a single chain, operation by operation and
        # compiles each; the search of several chains is one program. So one chain is made a row
        # of chains, and all of it is one program.
        plan = self._plan(*model_args, **model_kwargs)
        single, known = is_prng_key(rng_key), self.start
        outermost = not isinstance(rng_key, Tracer)

        def find(key: Any) -> Any:
            found = search(key[None] if single else key)
            row = single and given is None
            return jax.tree.map(lambda x: x[0], found) if row else found

        found = None
        if outermost and not keeps_values(plan.program):
            found = jax.jit(find, compiler_options=quick())(rng_key)
        if found is None or not self._holds(found):
            self.start = known
            found = find(rng_key)
        own = self.start.own if isinstance(self.start, _Start) else self.start
        self.start = own and _Start(own, outermost)
        if self._own_block:
            sampled = sampled_sites(found)
            block = tuple(name for name in dense_block(plan) if name in sampled)
            self.join([block] if block else [])
        return found

    def _holds(self, found: Any) -> bool:
        """Whether an initial point found in a trace is valid, and no support was left there.

        Where there is no valid point, NumPyro says why if it runs untraced.
        """
        left = is_traced(self.inverse_transforms)
        return not left and all(
            np.isfinite(x).all() for x in jax.device_get(jax.tree.leaves(found))
        )

    def postprocess_fn(self, model_args: Any, model_kwargs: Any) -> Callable[..., Any]:
        """Unconstrained values → values of all sites; compiled, for NumPyro also calls it bare."""
        return jax.jit(super().postprocess_fn(model_args, model_kwargs))
