"""Normal."""

from __future__ import annotations

from typing import Any

from autmarg.analysis.families.base import Gaussian


def normal(d: Any) -> Gaussian:
    """Independent elements."""
    return Gaussian(d.loc, scale=d.scale)
