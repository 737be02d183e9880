"""Recursions over time of which only the states, and what is linear in them, go step by step.

Of x_t = f(x_{t-1}, u_t) only the x_t need one step after the other. A tangent is linear in them,

    dx_t = J_t dx_{t-1} + b_t,    J_t = ∂f/∂x,    b_t = ∂f/∂u du_t,

with J_t and b_t from all x_t side by side. So is its transpose, by which reverse mode goes. (The
derivative of a scan computes all of f and of its derivative in each step. Of one number, that is
some fifteen kernels, while a loop of a few is one kernel on a processor: XLA compiles loops whose
steps touch less than 1 kB of memory as a whole, and takes 20 ns a step instead of 700.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from autmarg.gaussian.small import product, total

if TYPE_CHECKING:
    from jaxtyping import Float

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")


def linear_recursion(
    matrix: Float[Array, "T D D N"], force: Float[Array, "T D N"], reverse: bool = False
) -> Float[Array, "T D N"]:
    """x_t = N_t x_{t-1} + f_t [T, D, N] from zero."""

    def step(x: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        x = product(at[0], x[:, None])[:, 0] + at[1]
        return x, x

    return jax.lax.scan(step, jnp.zeros_like(force[0]), (matrix, force), reverse=reverse)[1]


def joined(x: Float[Array, "T *rest N"]) -> Float[Array, "*rest T*N"]:
    """All steps side by side: [T, …, N] as […, T · N]."""
    last = jnp.moveaxis(x, 0, -2)
    return last.reshape(*last.shape[:-2], -1)


def apart(x: Float[Array, "*rest T*N"], steps: int) -> Float[Array, "T *rest N"]:
    """[…, T · N] as [T, …, N]."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], steps, -1), -2, 0)


def scan_by_tangents(
    step: Callable[[Array, Inputs], tuple[Array, Outputs]],
    start: Float[Array, "*shape N"],
    inputs: Inputs,
) -> tuple[Float[Array, "*shape N"], Outputs]:
    """``jax.lax.scan`` of small states, with derivatives as above.

    Args:
        step: (x_{t-1}, u_t) → (x_t, y_t), which treats all N alike. It is closed over nothing that
            has derivatives.
        start: x_0, of few numbers: Jacobians are matrices in them.
        inputs: u, a pytree of [T, …, N].
    """
    shape = start.shape

    def flat(x: Array, at: Inputs) -> tuple[Array, Outputs]:
        x, y = step(x.reshape(*shape[:-1], -1), at)
        return x.reshape(-1, x.shape[-1]), y

    def run(start: Array, inputs: Inputs) -> tuple[Array, Outputs]:
        def one(x: Array, at: Inputs) -> tuple[Array, tuple[Array, Outputs]]:
            x, y = flat(x, at)
            return x, (x, y)

        return jax.lax.scan(one, start, inputs)[1]

    found = jax.custom_jvp(run)

    @found.defjvp
    def rule(
        primals: tuple[Array, Inputs], tangents: tuple[Array, Inputs]
    ) -> tuple[tuple[Array, Outputs], tuple[Array, Outputs]]:
        states, outputs = found(*primals)
        change = _tangents(flat, primals, states, tangents)
        return (states, outputs), change

    states, outputs = found(start.reshape(-1, shape[-1]), inputs)
    return states[-1].reshape(shape), outputs


def _tangents(
    step: Callable[[Array, Inputs], tuple[Array, Outputs]],
    given: tuple[Array, Inputs],
    states: Float[Array, "T D N"],
    moved: tuple[Array, Inputs],
) -> tuple[Float[Array, "T D N"], Outputs]:
    """dx_t and dy_t from ``moved``, the tangents of what is ``given``, x_0 and u."""
    count = len(states)

    def before(first: Array, rest: Array) -> Array:
        return joined(jnp.concatenate([first[None], rest[:-1]]))

    x, inputs, changed = before(given[0], states), *jax.tree.map(joined, (given[1], moved[1]))
    push = jax.linearize(step, x, inputs)[1]

    def by_state(x: Array) -> tuple[Array, Outputs]:
        return push(x, jax.tree.map(jnp.zeros_like, inputs))

    basis = jnp.eye(len(x), dtype=x.dtype)[..., None]
    jacobian, reads = jax.vmap(by_state)(jnp.broadcast_to(basis, (len(x), *x.shape)))
    # (apart from the tangents of states, so that these are read by small products alone)
    force, own = push(jnp.zeros_like(x), changed)
    matrix, force = apart(jnp.swapaxes(jacobian, 0, 1), count), apart(force, count)
    start = product(matrix[0], moved[0][:, None])[:, 0]
    change = linear_recursion(matrix, jnp.concatenate([(force[0] + start)[None], force[1:]]))
    ahead = before(moved[0], change)

    def read(own: Array, by_column: Array) -> Array:
        return apart(own + total(c * x for c, x in zip(by_column, ahead, strict=True)), count)

    return change, jax.tree.map(read, own, reads)
