"""The dear one of two functions, only where the cheap one has not enough digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from autmarg.gaussian.affine import Numbers

if TYPE_CHECKING:
    from jaxtyping import Bool

Parts: TypeAlias = tuple[Array, ...]


def where_needed(
    enough: Bool[Array, ""],
    cheap: Callable[[Numbers], Parts],
    dear: Callable[[Numbers], Parts],
    numbers: Numbers,
) -> Parts:
    """``cheap`` of numbers where it has digits enough, else ``dear``: a tuple of scalars.

    Of a batch of values the dear one is worked out only if one of them needs it: as a loop that
    goes on until none does. Of a batch of derivatives both are, and then the one that is not wanted
    must have derivatives, too.

    Inside of the choice each function works out its slopes, too, by reverse mode. No tangent passes
    through the choice then, which JAX could not transpose where a batch chooses differently.
    """

    def where(condition: Array, numbers: Numbers) -> Numbers:
        return jax.tree.map(lambda x: jnp.where(condition, x, jnp.ones_like(x)), numbers)

    def with_slopes(numbers: Numbers, enough: Array) -> tuple[Parts, tuple[Numbers, ...]]:
        first, second = _with_slopes(cheap), _with_slopes(dear)
        return jax.lax.cond(
            enough, lambda plain, _: first(plain), lambda _, own: second(own),
            where(enough, numbers), numbers,
        )  # fmt: skip

    def values(numbers: Numbers, enough: Array) -> Parts:
        def step(found: tuple[Array, Parts]) -> tuple[Array, Parts]:
            # (what does not depend on the step would be worked out before the loop)
            return jnp.ones_like(enough), dear(where(~found[0], numbers))

        start = enough, cheap(numbers)
        return jax.lax.while_loop(lambda found: ~found[0], step, start)[1]

    def rule(
        primals: tuple[Numbers, Array], tangents: tuple[Numbers, Array]
    ) -> tuple[Parts, Parts]:
        found, slopes = with_slopes(*primals)
        return found, tuple(_along(slope, tangents[0]) for slope in slopes)

    chosen = jax.custom_jvp(values)
    chosen.defjvp(rule)
    return chosen(numbers, enough)


def _with_slopes(
    function: Callable[[Numbers], Parts],
) -> Callable[[Numbers], tuple[Parts, tuple[Numbers, ...]]]:
    def run(numbers: Numbers) -> tuple[Parts, tuple[Numbers, ...]]:
        values, back = jax.vjp(function, numbers)
        count = range(len(values))
        units = (tuple(jnp.full_like(values[k], j == k) for k in count) for j in count)
        return values, tuple(back(unit)[0] for unit in units)

    return run


def _along(slope: Numbers, tangent: Numbers) -> Array:
    """The derivative along a tangent."""
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slope, tangent)), jnp.zeros(()))


__all__ = ["where_needed"]
