"""The metric of NUTS: coordinates in which a posterior is round, learned from draws and gradients.

NUTS with the inverse mass matrix M⁻¹ = LLᵀ is NUTS with a unit mass matrix in w, where z = z₀ + Lw.
L is a triangle over the first coordinates and diagonal over the others.

Of a normal density with covariance Σ, gradients g at draws x have Cov(g) = Σ⁻¹ Cov(x) Σ⁻¹. So the
geometric mean of Cov(x) and Cov(g)⁻¹ is Σ itself, however few and dependent the draws (Seyboldt et
al. 2024, as in nutpie). A dozen draws make a metric; their covariance alone would need hundreds.

Coordinates that depend on each other outside of the block (a group's scale and its effects) get too
narrow a scale by this, so that trajectories turn too early. From twenty draws on, the metric is
the geometric mean of it and of Cov(x).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from autmarg.compat.kernels import Numbers

_DOUBT = 5.0  # draws that weigh as much as the belief that scaled coordinates are uncorrelated
_SEVERAL = 20  # draws whose own covariance counts
_MOST = 1e3  # by which a scale changes at once


class Frame(NamedTuple):
    """Coordinates w with z = origin + L w.

    Attributes:
        origin: z₀ [p].
        block: the triangle L over the first coordinates, [k, k].
        scales: its diagonal over the others, [p - k].
    """

    origin: Numbers
    block: Numbers
    scales: Numbers

    @classmethod
    def at(cls, origin: np.ndarray, dense: int) -> Frame:
        """NumPyro's own coordinates, but for the origin; the first ``dense`` are a block."""
        kind = jnp.result_type(float)
        others = len(origin) - dense
        return cls(np.asarray(origin, kind), np.eye(dense, dtype=kind), np.ones(others, kind))

    def z(self, w: Numbers) -> Numbers:
        """z [*lead, p] of coordinates w [*lead, p]."""
        dense = len(self.block)
        return self.origin + _joined(w[..., :dense] @ self.block.T, w[..., dense:] * self.scales)

    def pulled(self, gradient: Numbers) -> Numbers:
        """Gradient in w, [p], of a gradient in z."""
        dense = len(self.block)
        return _joined(gradient[:dense] @ self.block, gradient[dense:] * self.scales)

    def stretched(self, block: np.ndarray, scales: np.ndarray) -> Frame:
        """Coordinates w′ with w = diag(block, scales) w′, about the same origin."""
        kind = jnp.result_type(float)
        return self._replace(
            block=np.asarray(self.block @ block, kind),
            scales=np.asarray(self.scales * scales, kind),
        )


def _joined(*parts: Numbers) -> Numbers:
    """Side by side; numbers stay NumPy's, for each of JAX's operations would be compiled."""
    known = all(isinstance(x, np.ndarray) for x in parts)
    return np.concatenate(parts, -1) if known else jnp.concatenate(parts, -1)


def learned(draws: np.ndarray, gradients: np.ndarray, dense: int) -> tuple[np.ndarray, np.ndarray]:
    """The triangle [k, k] and the scales [p - k] that make draws round.

    Args:
        draws: w [n, p].
        gradients: of -log p in w at these, [n, p].
        dense: k, how many coordinates the triangle is over.
    """
    several = len(draws) >= _SEVERAL
    with np.errstate(all="ignore"):
        own = draws.std(0)
        scales = np.sqrt(own / gradients.std(0))
        scales = np.sqrt(scales * own) if several else scales
    scales = np.where(np.isfinite(scales), np.clip(scales, 1 / _MOST, _MOST), 1.0)
    first = scales[:dense]
    spread, force = _shrunk(draws[:, :dense] / first), _shrunk(gradients[:, :dense] * first)
    if not (np.isfinite(spread).all() and np.isfinite(force).all() and own.all()):
        return np.diag(first), scales[dense:]
    mean = _geometric_mean(spread, force)
    mean = _geometric_mean(spread, np.linalg.inv(mean)) if several else mean
    return first[:, None] * np.linalg.cholesky(mean), scales[dense:]


def _shrunk(x: np.ndarray) -> np.ndarray:
    """Covariance of [n, k], its correlations shrunk."""
    n, k = x.shape
    raw = np.cov(x, rowvar=False).reshape(k, k) if n > 1 else np.eye(k)
    return (n * raw + _DOUBT * np.diag(np.diag(raw))) / (n + _DOUBT)


def _geometric_mean(spread: np.ndarray, force: np.ndarray) -> np.ndarray:
    """Of two covariances A and B⁻¹: B^-½ (B^½ A B^½)^½ B^-½."""
    root, back = _roots(force)
    return back @ _roots(root @ spread @ root)[0] @ back


def _roots(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A^½ and A^-½ of a positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.sqrt(np.maximum(values, 1e-12 * values.max(initial=1e-300)))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


__all__ = ["Frame", "learned"]
