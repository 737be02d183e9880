"""What elimination stages have in common."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.cost import Cost


class Stage(Protocol):
    """Eliminates some columns of a quadratic form zᵀGz - 2hᵀz.

    ``eliminate`` integrates them out. It returns a factor, which depends on G alone, and ``own``,
    what the right-hand side h leaves: for a block b of columns, L with LLᵀ = G_bb, and L⁻¹h_b.
    ``back`` draws the columns given those of later stages and standard normal noise, in which it is
    affine; ``mean`` is the same at noise zero. z and ξ are full-length vectors [columns], each
    stage reads and writes its own part.
    """

    name: str

    @property
    def size(self) -> int: ...

    @property
    def cost(self) -> Cost:
        """What it is called in a plan, and what it costs."""
        ...

    def eliminate(self, form: QuadraticForm) -> tuple[Any, Any, QuadraticForm]:
        """Factor, own part of the right-hand side, and the form of the columns that remain."""
        ...

    def back(self, factor: Any, own: Any, z: Any, noise: Any) -> Any:
        """z [columns] with the stage's columns drawn from ``noise`` [columns]."""
        ...

    def mean(self, factor: Any, own: Any, z: Any) -> Any:
        """z [columns] with the stage's columns at their conditional mean."""
        return self.back(factor, own, z, jnp.zeros_like(z))

    def rooted(self, factor: Any) -> Any:
        """The factor with what only ``back`` needs."""
        return factor

    def without(self, own: Any) -> Any:
        """``own`` of a right-hand side that is zero."""
        return jax.tree.map(jnp.zeros_like, own)
