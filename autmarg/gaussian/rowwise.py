"""Rows whose weights differ, spread over the devices of a mesh.

Where noise varies row by row, there are as many weights ω[w] as rows, and a step walks all rows. If
the data lie on several devices, each adds up the rows that it has: what is added up is laid out as
[devices, …], weights as [devices, rows of each], and only sums over devices travel. A value with
its gradient has two of these: the entries of G and h, from which the conditional mean is found, and
then the sum of squares there with all derivatives. What else is needed for that, the partitioner of
XLA works out (Xu et al. 2021, arXiv:2105.04663).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from autmarg.gaussian.ragged import ranks

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped

_ROWS = 8  # of a device, from which an array of weights is spread


@dataclass(frozen=True, eq=False)
class Layout:
    """Which parts of ω are spread, and how.

    Attributes:
        sharding: of arrays whose first axis is that of the devices.
        slots: length of ω.
        spans: (first slot, number of slots) of each array of ω that is spread.
    """

    sharding: NamedSharding
    slots: int
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def plan(
        cls,
        sharding: NamedSharding | None,
        slots: int,
        bases: Sequence[int],
        weights: Sequence[Int[np.ndarray, "..."]],
    ) -> Layout | None:
        """The layout of ω whose arrays start at ``bases``, or None where none is to be spread.

        ``weights`` are the slots of rows' noise precisions.
        """
        if sharding is None:
            return None
        devices = _devices(sharding)
        ends = (*bases[1:], slots)
        used = np.unique(np.concatenate([np.zeros(0, np.int64), *weights]))
        spans = []
        for start, end in zip(bases, ends, strict=True):
            met = np.searchsorted(used, end) > np.searchsorted(used, start)
            if met and (end - start) % devices == 0 and end - start >= _ROWS * devices:
                spans.append((start, end - start))
        return cls(sharding, slots, tuple(spans)) if spans else None

    @property
    def devices(self) -> int:
        """Number of parts."""
        return _devices(self.sharding)

    def spread(self, array: Shaped[Array, "..."] | np.ndarray) -> Shaped[Array, "..."]:
        """An array whose first axis is split over the devices."""
        return jax.lax.with_sharding_constraint(array, self.sharding)

    def constant(self, array: np.ndarray) -> Array | np.ndarray:
        """A known array, spread where it has a row for each of a span's."""
        lengths = {length for _, length in self.spans}
        return self.spread(array) if np.ndim(array) and array.shape[0] in lengths else array

    def omega(self, arrays: Sequence[Float[Array, "..."]], starts: Sequence[int]) -> Omega:
        """ω of the arrays that start at the slots ``starts``."""
        parts = dict(zip(starts, arrays, strict=True))
        spans = tuple(self.spread(parts.pop(start)) for start, _ in self.spans)
        return Omega(jnp.concatenate([*parts.values()]), spans, self)

    def of(self, omega: Float[Array, "slots"] | Omega) -> Omega:
        """ω in parts."""
        if isinstance(omega, Omega):
            return omega
        ends = [edge for start, length in self.spans for edge in (start, start + length)]
        return self.omega(jnp.split(omega, ends), [0, *ends])

    def weights(
        self, omega: Float[Array, "slots"] | Omega, number: int
    ) -> Float[Array, "devices rows"]:
        """[devices, rows of each] a span of ω."""
        return self.spread(self.of(omega).spans[number].reshape(self.devices, -1))

    @cached_property
    def span(self) -> Int[np.ndarray, "slots"]:
        """[slots] number of each slot's span, -1 outside."""
        span = np.full(self.slots, -1)
        for number, (start, length) in enumerate(self.spans):
            span[start : start + length] = number
        return span

    @cached_property
    def among_rest(self) -> Int[np.ndarray, "slots"]:
        """[slots] place of each slot among those outside of spans."""
        return np.cumsum(self.span < 0) - 1

    def split(
        self, weight: Int[np.ndarray, "n"], other: Sequence[Int[np.ndarray, "n"]] = ()
    ) -> tuple[list[Share], Int[np.ndarray, "rest"]]:
        """Keys by the slot of their weight: the shares of spans, and the numbers of the rest.

        Keys with ``other`` slots inside a span stay.
        """
        span = self.span[weight]
        for slot in other:
            span = np.where(self.span[slot] >= 0, -1, span)
        shares = []
        for number, (start, length) in enumerate(self.spans):
            keys = np.flatnonzero(span == number)
            if len(keys):
                shares.append(Share.of(self, number, keys, weight[keys] - start, length))
        return shares, np.flatnonzero(span < 0)

    def log_weights(
        self,
        omega: Float[Array, "slots"] | Omega,
        slots: Int[np.ndarray, "n"],
        count: Float[np.ndarray, "n"],
    ) -> Float[Array, ""]:
        """Σ count · log ω[slot]."""
        total = jnp.zeros((), omega.dtype)
        for number, (start, length) in enumerate(self.spans):
            here = (slots >= start) & (slots < start + length)
            counts = np.bincount(slots[here] - start, weights=count[here], minlength=length)
            weights = self.weights(omega, number)
            counts = self.spread(jnp.asarray(counts.reshape(weights.shape), omega.dtype))
            total = total + jnp.sum(counts * jnp.log(jnp.where(counts > 0, weights, 1.0)))
        rest = self.span[slots] < 0
        logs = jnp.log(self.of(omega)[slots[rest]])
        return total + jnp.sum(jnp.asarray(count[rest], omega.dtype) * logs)


