"""Sums of known numbers times products of opaque ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autmarg.gaussian.monomials import Sums

SIZE, SLOTS = 40, 9


@pytest.mark.parametrize("kinds", [1, 3, 60], ids=["one product", "a matrix", "a list"])
def test_values_and_derivatives_are_those_of_the_sums(kinds):
    """Whether products are few, so that the sums are a matrix, or not; slot 0 is one."""
    rng = np.random.default_rng(kinds)
    some = rng.integers(0, SLOTS, (3, kinds))
    slots = tuple(some[:, rng.integers(kinds, size=60)])
    stat, target = rng.normal(size=60), np.sort(rng.integers(SIZE, size=60))
    sums = Sums(stat, slots, target, SIZE)
    omega = jnp.asarray(np.concatenate([[1.0], rng.normal(size=SLOTS - 1)]))
    weights = jnp.asarray(rng.normal(size=SIZE))

    def written_out(omega):
        products = stat * omega[slots[0]] * omega[slots[1]] * omega[slots[2]]
        return jnp.zeros(SIZE).at[target].add(products)

    for of in (lambda f: f(omega), lambda f: jax.jacfwd(f)(omega), lambda f: jax.jacrev(f)(omega)):
        np.testing.assert_allclose(of(sums), of(written_out), rtol=1e-13, atol=1e-13)
    hessians = (
        jax.hessian(lambda o, f=f: jnp.vdot(weights, f(o)))(omega) for f in (sums, written_out)
    )
    np.testing.assert_allclose(*hessians, rtol=1e-12, atol=1e-12)


def test_no_terms_add_up_to_zero():
    """A form may have rows that are zero."""
    none = np.zeros(0, np.int64)
    assert not Sums(np.zeros(0), (none, none), none, 3)(jnp.ones(2)).any()
