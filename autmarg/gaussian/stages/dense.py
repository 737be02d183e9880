"""The dense root: what is left, as one symmetric matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.cholesky import factorise, log_det, solve
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.quadratic import QuadraticForm, lost
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.cost import Cost, dense_root

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Factor(NamedTuple):
    """Lower Cholesky factor [R, R] and its inverse."""

    lower: Float[Array, "R R"]
    inverse: Float[Array, "R R"]


@dataclass(frozen=True, eq=False)
class DenseRoot(Stage[Factor, Array]):
    """The last stage: ``columns`` [R] and the position [R, R] of each entry in the values."""

    columns: Int[np.ndarray, "R"]
    position: Int[np.ndarray, "R R"]
    name: str = "dense root"

    @property
    def size(self) -> int:
        return len(self.columns)

    @property
    def cost(self) -> Cost:
        """That of a dense matrix."""
        return dense_root(self.size)

    @classmethod
    def plan(cls, pattern: Pattern) -> tuple[DenseRoot, Pattern]:
        """The stage that eliminates all columns of a pattern."""
        columns = pattern.columns
        position = pattern.lookup(columns[:, None], columns[None, :])
        none = np.zeros(0, np.int64)
        return cls(columns, position), Pattern(none, none, none)

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, Float[Array, "R"], QuadraticForm]:
        """Integrate everything that is left out; what h [R] leaves is itself."""
        matrix = form.read(self.position)
        lower, inverse = _factors(matrix)
        total = form.log_det + log_det(matrix, lower, inverse)
        error = lost(form.diagonal[self.columns], jnp.square(jnp.diagonal(lower)))
        rest = form._replace(values=(), log_det=total, error=form.error + error)
        return Factor(lower, inverse), form.h[self.columns], rest

    def mean(
        self, factor: Factor, own: Float[Array, "R"], z: Float[Array, "columns"]
    ) -> Float[Array, "columns"]:
        """z with the root's columns at their mean."""
        if self.size <= small.UNROLL:
            return self.back(factor, own, z, jnp.zeros_like(z))
        return z.at[self.columns].set(solve(*factor, own), unique_indices=True)

    def back(
        self,
        factor: Factor,
        own: Float[Array, "R"],
        z: Float[Array, "columns"],
        noise: Float[Array, "columns"],
    ) -> Float[Array, "columns"]:
        """z with the root's columns drawn: L⁻ᵀ(L⁻¹h + ξ)."""
        g = jnp.dot(factor.inverse, own, precision="highest")
        drawn = jnp.dot(g + noise[self.columns], factor.inverse, precision="highest")
        return z.at[self.columns].set(drawn, unique_indices=True)


def _factors(matrix: Float[Array, "R R"]) -> tuple[Float[Array, "R R"], Float[Array, "R R"]]:
    """L and L⁻¹, written out where the matrix is small: a call takes longer than the work."""
    if len(matrix) > small.UNROLL:
        return factorise(matrix)
    lower = small.cholesky(matrix[..., None])
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)[..., None]
    return lower[..., 0], small.solve_lower(lower, eye)[..., 0]
