"""Leaving rows out of a linear Gaussian system: log p(y_i | y_-i, θ), exact.

Of y = η + e with e ~ N(0, 1/ω) let η_i | y, θ ~ N(y_i - r_i, v_i), the data y_i included. Then

    η_i | y_-i, θ ~ N(y_i - r_i / (1 - h_i), v_i / (1 - h_i)),    h_i = ω v_i,

and log p(y_i | y_-i, θ) = c_i + ½ log(1 - h_i) - ½ ω r_i² / (1 - h_i) with c_i = ½ log(ω / 2π)
(Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eq. 5.10-5.12; Vehtari et al.
2016, JMLR 17(103)). With a weight w_i, by which a row's precision ω_i is multiplied,
log p(y | θ) = K - Q/2 has the derivatives ∂K/∂w_i = -h_i / 2 and ∂Q/∂w_i = ω r_i² at w_i = 1: one
gradient of K and one of Q give all rows.

Several rows together are left out by their weights: w = 0 for them, and the difference of K and Q
to w = 1. This costs one evaluation, and serves also where 1 - h_i has no digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from autmarg.gaussian.affine import AffineForm, Point, Rows
from autmarg.gaussian.schedule import Schedule

if TYPE_CHECKING:
    from jaxtyping import Float, Int

ROOM = 1e-6  # of 1 - h, below which h has too few digits for it
_OUT = 1e150  # times its noise, the square of a row is zero


@dataclass(frozen=True, eq=False)
class Labels:
    """Which rows of one site are left out together.

    Attributes:
        label: [rows], or [blocks] where noise is correlated within blocks.
        site: the site's place among those that are left out, from 0.
        power: of each row's (or block's) density, by which its precision is multiplied already.
    """

    label: Int[np.ndarray, "rows"]
    site: int
    power: Float[np.ndarray, "rows"]


@dataclass(frozen=True, eq=False)
class Weights:
    """What weighs alike: rows of one label, site, power and precision."""

    label: Int[np.ndarray, "W"]
    site: Int[np.ndarray, "W"]
    power: Float[np.ndarray, "W"]

    def without(
        self, label: Int[Array, ""], level: Int[Array, ""], dtype: DTypeLike
    ) -> Float[Array, "W"]:
        """Weights of a system that has the rows of ``label`` up to a site, at power 1."""
        inside = jnp.where(self.site <= level, 1.0 / self.power, 0.0)
        return jnp.where(self.label == label, inside, 1.0).astype(dtype)


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """A linear Gaussian system whose rows have weights.

    Attributes:
        schedule: of the form with a slot of precision for each distinct weight.
        slot: [W] the slot of the precision that each of them multiplies.
        weights: of independent rows.
        rows: [W] number of rows of each.
        blocks: weights of the blocks of correlated rows, for each of these; None for those that
            stay.
        sites: number of sites.
    """

    schedule: Schedule
    slot: Int[np.ndarray, "W"]
    weights: Weights
    rows: Int[np.ndarray, "W"]
    blocks: tuple[Weights | None, ...]
    sites: int

    @classmethod
    def plan(
        cls,
        form: AffineForm,
        labels: Mapping[str, Labels],
        scheduled: Callable[[AffineForm], Schedule],
    ) -> LeaveOut:
        """The system with weights for its rows.

        Args:
            form: the system's.
            labels: by site; other rows stay.
            scheduled: makes the schedule of a form.
        """
        rows: list[Rows] = []
        keys = [np.zeros((0, 4))]
        for each in form.rows:
            if each.name not in labels or each.block > 1:
                rows.append(each)
                continue
            own = labels[each.name]
            assert each.precision is not None and len(own.label) == each.n
            slot = np.broadcast_to(each.precision, each.n)
            site = np.full(each.n, own.site)
            keys.append(np.stack([slot, own.label, site, own.power], axis=1))
            rows.append(replace(each, counted=False))
        distinct, which, counts = np.unique(
            np.concatenate(keys), axis=0, return_inverse=True, return_counts=True
        )
        ends = iter(np.split(form.slots + which.reshape(-1), np.cumsum([len(k) for k in keys[1:]])))
        rows = [each if each.counted else replace(each, precision=next(ends)) for each in rows]
        slot, label, site = (distinct[:, i].astype(np.int64) for i in range(3))
        weighted = replace(
            form, rows=tuple(rows), slots=form.slots + len(distinct),
            bases=(*form.bases, form.slots), sharding=None,
        )  # fmt: skip
        blocks = tuple(_of_blocks(labels.get(each.name)) for each in form.correlated)
        sites = 1 + max((own.site for own in labels.values()), default=0)
        weights = Weights(label, site, distinct[:, 3])
        return cls(scheduled(weighted), slot, weights, counts, blocks, sites)

    @property
    def tempered(self) -> bool:
        """Whether a row's density has another power than one."""
        every = (self.weights, *(b for b in self.blocks if b is not None))
        return any((each.power != 1).any() for each in every)

    def parts(
        self,
        point: Point,
        weights: Float[Array, "W"],
        blocks: tuple[Float[Array, "blocks"] | None, ...],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """K and Q of log p(y | θ) = K - Q/2 but for normalisers of rows, at weights of rows [W] and
        of blocks."""
        whole = point.omega[:]
        omega = jnp.concatenate([whole, whole[self.slot] * weights])
        pairs = zip(point.factors, blocks, strict=True)
        factors = tuple(f if w is None else _weighted(f, w) for f, w in pairs)
        return self.schedule.parts(replace(point, omega=omega, factors=factors))

    def one_by_one(
        self, point: Point
    ) -> tuple[Float[Array, "W"], Float[Array, "W"], Float[Array, "W"]]:
        """What each weight's rows, one each, have beside c_i: log p(y_i | y_-i, θ) = c_i + K - Q/2.

        Returns:
            K and Q [W], and 1 - h: below ``ROOM`` they have too few digits.
        """
        dtype = point.omega.dtype
        ones = jnp.ones(len(self.slot), dtype)
        _, back = jax.vjp(lambda w: self.parts(point, w, self._all_in(dtype)), ones)
        (slopes,) = jax.vmap(back)((jnp.eye(2, dtype=dtype)[0], jnp.eye(2, dtype=dtype)[1]))
        h, q = -2.0 * slopes[0], slopes[1]
        power = jnp.asarray(self.weights.power, dtype)
        room = 1.0 - h
        # A density of power s is left out as such; what is predicted has power one, precision ω/s.
        spread = h / (room * power)
        k = -0.5 * jnp.log1p(spread)
        return k, q / (power * room**2 * (1.0 + spread)), room

    def squares(self, point: Point) -> Float[Array, ""]:
        """Q of all rows."""
        dtype = point.omega.dtype
        return self.parts(point, jnp.ones(len(self.slot), dtype), self._all_in(dtype))[1]

    def together(
        self, point: Point, labels: Int[Array, "n"]
    ) -> tuple[Float[Array, "n sites"], Float[Array, "n sites"]]:
        """The same of labels [n], whose rows are left out together, site by site [n, sites].

        Those of the second site are given those of the first, and so on: the sum over sites is of
        all rows of a label.
        """
        dtype = point.omega.dtype
        full = self.sites - 1
        levels = jnp.arange(-1, full + self.tempered)

        def at(label: Array, level: Array) -> tuple[Array, Array]:
            blocks = (b and b.without(label, level, dtype) for b in self.blocks)
            return self.parts(point, self.weights.without(label, level, dtype), tuple(blocks))

        k, q = jax.lax.map(lambda g: jax.vmap(lambda level: at(g, level))(levels), labels)
        if not self.tempered:
            base = self.parts(point, jnp.ones(len(self.slot), dtype), self._all_in(dtype))
            last = (jnp.full((len(labels), 1), x) for x in base)
            k, q = (jnp.concatenate(pair, axis=1) for pair in zip((k, q), last, strict=True))
        return jnp.diff(k, axis=1), jnp.diff(q, axis=1)

    def _all_in(self, dtype: DTypeLike) -> tuple[Array | None, ...]:
        return tuple(b and jnp.ones(len(b.label), dtype) for b in self.blocks)


def _of_blocks(own: Labels | None) -> Weights | None:
    if own is None:
        return None
    return Weights(own.label, np.full(len(own.label), own.site), own.power)


def _weighted(factor: Float[Array, "#B d d"], weights: Float[Array, "B"]) -> Float[Array, "B d d"]:
    """Noise factors [B, d, d] of blocks whose precision is multiplied by ``weights`` [B]."""
    inside = weights > 0
    scale = jnp.where(inside, jax.lax.rsqrt(jnp.where(inside, weights, 1.0)), _OUT)
    return factor * scale[:, None, None]


__all__ = ["ROOM", "Labels", "LeaveOut", "Weights"]
