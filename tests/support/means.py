"""Ways in which people write an affine mean: a table of functions of the same few latents.

``v.u`` [5], ``v.w`` [4, 3], ``v.z`` [12] and ``v.c`` [] are Gaussian and must all be integrated
out; ``v.tau`` [3] > 0, ``v.ell`` > 0 and ``v.p`` are kept, and may enter the coefficients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import lax
from jax.experimental import sparse

Mean = Callable[[Any], Any]
MEANS: dict[str, Mean] = {}

_RNG = np.random.default_rng(20261124)
N = 11
G5, G4, G3 = (_RNG.integers(0, k, N) for k in (5, 4, 3))
G12 = _RNG.integers(0, 12, N)
UP = np.array([0, 1, 1, 2, 0])  # levels of u's levels
X = _RNG.normal(size=N)
X5, X12 = _RNG.normal(size=(N, 5)), _RNG.normal(size=(N, 12))
X3 = _RNG.normal(size=(N, 3))
SQUARE = _RNG.normal(size=(5, 5)) + 4 * np.eye(5)
KERNEL = np.array([0.5, 1.0, -0.25])
SPARSE = sparse.BCOO.fromdense(np.eye(5)[G5])
TIMES = np.linspace(0.0, 1.0, 12)


def mean(function: Mean) -> Mean:
    """Add a named function to the table."""
    MEANS[function.__name__] = function
    return function


def means(**functions: Mean) -> None:
    """Add several one-liners to the table."""
    MEANS.update(functions)


# Lookups
means(
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

# Products
means(
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

# Sums and differences
means(
    sum_last=lambda v: v.w.sum(-1),
    sum_keepdims=lambda v: v.w - v.w.sum(0, keepdims=True),
    mean_all=lambda v: v.u.mean() * X,
    mean_axis=lambda v: jnp.mean(v.w, axis=0),
    mean_where=lambda v: jnp.mean(v.w, axis=0, where=(np.arange(12) % 5 > 0).reshape(4, 3)),
    average=lambda v: jnp.average(v.w, axis=0, weights=np.arange(1.0, 5.0)),
    centred=lambda v: (v.u - v.u.mean())[G5],
    sum_to_zero=lambda v: jnp.append(v.u, -v.u.sum()),
    sum_to_zero_concatenate=lambda v: jnp.concatenate([v.u, -v.u.sum(keepdims=True)]),
    reference_level=lambda v: jnp.concatenate([jnp.zeros(1), v.u])[G5],
    reference_level_pad=lambda v: jnp.pad(v.u, (1, 0))[G5],
    cumsum=lambda v: jnp.cumsum(v.z),
    cumsum_axis=lambda v: jnp.cumsum(v.w, axis=1),
    cumsum_reverse=lambda v: lax.cumsum(v.z, reverse=True),
    cumsum_flipped=lambda v: jnp.cumsum(v.z[::-1])[::-1],
    cumsum_scaled=lambda v: v.c + jnp.cumsum(v.ell * v.z),
    cumsum_twice=lambda v: jnp.cumsum(jnp.cumsum(v.z)),
    associative_scan=lambda v: lax.associative_scan(jnp.add, v.z),
    cumsum_by_triangle=lambda v: jnp.tril(np.ones((12, 12))) @ v.z,
    diff=lambda v: jnp.diff(v.z),
    diff_second=lambda v: jnp.diff(v.z, n=2),
    ediff1d=lambda v: jnp.ediff1d(v.z),
    trapezoid=lambda v: jnp.trapezoid(v.z, TIMES) * X,
    nansum=lambda v: jnp.sum(jnp.stack([v.u, 2 * v.u]), axis=0),
    trace=lambda v: jnp.trace(v.w[:3]) * X,
    negative=lambda v: -v.u + (+v.u) / 3 - (-v.c),
    ptp_free=lambda v: jnp.subtract(v.u, v.c) + jnp.add(v.u, 1),
)

# Moving entries
means(
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

# Transformations and control flow


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


means(
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

# Linear maps with a primitive of their own
means(
    solve=lambda v: jnp.linalg.solve(SQUARE, v.u),
    solve_opaque=lambda v: jnp.linalg.solve(SQUARE + v.ell * jnp.eye(5), v.u),
    solve_matrix=lambda v: jnp.linalg.solve(SQUARE[:4, :4], v.w),
    solve_batched=lambda v: jnp.linalg.solve(SQUARE[:3, :3] * np.ones((4, 1, 1)), v.w[..., None]),
    inverse=lambda v: jnp.linalg.inv(SQUARE + v.ell * jnp.eye(5)) @ v.u,
    solve_triangular=lambda v: jsl.solve_triangular(SQUARE, v.u, lower=True),
    solve_triangular_opaque=lambda v: jsl.solve_triangular(
        jnp.tril(SQUARE) * v.ell, v.u, lower=True
    ),
    solve_triangular_transposed=lambda v: jsl.solve_triangular(SQUARE[:4, :4], v.w, trans=1),
    solve_triangular_batched=lambda v: jax.vmap(
        lambda s, b: jsl.solve_triangular(jnp.tril(SQUARE[:3, :3]) * s, b, lower=True)
    )(v.ell * np.arange(1.0, 5.0), v.w),
    solve_triangular_right=lambda v: lax.linalg.triangular_solve(
        SQUARE[:3, :3], v.w, left_side=False, lower=True
    ),
    cho_solve=lambda v: jsl.cho_solve((jnp.linalg.cholesky(SQUARE @ SQUARE.T), True), v.u),
    cho_solve_opaque=lambda v: jsl.cho_solve(
        jsl.cho_factor(SQUARE @ SQUARE.T + v.ell * jnp.eye(5), lower=True), v.u
    ),
    lstsq=lambda v: jnp.linalg.pinv(X5) @ (X5 @ v.u),
    kriging=lambda v: (
        _kernel(X[:6], np.arange(5.0) / 3, v.ell)
        @ jnp.linalg.solve(
            _kernel(np.arange(5.0) / 3, np.arange(5.0) / 3, v.ell) + 0.1 * jnp.eye(5), v.u
        )
    ),
    convolve=lambda v: jnp.convolve(v.z, KERNEL, mode="same"),
    convolve_full=lambda v: jnp.convolve(KERNEL, v.z),
    convolve_opaque=lambda v: jnp.convolve(v.z, v.tau, mode="valid"),
    correlate=lambda v: jnp.correlate(v.z, KERNEL),
    convolve_two_dimensional=lambda v: jax.scipy.signal.convolve2d(
        v.w, np.arange(4.0).reshape(2, 2)
    ),
    moving_average=lambda v: lax.reduce_window(v.z, 0.0, lax.add, (3,), (1,), "VALID") / 3,
    interp=lambda v: jnp.interp(np.linspace(-0.1, 1.1, N), np.linspace(0, 1, 5), v.u),
    fft_circulant=lambda v: jnp.fft.irfft(jnp.fft.rfft(v.z) * np.arange(1.0, 8.0), 12),
    fft_opaque=lambda v: jnp.fft.irfft(jnp.fft.rfft(v.z) * jnp.exp(-v.ell * np.arange(7)), 12),
    fft_complex=lambda v: (
        jnp.fft.ifft(jnp.fft.fft(v.w, axis=0) * np.exp(1j * np.arange(3)), axis=0).real
    ),
    fft_of_parts=lambda v: jnp.fft.fft(v.u[:4] + 1j * v.w[:, 0]).imag,
    fft_synthesis=lambda v: jnp.fft.irfft(lax.complex(v.u, v.u[::-1] * v.ell), 8),
    dct_matrix=lambda v: np.cos(np.pi * np.outer(np.arange(N), np.arange(12)) / N) @ v.z,
    householder=lambda v: v.u - 2 * X5[0] * (X5[0] @ v.u) / (X5[0] @ X5[0]),
)


def _kernel(a, b, ell):
    return jnp.exp(-0.5 * ((a[:, None] - b) / ell) ** 2)


# Coefficients that depend on kept latents
@mean
def correlated_slopes(v):
    tril = jnp.array([[1.0, 0, 0], [0.3, 0.9, 0], [0.2, 0.1, 0.8]]) + v.p * jnp.tril(
        np.ones((3, 3)), -1
    )
    return jnp.einsum("nk,nk->n", X3, (v.w @ (jnp.diag(v.tau) @ tril).T)[G4])


@mean
def correlated_slopes_vmapped(v):
    tril = jnp.diag(v.tau) @ jnp.tril(np.ones((3, 3)) * v.p)
    return jnp.sum(X3 * jax.vmap(lambda z: tril @ z)(v.w)[G4], axis=1)


@mean
def horseshoe(v):
    return X3 @ (v.w[0] * v.tau * v.ell)


@mean
def regularised_horseshoe(v):
    slab = v.ell * v.tau / jnp.sqrt(1.5**2 + v.ell**2 * v.tau**2)
    return X3 @ (v.w[0] * slab)


@mean
def spike_and_slab(v):
    return X3 @ (v.w[0] * jnp.where(v.tau > 0.5, v.ell, 0.01))


@mean
def hilbert_space_gp(v):
    root = jnp.arange(1, 13) * jnp.pi / 4
    phi = jnp.sin(root * (X[:, None] + 2)) / jnp.sqrt(2)
    spectrum = (
        v.tau[0] * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * v.ell) * jnp.exp(-0.25 * (v.ell * root) ** 2)
    )
    return phi @ (spectrum * v.z)


@mean
def fourier_basis(v):
    angle = 2 * np.pi * X[:, None] * np.arange(1, 7)
    basis = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
    return basis @ (v.z * v.ell / (1 + jnp.tile(jnp.arange(6.0), 2)))


@mean
def latent_frequency(v):
    return v.u[0] * jnp.sin(v.p * X) + v.u[1] * jnp.cos(v.p * X) + v.c


@mean
def spline_basis(v):
    knots = np.quantile(X, np.linspace(0.1, 0.9, 5))
    return jnp.maximum(X[:, None] - knots, 0.0) ** 3 @ v.u * v.ell + v.c


@mean
def gaussian_process(v):
    cov = v.tau[0] ** 2 * _kernel(TIMES, TIMES, v.ell) + 1e-3 * jnp.eye(12)
    return jnp.linalg.cholesky(cov) @ v.z


@mean
def automatic_relevance(v):
    d = (X3[:, None] - X3[None, :5]) / v.tau
    return jnp.exp(-0.5 * (d**2).sum(-1)) @ v.u


@mean
def scaled_groups(v):
    return v.c + (v.tau[UP] * v.u)[G5] + v.tau[0] * X * v.w[G4, 2]


@mean
def matrix_normal(v):
    rows = jnp.linalg.cholesky(_kernel(np.arange(4.0), np.arange(4.0), v.ell) + 0.1 * jnp.eye(4))
    return rows @ v.w @ jnp.diag(v.tau)


@mean
def exponential_smoothing(v):
    alpha = jax.nn.sigmoid(v.p)
    weights = alpha * (1 - alpha) ** jnp.abs(np.arange(12)[:, None] - np.arange(12))
    return jnp.tril(weights) @ v.z


@mean
def python_loop(v):
    x, xs = v.c, []
    for e in v.z:
        x = v.p * x + v.ell * e
        xs.append(x)
    return jnp.stack(xs)
