"""What terms of the energy have in common.

A term is a set of rows r = A δ + c with noise precision W (NOTATION.md). It enters the quadratic
form through the entries of AᵀWA and through the right-hand side -AᵀWc, and the density through its
value rᵀW r and log|W|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jax import Array

from autmarg.gaussian.affine import Point

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Placed(Protocol):
    """A term whose entries of AᵀWA have got their places in G.

    ``known`` are entries [size] that are ω[slot] times known numbers, by slot.
    """

    @property
    def known(self) -> Mapping[int, Float[np.ndarray, "size"]]: ...

    def __call__(self, point: Point) -> tuple[Float[Array, "size"] | None, Float[Array, "columns"]]:
        """All other entries [size] of AᵀWA (None for none), and -AᵀWc [columns]."""
        ...


class Term(Protocol):
    """Rows that enter the energy in one way.

    Attributes:
        n: the number of rows that are data, with a normalising constant.
        how: what becomes of its rows, for a plan: "12 rows whitened at each step".
    """

    how: str

    @property
    def n(self) -> int: ...

    def pairs(self) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
        """The columns i ≤ j [P] of each product that AᵀWA adds up."""
        ...

    def place(
        self, source: Int[np.ndarray, "M"], target: Int[np.ndarray, "M"], size: int
    ) -> Placed:
        """The term with places for its products.

        Args:
            source, target: [M] numbers of products, and their places among ``size``. An entry of a
                diagonal block stands at both of its places.
        """
        ...

    def squares(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """rᵀW r at v = (δ, 1) [columns + 1], a scalar."""
        ...

    def by_row(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """The same by a pass over all rows, each of which rounds by itself."""
        ...

    def lost(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""] | float:
        """An estimate of the rounding error of ``squares``."""
        ...

    def log_weight(self, point: Point) -> Float[Array, ""] | float:
        """log|W| of rows whose noise is independent (a point's constant has that of the others)."""
        ...
