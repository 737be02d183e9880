"""Moving elements by NumPy gives what JAX gives, in value and in type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autmarg.compat.jaxprs import Op, bind
from autmarg.compat.moving import moved

M, I, B = np.arange(6.0).reshape(2, 3), np.array([[-1, 2, 300]]), np.array([True, False])
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "iota": (lambda: lax.broadcasted_iota(int, (2, 3, 2), 1), ()),
    "iota of bytes": (lambda: lax.iota(np.uint8, 4), ()),
    "broadcast": (lambda x: lax.broadcast_in_dim(x, (4, 2, 3), (1, 2)), (M,)),
    "broadcast of one": (lambda x: lax.broadcast_in_dim(x, (3, 2), (0, 1)), (I[:, :1],)),
    "narrower": (lambda x: lax.convert_element_type(x, np.int8), (I,)),
    "real": (lambda x: lax.convert_element_type(x, float), (I,)),
    "logical": (lambda x: lax.convert_element_type(x, bool), (I,)),
    "whole": (lambda x: lax.convert_element_type(x, int), (B,)),
    "slice": (lambda x: lax.slice(x, (0, 1), (2, 3)), (M,)),
    "strides": (lambda x: lax.slice(x, (0, 0), (2, 3), (1, 2)), (M,)),
    "squeeze": (lambda x: lax.squeeze(x, (0,)), (I,)),
    "transpose": (lambda x: lax.transpose(x, (1, 0)), (M,)),
    "concatenate": (lambda *xs: lax.concatenate(xs, 1), (M, 2 * M)),
}


def equation(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The one that a case is, and its operands."""
    function, arguments = CASES[name]
    (eqn,) = jax.make_jaxpr(function)(*arguments).jaxpr.eqns
    return eqn, arguments


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_jax_gives(name):
    eqn, operands = equation(name)
    found = moved(Op.of(eqn.primitive), eqn.params, operands)
    (expected,) = bind(eqn.primitive, eqn.params, *operands)
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_the_rest_is_left_to_jax():
    eqn, _ = equation("narrower")
    op, params = Op.of(eqn.primitive), eqn.params
    for value in (np.array([1.5, np.nan]), jnp.arange(3), np.array([1 + 1j])):
        assert moved(op, params, [value]) is None
    with jax.enable_x64(False):
        assert moved(op, params, [np.arange(3)]) is None
    assert moved(Op.ADD, {}, [M, M]) is None
