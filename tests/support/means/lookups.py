"""Lookups: entries and slices of latents by known indices."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.support.means.data import G3, G4, G5, G12, UP, Mean, X

MEANS: dict[str, Mean] = dict(
    index=lambda v: v.u[G5],
    index_negative=lambda v: v.u[G5 - 5],
    index_jnp=lambda v: v.u[jnp.asarray(G5)],
    index_int8=lambda v: v.u[G5.astype(np.int8)],
    index_unsigned=lambda v: v.u[G5.astype(np.uint32)],
    index_list=lambda v: v.u[jnp.array(list(G5))],
    index_boolean=lambda v: v.u[np.array([True, False, True, True, False])],
    index_two_dimensional=lambda v: v.u[np.stack([G5, (G5 + 1) % 5], 1)],
    index_none=lambda v: v.u[None, :, None] * np.ones((2, 1, 3)),
    index_slice=lambda v: v.u[1:4] + v.u[::-2],
    index_scalar=lambda v: v.u[2] * X,
    index_then_component=lambda v: v.w[G4][..., 1],
    index_pair=lambda v: v.w[G4, 1],
    index_pairs=lambda v: v.w[G4, G3],
    index_pairs_ix=lambda v: v.w[np.ix_([0, 2], [1, 2])],
    index_mixed=lambda v: v.w[G4, :2] @ np.ones(2),
    index_boolean_two=lambda v: v.w[np.arange(12).reshape(4, 3) % 2 == 0],
    index_reshaped=lambda v: v.w.reshape(-1)[G4 * 3 + G3],
    lookup_through_lookup=lambda v: v.w[:, 0][UP[G5]],
    lookup_of_lookup=lambda v: v.u[UP][G5],
    take=lambda v: jnp.take(v.u, G5),
    take_axis=lambda v: jnp.take(v.w, G3, axis=1).sum(0),
    take_axis_none=lambda v: jnp.take(v.w, G12),
    take_clip=lambda v: jnp.take(v.u, G5 + 2, mode="clip"),
    take_wrap=lambda v: jnp.take(v.u, G5 + 3, mode="wrap"),
    take_fill=lambda v: jnp.take(v.u, G5 + 2, mode="fill", fill_value=0.0),
    take_fill_one=lambda v: jnp.take(v.u, G5 + 2, mode="fill", fill_value=1.5),
    take_along_axis=lambda v: jnp.take_along_axis(v.w, G4[:9].reshape(3, 3) % 3, axis=0),
    at_get=lambda v: v.u.at[G5].get(),
    at_get_fill=lambda v: v.u.at[G5 + 2].get(mode="fill", fill_value=-1.0),
    take_scalar=lambda v: v.u.take(3) + v.c,
    dynamic_index=lambda v: lax.dynamic_index_in_dim(v.w, 2, keepdims=False),
    dynamic_slice=lambda v: lax.dynamic_slice(v.z, (3,), (5,)),
)
