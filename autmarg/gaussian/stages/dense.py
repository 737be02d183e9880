"""The dense root: what is left, as one symmetric matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.cholesky import cholesky, log_det
from autmarg.gaussian.quadratic import Pattern, QuadraticForm
from autmarg.gaussian.stages.base import Stage


class Factor(NamedTuple):
    """Lower Cholesky factor [R, R] and h [R]."""

    lower: Any
    h: Any


@dataclass(frozen=True, eq=False)
class DenseRoot(Stage):
    """The last stage: ``columns`` [R] and the position [R, R] of each entry in the values."""

    columns: np.ndarray
    position: np.ndarray
    name: str = "dense root"

    @property
    def size(self) -> int:
        return len(self.columns)

    @classmethod
    def plan(cls, pattern: Pattern) -> tuple[DenseRoot, Pattern]:
        """The stage that eliminates all columns of a pattern."""
        columns = pattern.columns
        position = pattern.lookup(columns[:, None], columns[None, :])
        none = np.zeros(0, np.int64)
        return cls(columns, position), Pattern(none, none, none)

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, QuadraticForm]:
        """Integrate everything that is left out."""
        values, h, so_far, floor, dynamics = form
        matrix = jnp.where(self.position >= 0, values[np.maximum(self.position, 0)], 0)
        lower = cholesky(matrix, floor[self.columns])
        total = so_far + log_det(matrix, lower)
        return Factor(lower, h[self.columns]), QuadraticForm(values[:0], h, total, floor, dynamics)

    def back(self, factor: Factor, z: Any, noise: Any) -> Any:
        """z with the root's columns drawn: L⁻ᵀ(L⁻¹h + ξ)."""
        g = jax.scipy.linalg.solve_triangular(factor.lower, factor.h, lower=True)
        own = jax.scipy.linalg.solve_triangular(
            factor.lower, g + noise[self.columns], lower=True, trans=1
        )
        return z.at[self.columns].set(own)

    def log_det(self, factor: Factor) -> Any:
        """log |L|."""
        return jnp.log(jnp.diagonal(factor.lower)).sum()
