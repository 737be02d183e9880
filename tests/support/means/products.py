"""Products of latents with known arrays and with kept latents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.means.data import G4, G5, SPARSE, SQUARE, X3, X5, X12, Mean, N, X

MEANS: dict[str, Mean] = dict(
    one_hot=lambda v: np.eye(5)[G5] @ v.u,
    one_hot_jax=lambda v: jax.nn.one_hot(G5, 5) @ v.u,
    one_hot_comparison=lambda v: ((G5[:, None] == np.arange(5)) * v.u).sum(-1),
    one_hot_einsum=lambda v: jnp.einsum("ng,g->n", jax.nn.one_hot(G5, 5), v.u),
    one_hot_slopes=lambda v: jnp.einsum("ng,gk,nk->n", jax.nn.one_hot(G4, 4), v.w, X3),
    matvec=lambda v: X5 @ v.u,
    vecmat=lambda v: v.u @ X5.T,
    matvec_float32=lambda v: X5.astype(np.float32) @ v.u,
    matvec_integer=lambda v: np.arange(10).reshape(2, 5) @ v.u,
    matvec_boolean=lambda v: jnp.dot(X5 > 0, v.u),
    matmul=lambda v: X12[:, :4] @ v.w,
    dot=lambda v: jnp.dot(X12, v.z),
    dot_three_dimensional=lambda v: jnp.dot(X12.reshape(N, 4, 3), v.w.T),
    dot_columns=lambda v: jnp.column_stack([X, X**2, X**3]) @ v.w[1],
    vdot=lambda v: jax.vmap(jnp.vdot)(X3, v.w[G4]),
    vdot_whole=lambda v: jnp.vdot(X12[0], v.w),
    inner=lambda v: jnp.inner(X5, v.u),
    tensordot=lambda v: jnp.tensordot(X12.reshape(N, 4, 3), v.w, 2),
    tensordot_axes=lambda v: jnp.tensordot(v.w, X3, axes=[[1], [1]]),
    einsum=lambda v: jnp.einsum("nk,nk->n", X3, v.w[G4]),
    einsum_whole=lambda v: jnp.einsum("nij,ij->n", X12.reshape(N, 4, 3), v.w),
    einsum_implicit=lambda v: jnp.einsum("ij,kj", v.w, X3),
    einsum_trace=lambda v: jnp.einsum("ii->i", v.w[:3]),
    multi_dot=lambda v: jnp.linalg.multi_dot([X5, SQUARE, v.u]),
    vecdot=lambda v: jnp.linalg.vecdot(X3, v.w[G4]),
    matvec_function=lambda v: jnp.matvec(X5, v.u),
    outer_known=lambda v: jnp.outer(X[:4], v.u),
    outer_opaque=lambda v: jnp.outer(v.tau, v.u),
    kron=lambda v: jnp.kron(np.array([1.0, -2.0]), v.u),
    kron_matrix=lambda v: jnp.kron(v.w, np.eye(2)),
    sum_product=lambda v: (X3 * v.w[G4]).sum(-1),
    sum_builtin=lambda v: sum(X3[:, k] * v.w[G4, k] for k in range(3)),
    sparse_product=lambda v: SPARSE @ v.u,
    mul_integer=lambda v: 3 * v.u + np.arange(5),
    mul_boolean=lambda v: (X5[:, 0] > 0) * v.c,
    division=lambda v: v.u / np.arange(1, 6) - v.u / v.ell,
    polynomial=lambda v: v.u[0] + X * (v.u[1] + X * (v.u[2] + X * v.u[3])),
    polyval=lambda v: jnp.polyval(v.u, X),
    vander=lambda v: jnp.vander(X, 5) @ v.u,
    broadcast_rows=lambda v: v.w[:, :, None] + v.u[None, None, :] + v.c,
    broadcast_ones=lambda v: v.u[:, None] * np.ones((1, 1)) + np.zeros((1, 4)),
    empty_columns=lambda v: v.c + np.zeros((N, 0)) @ v.u[:0],
    transposes=lambda v: v.w.T - v.w.swapaxes(0, 1) / 2 + jnp.moveaxis(v.w, 0, 1),
)
