"""The derivatives of a minimum, from those of the function that is minimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
from jax import Array

from autmarg.gaussian.affine import Numbers, Point
from autmarg.gaussian.stages.chain import Errors

if TYPE_CHECKING:
    from jaxtyping import Float


def at_minimum(
    function: Callable[[Point, Sequence[Errors], Array], Array],
    point: Point,
    errors: Sequence[Errors],
    z: Float[Array, "columns"],
) -> Float[Array, ""]:
    """f(θ, e(θ), z) at the z = z*(θ) that minimises it, with the derivatives of min_z f.

    Since ∂f/∂z is zero there, the first derivative is ∂f/∂θ at fixed z*, and no derivative of z*
    is taken. In that rule z* stays a function of θ: the second derivative differentiates it, so
    that it is the one of the minimum too.
    """

    def plain(numbers: Numbers, errors: Sequence[Errors], z: Array) -> Array:
        return function(replace(point, **numbers), errors, z)

    def rule(
        primals: tuple[Numbers, Sequence[Errors], Array],
        tangents: tuple[Numbers, Sequence[Errors], Array],
    ) -> tuple[Array, Array]:
        *numbers, z = primals
        return jax.jvp(lambda n, e: plain(n, e, z), tuple(numbers), tuple(tangents[:2]))

    minimum = jax.custom_jvp(plain)
    minimum.defjvp(rule)
    numbers: Numbers
    numbers = {"omega": point.omega, "priors": point.priors, "factors": point.factors}
    return minimum(numbers, errors, z)
