"""What elimination stages have in common."""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp

from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.cost import Cost


class Stage(Protocol):
    """Eliminates some columns of a quadratic form.

    ``eliminate`` integrates them out; ``back`` draws them given the columns of later stages and
    standard normal noise, in which it is affine; ``mean`` is the same at noise zero. z and ξ are
    full-length vectors [columns], each stage reads and writes its own part.
    """

    name: str

    @property
    def size(self) -> int: ...

    @property
    def cost(self) -> Cost:
        """What it is called in a plan, and what it costs."""
        ...

    def eliminate(self, form: QuadraticForm) -> tuple[Any, QuadraticForm]: ...

    def back(self, factor: Any, z: Any, noise: Any) -> Any: ...

    def mean(self, factor: Any, z: Any) -> Any:
        return self.back(factor, z, jnp.zeros_like(z))

    def log_det(self, factor: Any) -> Any: ...
