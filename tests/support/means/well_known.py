"""Means of well-known models, whose coefficients depend on kept latents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.means.data import G4, G5, TIMES, UP, X3, Mean, X, kernel

MEANS: dict[str, Mean] = {}


def mean(function: Mean) -> Mean:
    """Add a named function to the table."""
    MEANS[function.__name__] = function
    return function


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
    cov = v.tau[0] ** 2 * kernel(TIMES, TIMES, v.ell) + 1e-3 * jnp.eye(12)
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
    rows = jnp.linalg.cholesky(kernel(np.arange(4.0), np.arange(4.0), v.ell) + 0.1 * jnp.eye(4))
    return rows @ v.w @ jnp.diag(v.tau)


@mean
def exponential_smoothing(v):
    alpha = jax.nn.sigmoid(v.p)
    weights = alpha * (1 - alpha) ** jnp.abs(np.arange(12)[:, None] - np.arange(12))
    return jnp.tril(weights) @ v.z


@mean
def python_loop_autoregressive(v):
    x, xs = v.c, []
    for e in v.z:
        x = v.p * x + v.ell * e
        xs.append(x)
    return jnp.stack(xs)
