"""ImproperUniform over all real numbers: a Gaussian whose density a mask takes out."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from numpyro.distributions import constraints

from autmarg.analysis.families.base import Gaussian, NotGaussian


def improper_uniform(d: Any) -> Gaussian:
    """A flat prior, of which no draw can be had.

    Raises:
        NotGaussian: its support is not all of the real numbers.
    """
    support = d.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is not constraints.real:
        raise NotGaussian("ImproperUniform over a part of the real numbers")
    return Gaussian(0.0, scale=1.0, mask=jnp.zeros((), bool), proper=False)
