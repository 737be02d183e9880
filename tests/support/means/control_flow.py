"""JAX's transformations, and control flow: loops, scans, conditions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.support.means.data import G4, G5, SQUARE, TIMES, X3, X5, X12, Mean, X


@functools.partial(jax.custom_jvp, nondiff_argnums=())
def _twice(x):
    return 2.0 * x


_twice.defjvp(lambda primals, tangents: (2.0 * primals[0], 2.0 * tangents[0]))


@jax.custom_vjp
def _thrice(x, y):
    return 3.0 * x + y


_thrice.defvjp(lambda x, y: (3.0 * x + y, None), lambda _, g: (3.0 * g, g))


@jax.custom_gradient
def _clipped(x):
    return x * 1.0, lambda g: jnp.clip(g, -1, 1)


MEANS: dict[str, Mean] = dict(
    vmap=lambda v: jax.vmap(lambda g, x: v.u[g] + v.c * x)(G5, X),
    vmap_in_axes=lambda v: jax.vmap(lambda row, k: row @ k, in_axes=(1, None))(v.w, np.arange(4.0)),
    vmap_nested=lambda v: jax.vmap(lambda a: jax.vmap(lambda b: a * b)(X3[0]))(v.u),
    vectorize=lambda v: jnp.vectorize(jnp.dot, signature="(k),(k)->()")(X3, v.w[G4]),
    jit=lambda v: jax.jit(lambda u: jax.jit(lambda x: x[G5])(2 * u))(v.u),
    checkpoint=lambda v: jax.checkpoint(lambda u: u[G5] * X)(v.u),
    custom_jvp=lambda v: _twice(v.u)[G5],
    custom_vjp=lambda v: _thrice(v.u, v.c)[G5],
    custom_gradient=lambda v: _clipped(v.u),
    cond_known=lambda v: lax.cond(True, lambda u: u[G5], lambda u: jnp.exp(u[G5]), v.u),
    cond_known_array=lambda v: lax.cond(jnp.sum(X) > 0, lambda u: u, lambda u: 2 * u, v.u),
    cond_opaque=lambda v: lax.cond(v.ell > 1, lambda u: u, lambda u: 2 * u + v.ell, v.u),
    switch=lambda v: lax.switch(1, [jnp.exp, lambda u: 3 * u, jnp.sin], v.u),
    where_opaque=lambda v: jnp.where(v.p < X, v.u[G5], v.c),
    where_opaque_safe=lambda v: jnp.where(v.p > -9, v.u / v.ell, v.u / (v.p + 1e30)),
    step_function=lambda v: v.c * (v.p < TIMES) + v.u[0],
    lookup_opaque=lambda v: v.u[(jnp.floor(v.ell) % 5).astype(int)],
    slice_opaque=lambda v: lax.dynamic_slice(v.z, ((v.p > 0).astype(int) * 3,), (4,)),
    map=lambda v: lax.map(lambda row: row @ X3[0], v.w),
    map_tuple=lambda v: lax.map(lambda a: a[0] * v.u[a[1]], (X, G5)),
    fori_loop=lambda v: lax.fori_loop(
        0, 4, lambda i, m: m + X3[:, 0] * v.w[i, 1] / (i + 1), 0.0 * X
    ),
    fori_loop_set=lambda v: lax.fori_loop(0, 5, lambda i, m: m.at[i].set(v.u[4 - i]), jnp.zeros(5)),
    fori_loop_dynamic=lambda v: lax.fori_loop(0, jnp.array(3), lambda i, m: m + v.u[i], v.c) * X,
    while_loop=lambda v: lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, 0.5 * s[1]), (0, v.u)
    )[1],
    scan_sum=lambda v: lax.scan(lambda s, e: (s + e, s), v.c, v.z)[1],
    scan_ar=lambda v: lax.scan(lambda s, e: (0.7 * s + e,) * 2, 0.0, v.z)[1],
    scan_ar_opaque=lambda v: lax.scan(lambda s, e: (v.p * s + v.ell * e,) * 2, v.c, v.z)[1],
    scan_reverse=lambda v: lax.scan(
        lambda s, e: (s + e[0] * e[1],) * 2, 0.0, (v.z, X12[0]), reverse=True
    )[1],
    scan_matrix=lambda v: lax.scan(
        lambda s, r: (s @ (SQUARE[:3, :3] / 4) + r,) * 2, jnp.zeros(3), v.w
    )[1],
    scan_counter=lambda v: lax.scan(lambda i, _: (i + 1, v.u[i] * i), 0, None, length=5)[1],
    scan_nested=lambda v: lax.scan(
        lambda s, r: (s, lax.scan(lambda a, b: (a + b, a), s, r)[1]), v.c, v.w
    )[1],
    python_loop=lambda v: jnp.stack([v.u[i] * X[i] + v.w[i % 4, 0] for i in range(5)]),
    python_recurrence=lambda v: jnp.stack(
        functools.reduce(lambda s, e: [*s, 0.5 * s[-1] + e], list(v.z), [v.c])
    ),
    jvp=lambda v: jax.jvp(lambda b: X5 @ b, (v.u,), (v.u,))[1],
    grad_of_quadratic=lambda v: jax.grad(lambda b: 0.5 * b @ SQUARE @ b)(v.u),
    linearize=lambda v: jax.linear_transpose(lambda b: SQUARE @ b, np.ones(5))(v.u)[0],
    pytree=lambda v: jax.tree.map(lambda a: a * 2, {"a": v.u})["a"],
)
