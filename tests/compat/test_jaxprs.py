"""What is read of whole jaxprs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from autmarg.compat.jaxprs import largest


def test_the_largest_array_is_found_in_inner_programs():
    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda _, s: s + jnp.outer(x, x).sum(), 0.0)

    def called(x):
        return jax.jit(lambda y: jnp.outer(y, y).sum())(x)

    def chosen(x):
        return jax.lax.cond(x[0] > 0, lambda y: jnp.outer(y, y).sum(), lambda y: y[0], x)

    x = jnp.ones(5)
    for function in (looped, called, chosen, jax.vmap(lambda a: a * x)):
        assert largest(jax.make_jaxpr(function)(x).jaxpr) == 25, function
    assert largest(jax.make_jaxpr(lambda y: 2 * y)(x).jaxpr) == 5
