"""Where scales differ by more than a float holds, values and gradients are right or NaN."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.gaussian.cholesky import cholesky, factorise, log_det
from autmarg.plan import order
from tests.support.lanes import lanes

GROUP, CONDITION = np.arange(40) % 8, np.arange(40) // 8 % 2
Y = np.random.default_rng(0).normal(3.0, 1.0, 40)


def spread(y, width):
    """Correlated effects of 8 groups; each group and condition has a noise scale of its own."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 10))
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))
    log_scale = numpyro.sample("log_scale", dist.Normal(0, width).expand([8, 2]).to_event(2))
    with numpyro.plate("groups", 8):
        u = numpyro.sample("u", dist.Normal(0, tau).to_event(1))
    mean = alpha + u[GROUP, 0] + (2 * CONDITION - 1) * u[GROUP, 1]
    numpyro.sample("y", dist.Normal(mean, jnp.exp(log_scale[GROUP, CONDITION])), obs=y)


ROOTS = {"stages": 0, "root": 24}


@pytest.mark.parametrize(
    ("root", "float_type"),
    lanes(
        itertools.product(ROOTS, ["float64", "float32"]),
        quick={("stages", "float64")},
    ),
)
def test_value_and_gradient_are_finite(root, float_type, monkeypatch):
    """At 30 points with scales over 25 (10) decades, most beyond the digits of a float: by
    rows (a root alone) both are finite where the source is, up to 1e24 nats (from where the
    estimates of lost digits may be over their limits), by cross-products both or none."""
    monkeypatch.setattr(order, "SMALL_ROOT", ROOTS[root])
    x64 = float_type == "float64"
    width = 12.0 if x64 else 5.0
    with jax.enable_x64(x64):
        marg = autmarg.transform(partial(spread, width=width), keep=["log_scale"])
        y = Y.astype(np.float64 if x64 else np.float32)
        u = jnp.zeros((8, 2)), jnp.zeros(())

        def at(key):
            first, second = jax.random.split(key)
            theta = {
                "tau": jnp.exp(jax.random.normal(first, (2,))),
                "log_scale": width * jax.random.normal(second, (8, 2)),
            }
            ours = jax.value_and_grad(lambda th: log_density(marg, (y,), {}, th)[0])(theta)
            joint = {**theta, "u": u[0], "alpha": u[1]}
            source = log_density(marg.source, (y,), {}, joint)[0]
            return source, *(jnp.isfinite(x) for x in jax.tree.leaves(ours))

        source, value, *slopes = jax.jit(jax.vmap(at))(jax.random.split(jax.random.key(0), 30))
        assert np.isfinite(source).all()
        assert value[np.abs(source) < 1e24].all() or (x64 and not order.SMALL_ROOT)
        for slope in slopes:
            assert np.array_equal(slope.reshape(30, -1).all(axis=1), value)
        beyond = 1 / jnp.finfo(source.dtype).eps
        assert (np.abs(source) > beyond).sum() > 10


@pytest.mark.parametrize("root", lanes(ROOTS, quick=["root"]))
def test_value_is_exact_to_the_rounding_of_the_model(root, monkeypatch):
    """Scales over 10 decades: every error is within four roundings of the source's numbers."""
    monkeypatch.setattr(order, "SMALL_ROOT", ROOTS[root])
    report = autmarg.verify(partial(spread, width=5.0), Y, points=10, keep=["log_scale"])
    assert report.left_out == 0
    assert max(np.abs(report.log_densities)) > 1e8


@pytest.mark.parametrize("size", [5, 60], ids=["one leaf", "halves"])
def test_cholesky_and_derivatives(size):
    """A matrix of rank one has no factor in floating point, and gets none. Elsewhere factor,
    log-determinant and their derivatives are those of LAPACK."""
    ones = 1e20 * jnp.ones((3, 3)) + jnp.diag(jnp.array([1.0, 1.0, -1e6]))
    assert np.isnan(cholesky(ones)).any()
    start = jax.random.normal(jax.random.key(0), (size, 3))
    weights = jnp.tril(jax.random.normal(jax.random.key(1), (size, size)))

    def ours(a):
        matrix = jnp.eye(size) + a @ a.T
        lower, inverse = factorise(matrix)
        return log_det(matrix, lower, inverse) + jnp.vdot(weights, lower @ inverse @ lower)

    def theirs(a):
        lower = jnp.linalg.cholesky(jnp.eye(size) + a @ a.T)
        return 2 * jnp.log(jnp.diagonal(lower)).sum() + jnp.vdot(weights, lower)

    def derivatives(function):
        of = lambda a: (function(a), jax.grad(function)(a), jax.hessian(function)(a))  # noqa: E731
        return jax.jit(of)(start)

    found, expected = derivatives(ours), derivatives(theirs)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-8, atol=1e-10)
