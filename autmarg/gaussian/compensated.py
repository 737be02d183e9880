"""Sums of products in twice the working precision, at plan time.

A known residual is what a fit leaves of the data. With noise of 10⁻⁹ of the signal a plain sum has
seven of its digits left, and each row's rounding enters the density divided by its noise.
"""

from __future__ import annotations

import numpy as np

_SPLIT = 2.0**27 + 1.0


class Sum:
    """[n] sums of products, each with the rounding errors of all additions and products added up.

    The result is rounded as if it had been worked out in twice the precision (Ogita, Rump & Oishi
    2005, SIAM J. Sci. Comput. 26(6), algorithm 5.3).
    """

    def __init__(self, n: int) -> None:
        self.high, self.low = np.zeros(n), np.zeros(n)

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add the products of two arrays [n|1, K]."""
        first, second = np.broadcast_arrays(first, second)
        for a, b in zip(first.T, second.T, strict=True):
            product = a * b
            total = self.high + product
            part = total - self.high
            lost = (self.high - (total - part)) + (product - part)
            self.high, self.low = total, self.low + (lost + _error(a, b, product))

    @property
    def value(self) -> np.ndarray:
        """The sums [n]."""
        # (where something is not finite, its rounding error is not a number)
        return np.where(np.isfinite(self.low), self.high + self.low, self.high)


def _error(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> np.ndarray:
    """a b - fl(a b), exact (Dekker 1971)."""
    with np.errstate(over="ignore", invalid="ignore"):
        (a1, a2), (b1, b2) = _halves(a), _halves(b)
        return a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """26 leading bits, and the rest."""
    scaled = _SPLIT * a
    high = scaled - (scaled - a)
    return high, a - high
