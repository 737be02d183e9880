"""Gaussian chains in time: read as normal steps, each given the steps before it.

Their covariance over all steps is never formed: the mean of a step reads the value of the step
before, which the elimination knows as a recurrence.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from autmarg.analysis.families.base import Gaussian


def gaussian_random_walk(d: Any) -> Gaussian:
    """x_t = x_{t-1} + σ ε_t along the last axis, x_0 = 0."""

    def before(value: Any) -> Any:
        return jnp.concatenate([jnp.zeros_like(value[..., :1]), value[..., :-1]], axis=-1)

    return Gaussian(0.0, scale=jnp.asarray(d.scale)[..., None], past=before)


def gaussian_state_space(d: Any) -> Gaussian:
    """x_t = A x_{t-1} + L ε_t along the last two axes (time, state), x_0 the initial value."""

    def before(value: Any) -> Any:
        start = jnp.broadcast_to(d.initial_value, value[..., 0, :].shape)
        past = jnp.concatenate([start[..., None, :], value[..., :-1, :]], axis=-2)
        return jnp.einsum("ij,...tj->...ti", d.transition_matrix, past)

    factor = jnp.expand_dims(d.scale_tril, -3)
    factor = jnp.broadcast_to(factor, (*factor.shape[:-3], d.num_steps, *factor.shape[-2:]))
    return Gaussian(0.0, scale_tril=factor, event_dim=1, past=before)
