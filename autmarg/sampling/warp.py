"""Coordinates whose spread hangs on a scale, divided by it.

Given a scale τ near zero, data say little of a correlation, and much if τ is large: in (τ, z) the
posterior is a funnel, which no mixture of few t densities fits. With

    z = y / ρ,    ρ = √(τ² + c²),

y has nearly the same spread at all τ; c is where the prior takes over from the data. Which
coordinate hangs on which scale is found from weighted points: a normal density of y, with the
Jacobian, has to be more likely than one of z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.sampling.target import Target

Array = np.ndarray

_GAIN = 0.003  # nats a point, from which a coordinate is divided
_SHARES = (0.0, 0.3, 0.6, 1.0, 2.0)  # of τ's root mean square, that c may be


@dataclass(frozen=True, eq=False)
class Warp:
    """A map from points y [n, p] to the coordinates x of a target.

    Attributes:
        by: the place of the scale that a coordinate is divided by, [p]; its own where none.
        least: c of each, [p].
        divided: whether it is divided, [p].
    """

    by: Array
    least: Array
    divided: Array

    @classmethod
    def none(cls, size: int) -> Warp:
        """The identity."""
        return cls(np.arange(size), np.ones(size), np.zeros(size, bool))

    def widths(self, points: Any) -> Any:
        """ρ [n, p] at points in either coordinates, of NumPy or of JAX; one where none."""
        xp: Any = np if isinstance(points, np.ndarray) else jnp
        rho = xp.sqrt(xp.square(points[..., self.by]) + np.square(self.least))
        return xp.where(self.divided, rho, 1.0)

    def x(self, y: Any) -> Any:
        """The target's coordinates."""
        return y / self.widths(y)

    def log_slope(self, y: Any) -> Any:
        """log |dx/dy|, [n]."""
        xp: Any = np if isinstance(y, np.ndarray) else jnp
        return -xp.log(self.widths(y)).sum(-1)


@dataclass(frozen=True, eq=False)
class Warped:
    """A target in the coordinates of a warp."""

    target: Target
    warp: Warp

    @property
    def positive(self) -> Array:
        """Which coordinates have no density below zero, [p]."""
        return self.target.positive

    @property
    def size(self) -> int:
        """Dimensions p."""
        return self.target.size

    def log_density(self, y: Array) -> Array:
        """log p(x(y)) |dx/dy| at points [n, p]."""
        return self.target.log_density(self.warp.x(y)) + self.warp.log_slope(y)


def warp_of(x: Array, weights: Array, positive: Array) -> Warp:
    """The warp with which weighted points [n, p] are most nearly normal, one scale for each."""
    found = Warp.none(x.shape[1])
    by, least, divided = found.by.copy(), found.least.copy(), found.divided.copy()
    scales = np.flatnonzero(positive)
    for j in np.flatnonzero(~positive):
        best = _spread(x[:, j], weights) - _GAIN
        for k in scales:
            size = np.sqrt(weights @ np.square(x[:, k]))
            for share in _SHARES:
                rho = np.sqrt(np.square(x[:, k]) + np.square(share * size))
                unlikely = _spread(x[:, j] * rho, weights) - weights @ np.log(rho)
                if unlikely < best:
                    best, by[j], least[j], divided[j] = unlikely, k, share * size, True
    return Warp(by, least, divided)


def _spread(x: Array, weights: Array) -> float:
    """Minus the log-likelihood of a fitted normal density, a point, up to a constant."""
    return 0.5 * float(np.log(weights @ np.square(x - weights @ x)))


__all__ = ["Warp", "Warped", "warp_of"]
