"""The right-hand side -AᵀWc, of which most is known where the noise has few strata.

It is -½ ∂/∂v Σ_w ω_w φᵀ S_w φ at δ = 0, or -ω[p] (Σ_w ω_w S_w φ) of each feature φ = ω[p] v - φ̂.
Features of columns are -φ̂ there, known; only those of sampled latents (kept ones that enter
affinely) are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.bilinear import FULL, Entries
from autmarg.gaussian.monomials import Sums
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.small import take

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class KnownRightHandSide:
    """-AᵀWc, from few weights and known sums.

    Attributes:
        columns: number of columns.
        column, slot: [R] of the features of columns.
        weights: [W] slots of the weights.
        known: [W, R] what known features make.
        base, shift: [F] slots and shifts of the features of sampled latents.
        products: [W · R, F] between both, as a matrix or as entries.
    """

    columns: int
    column: Int[np.ndarray, "R"]
    slot: Int[np.ndarray, "R"]
    weights: Int[np.ndarray, "W"]
    known: Float[np.ndarray, "W R"]
    base: Int[np.ndarray, "F"]
    shift: Float[np.ndarray, "F"]
    products: Float[np.ndarray, "W*R F"] | Entries

    @classmethod
    def plan(
        cls,
        columns: int,
        column: Int[np.ndarray, "features"],
        slot: Int[np.ndarray, "features"],
        shift: Float[np.ndarray, "features"],
        weights: Int[np.ndarray, "W"],
        entries: Entries,
    ) -> KnownRightHandSide:
        """From all features, sorted by column, and the entries of S between them."""
        count = int(np.searchsorted(column, columns))
        base = np.flatnonzero((column == columns) & (slot != 0))
        place = np.full(len(column), -1)
        place[base] = np.arange(len(base))
        entries = entries.some(entries.row < count)
        row = np.searchsorted(weights, entries.weight) * count + entries.row
        at = place[entries.column]
        known = entries.value * ((column == columns) - shift)[entries.column]
        size = len(weights) * count
        sums = np.bincount(row[at < 0], known[at < 0], minlength=size)
        order = np.flatnonzero(at >= 0)
        order = order[np.lexsort([at[order], row[order]])]
        rest = Entries(row[order], at[order], entries.value[order], entries.weight[order])
        sums = sums.reshape(len(weights), count)
        products: np.ndarray | Entries = rest
        if len(order) > FULL * size * len(base):
            products = np.zeros((size, len(base)))
            products[rest.row, rest.column] = rest.value
        return cls(
            columns, column[:count], slot[:count], weights, sums, slot[base], shift[base], products
        )

    def __call__(self, omega: Float[Array, "slots"] | Omega) -> Float[Array, "columns"]:
        """-AᵀWc [columns] at ω."""
        if not len(self.base):
            return self._known(omega)
        features = take(omega, self.base) - jnp.asarray(self.shift, omega.dtype)
        rhs = -jnp.dot(omega[self.weights], self._sampled(features), precision="highest")
        rhs = rhs if not self.slot.any() else rhs * take(omega, self.slot)
        if not np.array_equal(self.column, np.arange(self.columns)):
            rhs = jax.ops.segment_sum(
                rhs, self.column, num_segments=self.columns, indices_are_sorted=True
            )
        return self._known(omega) + rhs

    @cached_property
    def _known(self) -> Sums:
        """What known features make."""
        weight, feature = np.nonzero(self.known)
        order = np.argsort(self.column[feature], kind="stable")
        weight, feature = weight[order], feature[order]
        slots = self.weights[weight], self.slot[feature]
        return Sums(-self.known[weight, feature], slots, self.column[feature], self.columns)

    def _sampled(self, features: Float[Array, "F"]) -> Float[Array, "W R"]:
        """Products [W, R] with the features of sampled latents."""
        if isinstance(self.products, Entries):
            each = self.products.products(features)
            sums = self.products.add(each, self.known.size)
        else:
            matrix = jnp.asarray(self.products, features.dtype)
            sums = jnp.dot(matrix, features, precision="highest")
        return sums.reshape(self.known.shape)
