"""What tracing a model assumes of the user's distributions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import autmarg
from autmarg.trace.record import shapes_of

Y = np.linspace(-1.0, 1.0, 6)


class Shifted(dist.Distribution):
    """A class of the user's, which counts a known array as static."""

    support = constraints.independent(constraints.real, 1)
    pytree_aux_fields = ("shift",)

    def __init__(self, shift):
        self.shift = shift
        super().__init__(event_shape=shift.shape)

    def sample(self, key, sample_shape=()):
        return jnp.zeros((*sample_shape, *self.event_shape)) + self.shift

    def log_prob(self, value):
        return -jnp.square(value - self.shift).sum(-1)


def with_static_arrays(y):
    a = numpyro.sample("a", Shifted(np.arange(3.0)))
    b = numpyro.sample("b", Shifted(np.arange(2.0)))
    u = numpyro.sample("u", dist.Normal(a.sum() + b.sum(), 1.0))
    numpyro.sample("y", dist.Normal(u, 1.0), obs=y)


def test_distributions_of_the_users_are_drawn_from_each_time():
    for _ in range(2):
        plan = autmarg.transform(with_static_arrays).plan(Y)
        assert plan.integrated == ("u",)
        shapes = shapes_of(with_static_arrays, (Y,), {})
        assert (shapes["a"].shape, shapes["b"].shape) == ((3,), (2,))


@pytest.mark.parametrize("size", [3, 5])
def test_shapes_are_those_of_each_distribution(size):
    """Of one class and one structure of parameters, but for what is static or has other sizes."""

    def model():
        numpyro.sample("L", dist.LKJCholesky(size, 1.0))
        numpyro.sample("d", dist.Dirichlet(jnp.ones(size)))
        numpyro.sample("k", dist.Binomial(size, 0.5).expand([2]))
        numpyro.sample("x", dist.Normal(0.0, 1.0).expand([size]).to_event(1), sample_shape=(2,))

    shapes = {name: s.shape for name, s in shapes_of(model, (), {}).items()}
    assert shapes["L"] == (size, size) and shapes["d"] == (size,)
    assert shapes["k"] == (2,) and shapes["x"] == (2, size)
    assert jnp.issubdtype(shapes_of(model, (), {})["k"].dtype, jnp.integer)
