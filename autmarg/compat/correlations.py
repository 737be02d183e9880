"""NumPyro's LKJ distribution over 2 × 2 matrices in closed form.

The Cholesky factor of a 2 × 2 correlation matrix is one number r: [[1, 0], [r, √(1 - r²)]]. NumPyro
evaluates any dimension by cumulative products over triangles, which are two thirds of the
instructions of a model with random slopes. Here the same numbers are a few elementwise operations.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.scipy.special import gammaln
from numpyro import distributions as dist
from numpyro.distributions import biject_to, constraints, transforms
from numpyro.distributions.util import validate_sample

_Factors: Any = type(constraints.corr_cholesky)


class PairConstraint(_Factors):
    """Cholesky factors of 2 × 2 correlation matrices."""


class PairTransform(transforms.CorrCholeskyTransform):
    """z [*batch, 1] → the Cholesky factor with r = tanh z, [*batch, 2, 2]."""

    def __call__(self, x: Any) -> Array:
        """The factor; r is as far from ±1 as NumPyro keeps it."""
        most = 1 - jnp.finfo(jnp.result_type(x)).eps
        r = jnp.clip(jnp.tanh(x), -most, most)
        one = jnp.ones_like(r)
        rows = [one, jnp.zeros_like(r), r, jnp.sqrt(one - r * r)]
        return jnp.concatenate(rows, -1).reshape(*jnp.shape(x)[:-1], 2, 2)

    def _inverse(self, y: Any) -> Array:
        return jnp.arctanh(y[..., 1, :1])

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        """log (1 - r²), without the digits that a large z would lose."""
        z = x[..., 0]
        return 2 * (math.log(2) - z - jnp.logaddexp(0.0, -2 * z))


class PairLKJ(dist.LKJCholesky):
    """:class:`numpyro.distributions.LKJCholesky` of dimension 2."""

    support = PairConstraint()

    @validate_sample
    def log_prob(self, value: Any) -> Array:
        """(η - 1) log (1 - r²) - log B(η, ½)."""
        eta = self.concentration
        beta = _log_gamma(eta) + 0.5 * math.log(math.pi) - _log_gamma(eta + 0.5)
        return 2 * (eta - 1) * jnp.log(value[..., 1, 1]) - beta


def _to_pairs(constraint: PairConstraint) -> PairTransform:
    return PairTransform()


biject_to.register(PairConstraint)(_to_pairs)


def _log_gamma(x: Any) -> Any:
    """log Γ; of what is known now, a number."""
    if isinstance(x, Tracer):
        return gammaln(x)
    from scipy.special import gammaln as known

    found = known(np.asarray(x))
    return jnp.asarray(found, jnp.result_type(x)) if found.ndim else float(found)


def in_closed_form(fn: Any) -> Any:
    """The same distribution; one over 2 × 2 correlations evaluates faster, and remains an LKJ."""
    if type(fn) is dist.LKJCholesky and fn.dimension == 2:
        found = copy.copy(fn)
        found.__class__ = PairLKJ
        return found
    if isinstance(fn, dist.ExpandedDistribution):
        base = in_closed_form(fn.base_dist)
        if base is not fn.base_dist:
            fn = copy.copy(fn)
            fn.base_dist = base
    return fn


__all__ = ["PairLKJ", "PairTransform", "in_closed_form"]
