"""Gaussian chains in time: read as normal steps, each given the steps before it.

Their covariance over all steps is never formed: the mean of a step reads the value of the step
before, which the elimination knows as a recurrence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from autmarg.analysis.families.base import Gaussian, Unread


def gaussian_random_walk(d: Any) -> Gaussian:
    """x_t = x_{t-1} + σ ε_t along the last axis, x_0 = 0."""

    def before(value: Any) -> Any:
        return jnp.concatenate([jnp.zeros_like(value[..., :1]), value[..., :-1]], axis=-1)

    return Gaussian(0.0, scale=jnp.asarray(d.scale)[..., None], past=before)


def recursive(part: Any, inner: Gaussian, kind: str) -> Gaussian:
    """x_t = A x_{t-1} + e_t along the last two axes (time, state), x_0 the initial value.

    Raises:
        Unread: e is not independent in time.
    """
    if inner.past is not None or inner.event_dim > 1:
        raise Unread(f"RecursiveLinearTransform of {kind}")

    def before(value: Any) -> Any:
        start = jnp.broadcast_to(part.initial_value, value[..., 0, :].shape)
        past = jnp.concatenate([start[..., None, :], value[..., :-1, :]], axis=-2)
        return jnp.einsum("...ij,...tj->...ti", part.transition_matrix, past)

    return replace(inner, past=before)