@partial(jax.tree_util.register_dataclass, data_fields=["rest", "spans"], meta_fields=["layout"])
@dataclass(frozen=True, eq=False)
class Omega:
    """ω in parts, which is indexed by known slots like an array: what is not spread, and spans."""

    rest: Float[Array, "rest"]
    spans: tuple[Float[Array, "span"], ...]
    layout: Layout

    @property
    def dtype(self) -> np.dtype:
        return self.rest.dtype

    @property
    def whole(self) -> Float[Array, "slots"]:
        """[slots] as one array."""
        starts = [self.layout.among_rest[start] + 1 for start, _ in self.layout.spans]
        pieces = jnp.split(self.rest, starts)
        pairs = zip(pieces, self.spans, strict=False)
        return jnp.concatenate([*(part for pair in pairs for part in pair), pieces[-1]])

    def __getitem__(self, index: np.ndarray | slice | int) -> Float[Array, "..."]:
        slots = np.arange(self.layout.slots)[index]
        if (self.layout.span[slots] >= 0).any():
            return self.whole[index]
        return self.rest[self.layout.among_rest[slots]]


@dataclass(frozen=True, eq=False)
class Share:
    """Keys whose weights are in one span, each with the device that has its weight.

    ``key`` [devices, L] are their numbers, -1 where a device has fewer; ``weight`` [devices, L] the
    place of each one's weight on its device.
    """

    layout: Layout
    number: int
    key: Int[np.ndarray, "devices L"]
    weight: Int[np.ndarray, "devices L"]

    @classmethod
    def of(
        cls,
        layout: Layout,
        number: int,
        keys: Int[np.ndarray, "n"],
        place: Int[np.ndarray, "n"],
        length: int,
    ) -> Share:
        """Keys, in their order, with their weights at ``place`` of a span of ``length`` slots."""
        each = length // layout.devices
        device = place // each
        order = np.argsort(device, kind="stable")
        counts = np.bincount(device, minlength=layout.devices)
        row = device[order]
        column = ranks(counts)
        key = np.full((layout.devices, int(counts.max())), -1)
        weight = np.zeros(key.shape, np.int32)
        key[row, column], weight[row, column] = keys[order], place[order] % each
        return cls(layout, number, key, weight)

    def known(
        self, array: Shaped[np.ndarray, "n"], padding: float = 0
    ) -> Shaped[np.ndarray, "devices L"]:
        """An array of the keys, [devices, L]."""
        spread = np.where(self.key >= 0, array[self.key], padding)
        return spread.astype(np.int32) if spread.dtype.kind == "i" else spread

    def weights(self, omega: Float[Array, "slots"] | Omega) -> Float[Array, "devices L"]:
        """[devices, L] each key's weight."""
        weights = self.layout.weights(omega, self.number)
        return jnp.take_along_axis(weights, self.layout.spread(self.weight), axis=1)

    def spread(
        self, array: Shaped[np.ndarray, "devices L"], dtype: DTypeLike | None = None
    ) -> Shaped[Array, "devices L"]:
        """A known array [devices, L], each part where its weights are."""
        return self.layout.spread(jnp.asarray(array, dtype))

    def add(
        self, products: Float[Array, "devices L"], target: Int[np.ndarray, "devices L"], size: int
    ) -> Float[Array, "size"]:
        """[size] sums of products by their targets, ascending on each device."""

        def own(values: Array, targets: Array) -> Array:
            return jax.ops.segment_sum(values, targets, size, indices_are_sorted=True)

        return jax.vmap(own)(products, self.spread(target)).sum(axis=0)


def _devices(sharding: NamedSharding) -> int:
    axes = sharding.spec[0]
    axes = axes if isinstance(axes, tuple) else (axes,)
    return int(np.prod([sharding.mesh.shape[axis] for axis in axes]))
