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

Parts: TypeAlias = tuple[Array, Array]


def where_needed(
    enough: Bool[Array, ""],
    cheap: Callable[[Numbers], Parts],
    dear: Callable[[Numbers], Parts],
    numbers: Numbers,
) -> Parts:
    """``cheap`` of numbers where it has digits enough, else ``dear``; both are differentiable.

    Of a batch of values the dear one is worked out only if one of them needs it: as a loop that
    goes on until none does. Of a batch of derivatives both are, and then the one that is not wanted
    must have derivatives, too.
    """

    def where(condition: Array, numbers: Numbers) -> Numbers:
        return jax.tree.map(lambda x: jnp.where(condition, x, jnp.ones_like(x)), numbers)

    def differentiable(numbers: Numbers, enough: Array) -> Parts:
        first, second = (lambda plain, _: cheap(plain)), (lambda _, numbers: dear(numbers))
        return jax.lax.cond(enough, first, second, where(enough, numbers), numbers)

    def values(numbers: Numbers, enough: Array) -> Parts:
        def step(found: tuple[Array, Parts]) -> tuple[Array, Parts]:
            # (what does not depend on the step would be worked out before the loop)
            return jnp.ones_like(enough), dear(where(~found[0], numbers))

        start = enough, cheap(numbers)
        return jax.lax.while_loop(lambda found: ~found[0], step, start)[1]

    def rule(
        primals: tuple[Numbers, Array], tangents: tuple[Numbers, Array]
    ) -> tuple[Parts, Parts]:
        numbers, enough = primals
        return jax.jvp(lambda n: differentiable(n, enough), (numbers,), tangents[:1])

    chosen = jax.custom_jvp(values)
    chosen.defjvp(rule)
    return chosen(numbers, enough)


__all__ = ["where_needed"]
