"""The LKJ distribution over 2 × 2 matrices, against NumPyro's own, which serves any dimension."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to

from autmarg.compat.correlations import in_closed_form
from tests.support.lanes import lanes

Z = jnp.array([[-30.0], [-2.0], [-1e-9], [0.0], [0.7], [5.0], [30.0]])


@pytest.mark.parametrize("eta", lanes([0.5, 1.0, 2.0, 70.0], quick=[70.0]))
def test_the_log_density_and_its_slope(eta):
    numpyros = dist.LKJCholesky(2, eta)
    ours = in_closed_form(numpyros)
    assert isinstance(ours, dist.LKJCholesky)
    assert type(ours) is not type(numpyros)

    def density(fn):
        to = biject_to(fn.support)
        return lambda z: fn.log_prob(to(z)) + to.log_abs_det_jacobian(z, to(z))

    each = [jax.vmap(jax.value_and_grad(density(fn)))(Z) for fn in (numpyros, ours)]
    for expected, found in zip(*each, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_bijection_and_its_inverse():
    fn = dist.LKJCholesky(2)
    numpyros, ours = biject_to(fn.support), biject_to(in_closed_form(fn).support)
    np.testing.assert_allclose(ours(Z), numpyros(Z), rtol=1e-15, atol=1e-15)
    near = Z[1:6]
    np.testing.assert_allclose(ours.inv(ours(near)), near, rtol=1e-9, atol=1e-15)
    assert ours.inverse_shape((4, 2, 2)) == (4, 1)


def test_a_traced_concentration():
    slope = jax.grad(lambda eta: in_closed_form(dist.LKJCholesky(2, eta)).log_prob(jnp.eye(2)))(1.5)
    expected = jax.grad(lambda eta: dist.LKJCholesky(2, eta).log_prob(jnp.eye(2)))(1.5)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_a_batch_of_matrices():
    numpyros = dist.LKJCholesky(2, jnp.array([1.0, 3.0])).expand([4, 2])
    ours, key = in_closed_form(numpyros), jax.random.key(0)
    value = ours.sample(key)
    np.testing.assert_array_equal(value, numpyros.sample(key))
    np.testing.assert_allclose(ours.log_prob(value), numpyros.log_prob(value), rtol=1e-12)


def test_other_distributions_are_left_alone():
    for fn in (dist.LKJCholesky(3), dist.Normal(), dist.Normal().expand([2]), dist.LKJ(2)):
        assert in_closed_form(fn) is fn
