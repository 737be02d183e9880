"""In a float32 session the marginal has float64's digits, under every transformation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.compat.double import in_double
from tests.support.lanes import lanes

A = np.random.default_rng(0).normal(size=(5, 3))
S, B = np.float32(1e-3), np.arange(1.0, 4.0, dtype=np.float32)


@jax.custom_jvp
def log_det(matrix):
    """With a rule that is traced when something is differentiated, not when it is defined."""
    return 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))).sum()


@log_det.defjvp
def _(primals, tangents):
    return log_det(*primals), jnp.sum(jnp.linalg.inv(primals[0]) * tangents[0])


def function(s, b):
    """What makes zeros, indices, loops and scatters when it is transposed."""
    matrix = (jnp.eye(3) + A.T @ A / s**2).at[0, 0].add(b[0])
    matrix = matrix + jnp.diag(jnp.where(b > 0, b, jnp.zeros(3)))
    read = jnp.take(b, np.array([0, 1, 2, 5]), mode="fill", fill_value=0)
    sums = jax.ops.segment_sum(b[np.array([0, 0, 1])], np.array([0, 1, 1]), num_segments=2)
    last, each = jax.lax.scan(lambda c, x: (c * x + s, c), s, b)
    return log_det(matrix) + (read**2).sum() + (sums**2).sum() + last + each.sum()


TRANSFORMATIONS = {
    "value": lambda f: f,
    "jit": jax.jit,
    "gradient": lambda f: jax.grad(f, (0, 1)),
    "jit of gradient": lambda f: jax.jit(jax.grad(f, (0, 1))),
    "gradient of jit": lambda f: jax.grad(jax.jit(f), (0, 1)),
    "gradient of checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1)),
    "hessian": lambda f: jax.hessian(f, (0, 1)),
    "reverse twice": lambda f: jax.jacrev(jax.jacrev(f, (0, 1)), (0, 1)),
    "forward": lambda f: lambda s, b: jax.jvp(f, (s, b), (s, b)),
    "batch": lambda f: lambda s, b: jax.vmap(f)(jnp.stack([s, 2 * s]), jnp.stack([b, b])),
    "batch of gradients": lambda f: (
        lambda s, b: jax.vmap(jax.grad(f, (0, 1)), (0, None))(jnp.stack([s, 2 * s]), b)
    ),
    "gradient of a batch": lambda f: jax.grad(
        lambda s, b: jax.vmap(f, (None, 0))(s, jnp.stack([b, 2 * b])).sum(), (0, 1)
    ),
    "scan": lambda f: (
        lambda s, b: jax.lax.scan(lambda c, _: (c + 1e-6 * jax.grad(f)(c, b), c), s, None, length=3)
    ),
    "while": lambda f: (
        lambda s, b: jax.lax.while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + 1e-6 * jax.grad(f)(c[1], b)), (0, s)
        )
    ),
}


QUICK = ("value", "jit", "gradient of checkpoint", "hessian", "batch of gradients", "scan", "while")


@pytest.mark.parametrize("name", lanes(TRANSFORMATIONS, QUICK))
def test_transformations(name):
    """Results are float32, and those of the float64 session to float32's rounding."""
    transform = TRANSFORMATIONS[name]
    with jax.enable_x64(False):
        found = transform(in_double(function))(jnp.asarray(S), jnp.asarray(B))
    expected = jax.jit(transform(function))(jnp.float64(S), jnp.asarray(B, float))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype in (jnp.float32, jnp.int32)
        np.testing.assert_allclose(ours, theirs, rtol=3e-7)


N, G = 24, 4
GROUP, X = np.arange(N) % G, np.random.default_rng(1).normal(size=N)
NOISE = np.random.default_rng(2).normal(size=N)


def effects(x, y):
    """An intercept, a slope and group effects, all integrated out."""
    s: Any = numpyro.sample("s", dist.HalfCauchy(1.0))
    t: Any = numpyro.sample("t", dist.HalfCauchy(1.0))
    b: Any = numpyro.sample("b", dist.Normal(0, 10.0).expand([2]).to_event(1))
    with numpyro.plate("groups", G):
        u: Any = numpyro.sample("u", dist.Normal(0, t))
    numpyro.sample("y", dist.Normal(b[0] + b[1] * x + u[GROUP], s), obs=y)


@pytest.fixture(scope="module")
def densities():
    """(x64) → log p of s and t."""

    def of(x64, y):
        dtype = np.float64 if x64 else np.float32
        with jax.enable_x64(x64):
            marg = autmarg.transform(effects, keep=["s", "t"])
            args = X.astype(np.float32).astype(dtype), y.astype(np.float32).astype(dtype)
            marg.plan(*args)
        return marg, args, lambda s, t: log_density(marg, args, {}, {"s": s, "t": t})[0]

    return of


@pytest.mark.parametrize("noise", lanes([1e-3, 1e-6], quick=[]))
def test_small_noise(densities, noise):
    """Value, gradient and Hessian in logarithms are those of float64, at any noise."""
    y = 3 + 2 * X + noise * NOISE
    point = np.array([noise, 0.7], np.float32)
    found = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            f = densities(x64, y)[2]
            at = jnp.asarray(point, float)
            both = lambda p, f=f: jax.value_and_grad(lambda p: f(*p))(p)  # noqa: E731
            found.append(jax.jit(lambda p, both=both: (both(p), jax.jacfwd(both)(p)[1]))(at))
    ((ours, slope), curve), ((theirs, expected), curvature) = found
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(slope, expected, rtol=3e-6)
    scaled = np.outer(point, point)
    np.testing.assert_allclose(scaled * curve, scaled * curvature, rtol=1e-5, atol=1e-5)


def test_recovery(densities):
    """Conditional means and variances in float32 are those of float64."""
    y = 3 + 2 * X + 1e-3 * NOISE
    found = []
    for x64 in (False, True):
        marg, args, _ = densities(x64, y)
        with jax.enable_x64(x64):
            samples = {"s": jnp.full(2, np.float32(1e-3)), "t": jnp.full(2, np.float32(0.7))}
            samples = {name: value.astype(float) for name, value in samples.items()}
            marg.plan(*args)
            found.append(marg.recover(jax.random.key(0), samples, *args, moments=True))
    single, double = found
    for name in ("b", "u"):
        np.testing.assert_allclose(single[name]["mean"], double[name]["mean"], rtol=1e-6)
        np.testing.assert_allclose(single[name]["var"], double[name]["var"], rtol=1e-6)
