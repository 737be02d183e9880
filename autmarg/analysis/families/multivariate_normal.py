"""MultivariateNormal; NumPyro factors a covariance or precision matrix itself."""

from __future__ import annotations

from typing import Any

from autmarg.analysis.families.base import Gaussian


def multivariate_normal(d: Any) -> Gaussian:
    """One triangular factor over the last axis."""
    return Gaussian(d.loc, scale_tril=d.scale_tril, event_dim=1)
