"""Data and distributions of different shapes: those that are crossed are an error."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg


def program(shape, data):
    def model():
        u = numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(jnp.broadcast_to(u, shape), 0.7), obs=np.ones(data))

    return autmarg.transform(model)


CROSSED = [((6,), (6, 1)), ((6, 1), (6,)), ((1, 6), (6, 1)), ((6, 1), (3, 1, 6)), ((6,), (3, 6, 1))]
MEANT = [((6, 1), (3,)), ((6, 1), (6, 3)), ((6,), (3, 6)), ((3, 1), (6,)), ((3, 6), (6,))]


@pytest.mark.parametrize(("shape", "data"), CROSSED)
def test_one_length_on_two_axes_is_an_error(shape, data):
    with pytest.raises(autmarg.ModelError, match=r"'y' \(\S+\): found data of shape .* every pair"):
        program(shape, data).plan()


@pytest.mark.parametrize(("shape", "data"), MEANT)
def test_axes_of_different_lengths_are_meant(shape, data):
    assert program(shape, data).plan().integrated == ("u",)
