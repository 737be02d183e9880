"""LowRankMultivariateNormal: covariance W Wᵀ + D."""

from __future__ import annotations

from typing import Any

from autmarg.analysis.families.base import Gaussian


def low_rank(d: Any) -> Gaussian:
    """NumPyro's factor D^½ chol(I + D^-½ W Wᵀ D^-½), which is stable for any D."""
    return Gaussian(d.loc, scale_tril=d.scale_tril, event_dim=1)
