"""Reverse and forward mode, Hessians, jit and vmap of the density, with every stage.

One compiled function maps value and gradient over a point and its neighbours, so that gradient and
Hessian are held against central differences of what is one order lower; values themselves are held
against a dense Gaussian in tests/programs/test_dense.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from tests.gaussian.stage_models import STAGES, planned
from tests.support.lanes import lanes

STEP = 1e-5
pytestmark = pytest.mark.usefixtures("quick_compilation")


QUICK = ["batched blocks", "chain", "written out"]


@pytest.mark.parametrize("name", lanes(STAGES, QUICK))
def test_derivatives(name, monkeypatch):
    marg = planned(name, monkeypatch)

    def density(point):
        return log_density(marg, (), {}, dict(zip("qts", point, strict=True)))[0]

    point = jnp.array([0.8, 1.1, 0.6])
    near = STEP * jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3), -jnp.eye(3)])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(density)))(point + near)
    alone, forward, hessian, together = jax.jit(
        lambda x: (
            density(x), jax.jacfwd(density)(x), jax.hessian(density)(x),
            jax.grad(lambda some: jax.vmap(density)(some).sum())(x + near[:3]),
        )
    )(point)  # fmt: skip
    np.testing.assert_allclose(alone, values[0], rtol=1e-12)
    np.testing.assert_allclose(forward, gradients[0], rtol=1e-10)
    np.testing.assert_allclose(together, gradients[:3], rtol=1e-10)
    differences = (values[1:4] - values[4:]) / (2 * STEP)
    np.testing.assert_allclose(gradients[0], differences, rtol=1e-7, atol=1e-7)
    differences = (gradients[1:4] - gradients[4:]) / (2 * STEP)
    np.testing.assert_allclose(hessian, differences, rtol=1e-7, atol=1e-7)
