"""What elimination stages have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.cost import Cost

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Factor = TypeVar("Factor")
Own = TypeVar("Own")


class Stage(Protocol[Factor, Own]):
    """Eliminates some columns of a quadratic form zᵀGz - 2hᵀz.

    ``eliminate`` integrates them out. It returns a factor, which depends on G alone, and ``own``,
    what the right-hand side h leaves: for a block b of columns, L with LLᵀ = G_bb, and L⁻¹h_b.
    ``back`` draws the columns given those of later stages and standard normal noise, in which it is
    affine; ``mean`` is the same at noise zero. z and ξ are full-length vectors [columns], each
    stage reads and writes its own part.
    """

    columns: Int[np.ndarray, "..."]
    name: str

    @property
    def size(self) -> int: ...

    @property
    def cost(self) -> Cost:
        """What it is called in a plan, and what it costs."""
        ...

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, Own, QuadraticForm]:
        """Factor, own part of the right-hand side, and the form of the columns that remain."""
        ...

    def back(
        self, factor: Factor, own: Own, z: Float[Array, "columns"], noise: Float[Array, "columns"]
    ) -> Float[Array, "columns"]:
        """z [columns] with the stage's columns drawn from ``noise`` [columns]."""
        ...

    def mean(self, factor: Factor, own: Own, z: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """z [columns] with the stage's columns at their conditional mean."""
        return self.back(factor, own, z, jnp.zeros_like(z))

    def rooted(self, factor: Factor) -> Factor:
        """The factor with what only ``back`` needs."""
        return factor


# One stage among others, whose factors are its own business.
AnyStage: TypeAlias = Stage[Any, Any]
