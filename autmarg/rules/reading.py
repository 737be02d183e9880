"""NumPyro distributions as the families that rules speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

Reader = Callable[[Any], tuple[Any, ...] | None]


def _unit(d: Any) -> tuple[Any, ...] | None:
    """Beta(1, 1), where the bounds are known to be 0 and 1."""
    known = isinstance(d.low, np.ndarray) and isinstance(d.high, np.ndarray)
    return (1.0, 1.0) if known and (d.low == 0).all() and (d.high == 1).all() else None


# The key is the exact class: a subclass may override log_prob. Arguments are in the family's order.
READERS: dict[type, dict[str, Reader]] = {
    dist.Beta: {"Beta": lambda d: (d.concentration1, d.concentration0)},
    dist.Uniform: {"Uniform": lambda d: (d.low, d.high), "Beta": _unit},
    dist.Gamma: {"Gamma": lambda d: (d.concentration, d.rate)},
    dist.Exponential: {
        "Exponential": lambda d: (d.rate,),
        "Gamma": lambda d: (jnp.ones_like(d.rate), d.rate),
    },
    dist.InverseGamma: {"InverseGamma": lambda d: (d.concentration, d.rate)},
    dist.Pareto: {"Pareto": lambda d: (d.scale, d.alpha)},
    dist.Normal: {"Normal": lambda d: (d.loc, d.scale)},
    dist.Dirichlet: {"Dirichlet": lambda d: (d.concentration,)},
    dist.BernoulliProbs: {"Bernoulli": lambda d: (d.probs,)},
    dist.BernoulliLogits: {"Bernoulli": lambda d: (jax.lax.logistic(d.logits),)},
    dist.BinomialProbs: {"Binomial": lambda d: (d.total_count, d.probs)},
    dist.BinomialLogits: {
        "Binomial": lambda d: (d.total_count, jax.lax.logistic(d.logits)),
    },
    dist.GeometricProbs: {"Geometric": lambda d: (d.probs,)},
    dist.GeometricLogits: {"Geometric": lambda d: (jax.lax.logistic(d.logits),)},
    dist.NegativeBinomialProbs: {"NegativeBinomial": lambda d: (d.total_count, d.probs)},
    dist.NegativeBinomialLogits: {
        "NegativeBinomial": lambda d: (d.total_count, jax.lax.logistic(d.logits)),
    },
    dist.Poisson: {"Poisson": lambda d: (d.rate,)},
    # A rule's vector is x itself, whose exponentiated logarithms add up to one.
    dist.CategoricalProbs: {"Categorical": lambda d: (d.probs,)},
    dist.CategoricalLogits: {"Categorical": lambda d: (jnp.exp(d.logits),)},
    dist.MultinomialProbs: {"Multinomial": lambda d: (d.total_count, d.probs)},
    dist.MultinomialLogits: {
        "Multinomial": lambda d: (d.total_count, jnp.exp(d.logits)),
    },
}
# How the prior's family is built from its parameters again.
BUILDERS: dict[str, Callable[..., Any]] = {
    "Beta": dist.Beta,
    "Gamma": dist.Gamma,
    "InverseGamma": dist.InverseGamma,
    "Pareto": dist.Pareto,
    "Normal": dist.Normal,
    "Dirichlet": dist.Dirichlet,
}


@dataclass(frozen=True, eq=False)
class Read:
    """A distribution without its wrapping.

    Attributes:
        base: the innermost distribution.
        masks: arrays, each with the number of axes that follow it in a value.
    """

    base: Any
    masks: tuple[tuple[Any, int], ...]

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that it may be of."""
        return tuple(READERS.get(type(self.base), ()))

    def arguments(self, family: str) -> tuple[Any, ...] | None:
        """Of a family, or None where it is not of it after all."""
        return READERS[type(self.base)][family](self.base)


def read(d: Any) -> Read:
    """See through expansion, independence and masks."""
    masks = []
    while isinstance(d, dist.ExpandedDistribution | dist.Independent | dist.MaskedDistribution):
        if isinstance(d, dist.MaskedDistribution) and d._mask is not True:
            masks.append((d._mask, d.event_dim))
        d = d.base_dist
    return Read(d, tuple(masks))


def family_names(d: Any) -> Iterator[str]:
    """Names of the families that a distribution's class may be of."""
    yield from read(d).families
