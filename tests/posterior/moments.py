"""Draws with the same θ, and a comparison of their predictions' moments with closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np

N = 4000  # draws


def repeated(**values: Any) -> dict[str, np.ndarray]:
    """N draws of the same values."""
    return {
        name: np.tile(np.asarray(v, float), (N, *[1] * np.ndim(v))) for name, v in values.items()
    }


def assert_moments(draws: Any, mean: Any, covariance: Any) -> None:
    """Draws [N, d] have a mean and a covariance, to five standard errors of Gaussian draws."""
    draws, covariance = np.asarray(draws), np.asarray(covariance)
    variance = np.diag(covariance)
    error = np.abs(draws.mean(0) - mean) / np.sqrt(variance / N)
    assert (error < 5).all(), error
    spread = np.sqrt((np.outer(variance, variance) + covariance**2) / N)
    error = np.abs(np.cov(draws.T) - covariance) / spread
    assert (error < 5).all(), error
