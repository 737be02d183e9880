"""Gaussian families: how a NumPyro distribution is read as an affine image of normal noise.

Each family is one file with one function, listed in :data:`FAMILIES`; :func:`register_gaussian`
adds a user's own.
"""

from __future__ import annotations

from autmarg.analysis.families.base import Gaussian, NotGaussian
from autmarg.analysis.families.registry import FAMILIES, as_gaussian, register_gaussian

__all__ = ["FAMILIES", "Gaussian", "NotGaussian", "as_gaussian", "register_gaussian"]
