"""Canaries: NumPyro's NUTS as a pure function of a place, a step size and a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

from autmarg.compat.kernels import (
    TARGET,
    Place,
    averaged,
    averaging_from,
    step_size_of,
    transition,
)

VERSIONS = f"numpyro {numpyro.__version__}"
pytestmark = pytest.mark.usefixtures("quick_compilation")


def energy(z):
    return 0.5 * jnp.sum(jnp.square(z)) + jnp.sum(jnp.cos(z))


def test_a_transition_ends_at_a_place_with_its_own_energy_and_gradient():
    first = jnp.array([0.3, -0.5])
    place = Place(first, *jax.value_and_grad(energy)(first))
    found = jax.jit(lambda key: transition(energy, place, jnp.asarray(0.5), key))(jax.random.key(0))
    assert not np.array_equal(found.place.point, first), VERSIONS
    value, slope = jax.value_and_grad(energy)(found.place.point)
    np.testing.assert_allclose(found.place.energy, value, err_msg=VERSIONS)
    np.testing.assert_allclose(found.place.gradient, slope, err_msg=VERSIONS)
    assert found.num_steps >= 1 and not found.diverging and 0 < found.accept_prob <= 1
    assert found.energy > found.place.energy, VERSIONS  # with that of the momentum


def test_step_sizes_average_to_the_acceptance_that_is_asked_for():
    """Of chains that accept exp(-step size)."""
    state = averaging_from(0.01)
    for _ in range(300):
        state = averaged(state, jnp.exp(-step_size_of(state, average=False)))
    found = float(step_size_of(state, average=True))
    assert np.exp(-found) == pytest.approx(TARGET, abs=0.02), VERSIONS
