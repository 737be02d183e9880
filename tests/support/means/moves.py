"""Entries of latents moved about: joined, padded, repeated, updated, summed by segments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.support.means.data import G3, G4, G5, G12, SQUARE, Mean, N, X

MEANS: dict[str, Mean] = dict(
    concatenate=lambda v: jnp.concatenate([v.u, v.z, v.w.ravel()]),
    stack=lambda v: jnp.stack([v.u, v.u[::-1], jnp.ones(5)], axis=1),
    stack_of_scalars=lambda v: jnp.array([v.c, v.u[0], 1.0, v.u[1] - v.c]),
    hstack=lambda v: jnp.hstack([v.c, v.u]),
    vstack=lambda v: jnp.vstack([v.u, 2 * v.u]),
    column_stack=lambda v: jnp.column_stack([v.u, v.ell * v.u]),
    block=lambda v: jnp.block([v.u, v.z]),
    split=lambda v: jnp.split(v.z, 3)[1] + jnp.split(v.z, [4, 8])[0],
    array_split=lambda v: jnp.array_split(v.z, 5)[0],
    unpacked=lambda v: next(a * X + b for a, b, *_ in [v.u]),
    roll=lambda v: jnp.roll(v.z, 2) - jnp.roll(v.w, 1, axis=0).ravel(),
    flip=lambda v: jnp.flip(v.w, 0) + jnp.fliplr(v.w),
    rot90=lambda v: jnp.rot90(v.w),
    tile=lambda v: jnp.tile(v.u, (2, 2)),
    repeat=lambda v: jnp.repeat(v.u, 2),
    repeat_counts=lambda v: jnp.repeat(v.u, np.array([1, 0, 2, 3, 1])),
    repeat_counts_length=lambda v: jnp.repeat(
        v.u, np.bincount(G5, minlength=5), total_repeat_length=N
    ),
    reshape=lambda v: v.z.reshape(3, 4).T.reshape(-1) + jnp.ravel(v.w, order="F"),
    pad=lambda v: jnp.pad(v.u, 2),
    pad_constant=lambda v: jnp.pad(v.w, ((1, 0), (0, 2)), constant_values=0.7),
    pad_edge=lambda v: jnp.pad(v.u, 2, mode="edge"),
    pad_wrap=lambda v: jnp.pad(v.u, 2, mode="wrap"),
    pad_interior=lambda v: lax.pad(v.u, 0.0, [(1, 1, 1)]),
    expand_squeeze=lambda v: jnp.squeeze(jnp.expand_dims(v.u, (0, 2))),
    broadcast_to=lambda v: jnp.broadcast_to(v.u, (3, 5)),
    diagonal=lambda v: jnp.diag(v.u) @ np.ones(5) + jnp.diagonal(SQUARE * v.u),
    tril=lambda v: jnp.tril(v.w) + jnp.triu(v.w),
    where=lambda v: jnp.where(X > 0, v.u[G5], v.w[G4, 0]),
    where_scalar=lambda v: jnp.where(X > 0, v.c, 0.0),
    where_levels=lambda v: jnp.where(np.arange(5) == 2, 0.0, v.u)[G5],
    where_list=lambda v: jnp.select([X > 1, X > 0], [v.u[G5], v.c], -v.c),
    at_set=lambda v: v.u.at[2].set(0.0)[G5],
    at_set_latent=lambda v: jnp.zeros(8).at[np.array([1, 3, 5, 6, 7])].set(v.u),
    at_set_slice=lambda v: v.z.at[2:5].set(v.w[:3, 0]),
    at_set_row=lambda v: v.w.at[1].set(v.u[:3]),
    at_add=lambda v: v.u.at[np.array([1, 1, 3])].add(v.c),
    at_add_latent=lambda v: jnp.zeros(N).at[G12 % N].add(v.u[G5]),
    at_add_drop=lambda v: jnp.zeros(4).at[G5].add(v.u[G5], mode="drop"),
    at_subtract=lambda v: v.u.at[0].subtract(2 * v.c),
    at_multiply=lambda v: v.u.at[np.array([0, 2])].multiply(-1.5),
    at_multiply_opaque=lambda v: v.w.at[:, 1].multiply(v.ell),
    at_divide=lambda v: v.u.at[1].divide(2.0),
    segment_sum=lambda v: jax.ops.segment_sum(v.z, np.arange(12) % 4, 4),
    segment_sum_opaque=lambda v: jax.ops.segment_sum(v.ell * v.z, np.arange(12) // 5, 3),
    segment_sum_rows=lambda v: jax.ops.segment_sum(v.w, np.array([0, 2, 2, 0]), num_segments=3),
    dynamic_update=lambda v: lax.dynamic_update_slice(v.z, v.u, (4,)),
    bincount_mean=lambda v: (jax.ops.segment_sum(v.u[G5], G3, 3) / np.bincount(G3, minlength=3))[
        G3
    ],
    astype=lambda v: v.u.astype(float) + jnp.asarray(v.u, float),
    insert=lambda v: jnp.insert(v.u, 2, v.c),
    delete=lambda v: jnp.delete(v.u, 2),
    meshgrid=lambda v: jnp.meshgrid(v.u, np.arange(3))[0],
    resize=lambda v: jnp.resize(v.u, (2, 4)),
    atleast=lambda v: jnp.atleast_2d(v.u) + jnp.atleast_1d(v.c),
    apply_along=lambda v: jnp.apply_along_axis(lambda row: row - row.mean(), 1, v.w),
)
