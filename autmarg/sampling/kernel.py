"""Independence Metropolis as a kernel of NumPyro's ``MCMC``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import constrain_fn

from autmarg.compat.numpyro import is_prng_key
from autmarg.errors import RequestError
from autmarg.sampling.adapt import Round
from autmarg.sampling.independence import Unfit, adaptation
from autmarg.sampling.metropolis import WORTH, proposals_for
from autmarg.sampling.target import Target
from autmarg.sampling.weights import normalised

_USUAL = 4_000  # draws that adaptation is meant for: a kernel is not told


class IndependenceState(NamedTuple):
    """A chain of :class:`IndependenceSampler`.

    Attributes:
        z: unconstrained values by site.
        log_weight: log p/q there.
        accept_prob: share of the last step's proposals that were accepted.
        rng_key: of the next step.
    """

    z: dict[str, Array]
    log_weight: Array
    accept_prob: Array
    rng_key: Array


class IndependenceSampler(MCMCKernel):
    """Proposals from a mixture of t densities fitted to the posterior, accepted by Metropolis.

    A step draws as many proposals as make a draw worth an independent one, evaluates them side by
    side, and accepts them in turn. The proposal is adapted once, before the first step, so that
    ``num_warmup=0`` is enough. For ``numpyro.infer.MCMC``; ``marg.sample`` is quicker.

    Args:
        model: a NumPyro model with at most twelve dimensions, such as a transformed one.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model
        self._target: Target | None = None
        self._round: Round | None = None
        self._every = 1

    @property
    def sample_field(self) -> str:
        """The field of the state that is the sample."""
        return "z"

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Any,
        model_args: tuple[Any, ...],
        model_kwargs: Mapping[str, Any] | None,
    ) -> IndependenceState:
        """Adapt the proposal, and start each chain at one of its points, drawn by their weights.

        Raises:
            RequestError: independence sampling does not suit the posterior; it says why.
        """
        target = Target(self.model, model_args, model_kwargs or {})
        # (not from the chains' keys, which may be traced: the proposal is one for all of them)
        found = adaptation(target, np.random.default_rng(0), {}, _USUAL)
        if isinstance(found, Unfit):
            raise RequestError(
                f"independence sampling does not suit this posterior: {found.reason}. Use NUTS"
            )
        self._target, self._round = target, found
        self._every = proposals_for(found.log_weights, WORTH)
        start = self._start if is_prng_key(rng_key) else jax.vmap(self._start)
        return start(rng_key)

    def _start(self, key: Array) -> IndependenceState:
        assert self._target is not None and self._round is not None
        now = self._round
        weights = jnp.asarray(normalised(now.log_weights))
        place = jax.random.choice(key, len(now.points), p=weights)
        z = self._target.unconstrained(now.warp.x(jnp.asarray(now.points)[place]))
        return IndependenceState(
            z, jnp.asarray(now.log_weights)[place], jnp.zeros(()), jax.random.fold_in(key, 1)
        )

    def sample(
        self, state: IndependenceState, model_args: Any, model_kwargs: Any
    ) -> IndependenceState:
        """One step."""
        if jnp.ndim(state.log_weight):
            return jax.vmap(self._step)(state)
        return self._step(state)

    def _step(self, state: IndependenceState) -> IndependenceState:
        assert self._target is not None and self._round is not None
        target, proposal = self._target, self._round.proposal
        after, drawing, accepting = jax.random.split(state.rng_key, 3)
        y, warp = proposal.drawn(drawing, self._every), self._round.warp
        x = warp.x(y)
        log_weights = jax.vmap(target.at)(x) + warp.log_slope(y) - proposal.log_density(y)
        log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
        noise = jnp.log(jax.random.uniform(accepting, (self._every,)))

        def offer(now: tuple[Array, Array], each: tuple[Array, Array, Array]) -> Any:
            (weight, place), (new, u, k) = now, each
            taken = u < new - weight
            return (jnp.where(taken, new, weight), jnp.where(taken, k, place)), taken

        start = (state.log_weight, jnp.asarray(-1))
        (weight, place), taken = jax.lax.scan(
            offer, start, (log_weights, noise, jnp.arange(self._every))
        )
        moved = target.unconstrained(x[place])
        z = {name: jnp.where(place < 0, state.z[name], own) for name, own in moved.items()}
        return IndependenceState(z, weight, taken.astype(weight.dtype).mean(), after)

    def postprocess_fn(self, model_args: Any, model_kwargs: Any) -> Callable[..., Any]:
        """Unconstrained values → values of all sites."""

        def values(z: dict[str, Array]) -> Any:
            return constrain_fn(
                self.model, model_args, model_kwargs or {}, z, return_deterministic=True
            )

        return values


__all__ = ["IndependenceSampler", "IndependenceState"]
