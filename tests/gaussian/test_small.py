"""Triangular solves of many small matrices, of short batches and of long ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autmarg.gaussian import small


@pytest.mark.parametrize("batch", [3, 1000])
@pytest.mark.parametrize("solve", [small.solve_lower, small.solve_upper])
def test_solves_and_their_derivatives_are_those_of_the_inverse(solve, batch):
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(batch, 2, 2))) + 2 * np.eye(2)
    b, weight = rng.normal(size=(2, 2, 3, batch))

    def value(solver, lower, b):
        return jnp.vdot(weight, solver(jnp.moveaxis(lower, 0, -1), b))

    def by_inverse(factor, b):
        inverse = jnp.linalg.inv(jnp.moveaxis(factor, -1, 0))
        inverse = inverse if solve is small.solve_lower else jnp.swapaxes(inverse, 1, 2)
        return jnp.einsum("nij,jrn->irn", inverse, b)

    found = jax.value_and_grad(lambda *x: value(solve, *x), (0, 1))(lower, b)
    wanted = jax.value_and_grad(lambda *x: value(by_inverse, *x), (0, 1))(lower, b)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    np.testing.assert_allclose(np.tril(found[1][0]), np.tril(wanted[1][0]), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found[1][1], wanted[1][1], rtol=1e-10, atol=1e-10)
