"""Sums of log-densities, element by element, over the levels that they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.ragged import padded

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_WIDE = 2.0  # times as many places as elements, up to which a table of them is summed


@dataclass(frozen=True, eq=False)
class LevelSum:
    """Σ over the elements of a value that read a level, for each level.

    Attributes:
        level: of each element, -1 for those that are left out.
        levels: how many there are.
    """

    level: Int[np.ndarray, "elements"]
    levels: int

    @property
    def empty(self) -> bool:
        """Whether nothing is added up."""
        return not (self.level >= 0).any()

    @cached_property
    def _used(self) -> np.ndarray:
        """Places of the elements that are added, by level."""
        order = np.argsort(self.level, kind="stable")
        return order[np.count_nonzero(self.level < 0) :]

    def __call__(self, terms: Float[Array, "*shape"]) -> Float[Array, "levels"]:
        """The sums of an array of so many elements."""
        flat = terms.reshape(-1)
        order, by_level = self._used, self.level[self._used]
        counts = np.bincount(by_level, minlength=self.levels)
        if not np.array_equal(order, np.arange(len(flat))):
            flat = flat[order]
        if (counts == counts[0]).all():
            return flat.reshape(self.levels, counts[0]).sum(axis=1)
        if self.levels * counts.max() <= _WIDE * len(order):
            table = padded(by_level, np.arange(len(order)), self.levels)
            return jnp.append(flat, 0.0)[table].sum(axis=1)
        return jax.ops.segment_sum(flat, by_level, self.levels, indices_are_sorted=True)


def total(sums: Sequence[LevelSum], terms: Sequence[Array], levels: int) -> Array:
    """All of them added up, [levels]."""
    found = [add(x) for add, x in zip(sums, terms, strict=True) if not add.empty]
    return sum(found, jnp.zeros(levels))


__all__ = ["LevelSum", "total"]
