"""Sums of known numbers times products of opaque ones, Σ stat · ω[a] ω[b] …, added up by place.

Such products are often few: of a discrimination for each of 24 items, 24 squares serve all persons.
Each is formed once, m [K], and the sums are linear in them. XLA's derivative of looking them up is
a loop over all terms, one after the other; that of a matrix product is another product. So where
the matrix of the sums, [size, K], is not much larger than the list of terms, it is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.classes import joined
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.small import take

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Entries of a matrix for each term, up to which it serves (a gradient took 0.33 ns for an entry and
# 7 ns for a term that is looked up), and entries that are kept at all.
_ENTRIES, _MOST = 12, 4_000_000


@dataclass(frozen=True, eq=False)
class Sums:
    """Terms stat · Π_k ω[slots_k], added up into ``size`` places.

    Attributes:
        stat: [n] known numbers.
        slots: of ω, for each factor; that of slot 0 is one.
        target: [n] places, sorted.
        size: the number of places.
    """

    stat: Float[np.ndarray, "n"]
    slots: tuple[Int[np.ndarray, "n"], ...]
    target: Int[np.ndarray, "n"]
    size: int

    def __call__(self, omega: Float[Array, "slots"] | Omega) -> Float[Array, "size"]:
        """The sums at ω."""
        if not len(self.stat):
            return jnp.zeros(self.size, omega.dtype)
        kinds, which = self._kinds
        products = jnp.ones(1, omega.dtype)
        for slot in kinds:
            products = products if (slot == 0).all() else products * take(omega, slot)
        matrix = self._matrix
        if matrix is not None:
            return jnp.dot(jnp.asarray(matrix, omega.dtype), products, precision="highest")
        terms = jnp.asarray(self.stat, omega.dtype) * take(products, which)
        return jax.ops.segment_sum(
            terms, self.target, num_segments=self.size, indices_are_sorted=True
        )

    @cached_property
    def _kinds(self) -> tuple[tuple[Int[np.ndarray, "K"], ...], Int[np.ndarray, "n"]]:
        """The slots of distinct products, and which of them each term has."""
        first, which = joined([np.zeros(len(self.stat), np.int64), *self.slots])
        if len(first) == len(which):
            return self.slots, np.arange(len(which))
        return tuple(slot[first] for slot in self.slots), which

    @cached_property
    def _matrix(self) -> Float[np.ndarray, "size K"] | None:
        """The sums of each product, where that is no more than a few entries for each term."""
        kinds, which = self._kinds
        count = len(kinds[0])
        if self.size * count > min(_ENTRIES * len(self.stat), _MOST):
            return None
        place = self.target * count + which
        sums = np.bincount(place, weights=self.stat, minlength=self.size * count)
        return sums.reshape(self.size, count)


__all__ = ["Sums"]
