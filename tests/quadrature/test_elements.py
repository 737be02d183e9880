"""Which element of a latent each element of a value reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autmarg.analysis.elements import NONE, SEVERAL, elements_read
from autmarg.ir.tape import Builder

INDEX = np.array([2, 0, 0, 1])
ONE_HOT = np.eye(3)[INDEX]

CASES: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "the latent": (lambda u, b: u, [0, 1, 2]),
    "another": (lambda u, b: b, [NONE, NONE]),
    "looked up": (lambda u, b: jnp.exp(u[INDEX]) * b[0], INDEX),
    "out of range, filled": (lambda u, b: u.at[np.array([1, 7])].get(mode="fill"), [1, NONE]),
    "by a one-hot matrix": (lambda u, b: ONE_HOT @ u, INDEX),
    "by a matrix that is not known": (lambda u, b: jnp.outer(b, jnp.ones(3)) @ u, [SEVERAL] * 2),
    "by a sum with a known choice": (lambda u, b: jnp.where(INDEX == 0, u[INDEX], b[0]),
                                     [NONE, 0, 0, NONE]),
    "times known zeros": (lambda u, b: np.array([0.0, 1.0, 0.0]) * u, [NONE, 1, NONE]),
    "summed": (lambda u, b: u.sum(), SEVERAL),
    "one of them": (lambda u, b: u[1] * jnp.ones(2), [1, 1]),
    "summed by rows": (lambda u, b: jnp.stack([u, u * b[0]]).sum(0), [0, 1, 2]),
    "summed across": (lambda u, b: jnp.stack([u, b[:1] * jnp.ones(3)]).max(1), [SEVERAL, NONE]),
    "two of them": (lambda u, b: u[INDEX] + u[0], [SEVERAL, 0, 0, SEVERAL]),
    "moved": (lambda u, b: jnp.concatenate([u[::-1], b]).reshape(5, 1).T,
              [[2, 1, 0, NONE, NONE]]),
    "in a call with its own derivative": (lambda u, b: jax.nn.relu(u[INDEX]), INDEX),
    "in what is not followed": (lambda u, b: jnp.cumsum(u), [SEVERAL] * 3),
    "in what is not followed, alone": (lambda u, b: jnp.cumsum(u[1:2] * b), [1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_elements(name: str) -> None:
    function, expected = CASES[name]
    builder = Builder()
    shapes = {"u": (3,), "b": (2,)}
    inputs = {n: builder.number(jax.ShapeDtypeStruct(s, np.float64)) for n, s in shapes.items()}
    (number,) = builder.inline(
        jax.make_jaxpr(function)(*(jnp.zeros(s) for s in shapes.values())), inputs.values()
    )
    (found,) = elements_read(builder.tape(inputs).folded([number]), "u", [number])
    np.testing.assert_array_equal(found, expected)
