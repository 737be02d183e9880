"""What terms of the energy have in common.

A term is a set of rows r = A δ + c with noise precision W (NOTATION.md). It enters the quadratic
form through the entries of AᵀWA and through the right-hand side -AᵀWc, and the density through its
value rᵀW r and log|W|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jax import Array

from autmarg.gaussian.affine import Point


class Placed(Protocol):
    """A term whose entries of AᵀWA have got their places in G.

    ``known`` are entries [size] that are ω[slot] times known numbers, by slot.
    """

    @property
    def known(self) -> Mapping[int, np.ndarray]: ...

    def __call__(self, point: Point) -> tuple[Array | None, Array]:
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

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The columns i ≤ j [P] of each product that AᵀWA adds up."""
        ...

    def place(self, source: np.ndarray, target: np.ndarray, size: int) -> Placed:
        """The term with places for its products.

        Args:
            source, target: [M] numbers of products, and their places among ``size``. An entry of a
                diagonal block stands at both of its places.
        """
        ...

    def squares(self, point: Point, v: Array) -> Array:
        """rᵀW r at v = (δ, 1) [columns + 1], a scalar."""
        ...

    def by_row(self, point: Point, v: Array) -> Array:
        """The same by a pass over all rows, each of which rounds by itself."""
        ...

    def lost(self, point: Point, v: Array) -> Array | float:
        """An estimate of the rounding error of ``squares``."""
        ...

    def log_weight(self, point: Point) -> Array | float:
        """log|W| of rows whose noise is independent (a point's constant has that of the others)."""
        ...
