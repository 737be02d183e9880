"""Rows added up: their cross-products are known when the plan is made.

An entry of AᵀWA is Σ stat · ω[w] ω[p] ω[q] over keys (:mod:`autmarg.gaussian.cross_products`). Keys
whose only opaque factor is a weight are added up beforehand, stratum by stratum, where these are
few; all others are added up at each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.affine import AffineForm, Point
from autmarg.gaussian.cross_products import CrossProducts, cross_products
from autmarg.gaussian.monomials import Sums
from autmarg.gaussian.residual import Residual, residual
from autmarg.gaussian.rowwise import Layout, Omega, Share
from autmarg.gaussian.terms.base import Term
from autmarg.gaussian.terms.walked import weighted

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_STRATA = 8  # of noise, up to which each has an array of its own


@dataclass(frozen=True, eq=False)
class Summed(Term):
    """The rows of a form whose noise is independent, with their cross-products."""

    form: AffineForm
    stats: CrossProducts
    how: str = "added up"

    @classmethod
    def of(cls, form: AffineForm) -> Summed:
        """All rows of a form whose noise is independent, added up."""
        return cls(form, cross_products(form))

    @property
    def n(self) -> int:
        """The number of rows that are data."""
        return self.stats.n

    @cached_property
    def residual(self) -> Residual:
        """The rows with what is known of them taken out, for sums of squares."""
        return residual(self.form, self.stats)

    @cached_property
    def _inner(self) -> Int[np.ndarray, "P"]:
        """Numbers of the cross-products without the constant column."""
        return np.flatnonzero(self.stats.second < self.form.columns)

    def pairs(self) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
        """The columns of each cross-product."""
        return self.stats.first[self._inner], self.stats.second[self._inner]

    def place(
        self, source: Int[np.ndarray, "M"], target: Int[np.ndarray, "M"], size: int
    ) -> PlacedSums:
        """The sums at their places."""
        stats, used = self.stats, self._inner[source]
        alone = stats.first[used] == stats.second[used]
        stat = stats.total[used] / np.where(alone, 1.0, 2.0)
        known, others = _sums(stats, used, stat, target, size)
        return PlacedSums(self, known, _spread(others, self.form.layout))

    def squares(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """rᵀW r, from cross-products of rows with what is known taken out."""
        return self.residual(point.omega, v)

    def by_row(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """rᵀW r in a pass over all rows."""
        return weighted(self.form.independent, point.omega, v)

    def lost(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""] | float:
        """The rounding of the squares that are added up; not asked of rows on several devices."""
        return 0.0 if self.form.layout is not None else self.residual.lost(point.omega, v)

    def log_weight(self, point: Point) -> Float[Array, ""]:
        """log|W|, by strata."""
        omega, layout = point.omega, self.form.layout
        strata, count = self.stats.strata, self.stats.count
        if layout is not None:
            return layout.log_weights(omega, strata, count)
        return jnp.dot(jnp.asarray(count, omega.dtype), jnp.log(omega[strata]))


@dataclass(frozen=True, eq=False)
class PlacedSums:
    """Cross-products at their places: ``known`` by slot, and ``others``."""

    term: Summed
    known: dict[int, Float[np.ndarray, "size"]]
    others: tuple[Sums | _SpreadSums, ...]

    @property
    def products(self) -> int:
        """How many products a step adds up."""
        return sum(each.stat.size for each in self.others)

    def __call__(self, point: Point) -> tuple[Float[Array, "size"] | None, Float[Array, "columns"]]:
        """Entries that are not known, and -AᵀWc."""
        parts = [sums(point.omega) for sums in self.others]
        total = sum(parts[1:], parts[0]) if parts else None
        return total, self.term.residual.rhs(point.omega)


@dataclass(frozen=True, eq=False)
class _SpreadSums:
    """:class:`Sums` with weights that are spread over devices; all but ``share`` are [devices, L].

    ``slots`` are those of ω[p] and ω[q], or None where all are one.
    """

    share: Share
    stat: Float[np.ndarray, "devices L"]
    slots: tuple[Int[np.ndarray, "devices L"] | None, ...]
    target: Int[np.ndarray, "devices L"]
    size: int

    @classmethod
    def of(cls, share: Share, sums: Sums) -> _SpreadSums:
        """The share's part of some sums."""
        slots = (share.known(slot) for slot in sums.slots[1:])
        kept = tuple(slot if slot.any() else None for slot in slots)
        target = share.known(sums.target, sums.size - 1)
        return cls(share, share.known(sums.stat, 0.0), kept, target, sums.size)

    def __call__(self, omega: Float[Array, "slots"] | Omega) -> Float[Array, "size"]:
        product = self.share.spread(self.stat, omega.dtype) * self.share.weights(omega)
        for slot in self.slots:
            if slot is not None:
                product = product * omega[slot]
        return self.share.add(product, self.target, self.size)


def _spread(sums: Sums, layout: Layout | None) -> tuple[Sums | _SpreadSums, ...]:
    """Sums in parts, those whose weights are spread apart; none of no terms."""
    if layout is None:
        return (sums,) if len(sums.stat) else ()
    shares, rest = layout.split(sums.slots[0], sums.slots[1:])
    slots = tuple(slot[rest] for slot in sums.slots)
    left = Sums(sums.stat[rest], slots, sums.target[rest], sums.size)
    return *_spread(left, None), *(_SpreadSums.of(share, sums) for share in shares)


def _sums(
    stats: CrossProducts,
    used: Int[np.ndarray, "n"],
    stat: Float[np.ndarray, "n"],
    target: Int[np.ndarray, "n"],
    size: int,
) -> tuple[dict[int, Float[np.ndarray, "size"]], Sums]:
    """Sums [size] whose only opaque factor is one weight, by its slot; and the others."""
    order = np.argsort(target, kind="stable")
    used, stat, target = used[order], stat[order], target[order]
    weight, p, q = stats.weight[used], stats.first_slot[used], stats.second_slot[used]
    bare, known = (p == 0) & (q == 0), {}
    strata = np.unique(weight[bare])
    if len(strata) > _STRATA:
        bare = np.zeros(len(used), bool)
    else:
        for slot in strata:
            here = bare & (weight == slot)
            known[int(slot)] = np.bincount(target[here], weights=stat[here], minlength=size)
    rest = ~bare
    return known, Sums(stat[rest], (weight[rest], p[rest], q[rest]), target[rest], size)
