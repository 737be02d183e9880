"""Rows walked one by one: those that a chain takes in its filter.

They have no entries in G: the filter reads them itself (:mod:`autmarg.gaussian.stages.chain`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.affine import AffineForm, Point, Rows
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.terms.base import Term

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Walked(Term):
    """Rows of independent noise."""

    form: AffineForm
    rows: tuple[Rows, ...]
    how: str = "filtered one by one"

    @property
    def n(self) -> int:
        """The number of rows that are data."""
        return sum(rows.n for rows in self.rows if rows.counted)

    def pairs(self) -> tuple[Int[np.ndarray, "none"], Int[np.ndarray, "none"]]:
        """None."""
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def place(
        self, source: Int[np.ndarray, "M"], target: Int[np.ndarray, "M"], size: int
    ) -> Nowhere:
        """Nowhere: a filter reads the rows."""
        return Nowhere(self.form.columns)

    def squares(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """rᵀW r."""
        return weighted(self.rows, point.omega, v)

    by_row = squares

    def lost(self, point: Point, v: Float[Array, "columns+1"]) -> float:
        """Nothing: squares of rows do not cancel."""
        return 0.0

    def log_weight(self, point: Point) -> Float[Array, ""]:
        """log|W|."""
        omega = point.omega
        total = jnp.zeros((), omega.dtype)
        for rows in self.rows:
            if rows.counted:
                assert rows.precision is not None
                logs = jnp.log(omega[rows.precision])
                total = total + logs.sum() * (rows.n // len(rows.precision))
        return total


@dataclass(frozen=True)
class Nowhere:
    """Rows without entries in G or h."""

    columns: int

    @property
    def known(self) -> dict[int, Float[np.ndarray, "size"]]:
        """None."""
        return {}

    def __call__(self, point: Point) -> tuple[None, Float[Array, "columns"]]:
        """No entries, and a right-hand side of zero."""
        return None, jnp.zeros(self.columns, point.omega.dtype)


def weighted(
    rows: Iterable[Rows], omega: Float[Array, "slots"] | Omega, v: Float[Array, "columns+1"]
) -> Float[Array, ""]:
    """rᵀW r of rows whose noise is independent, row by row."""
    squares = jnp.zeros((), v.dtype)
    for each in rows:
        assert each.precision is not None
        squares = squares + jnp.sum(omega[each.precision] * each.evaluate(omega, v) ** 2)
    return squares
