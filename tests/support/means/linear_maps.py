"""Linear maps with a JAX primitive of their own: solves, convolutions, Fourier transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import lax

from tests.support.means.data import KERNEL, SQUARE, X5, Mean, N, X, kernel

MEANS: dict[str, Mean] = dict(
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
        kernel(X[:6], np.arange(5.0) / 3, v.ell)
        @ jnp.linalg.solve(
            kernel(np.arange(5.0) / 3, np.arange(5.0) / 3, v.ell) + 0.1 * jnp.eye(5), v.u
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
