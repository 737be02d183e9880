"""NumPyro distributions as the families that rules speak of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import betaln, gammaln

from autmarg.compat.numpyro import base_of, unwrapped
from autmarg.conjugacy.monomial import NoMatch
from autmarg.ir.nodes import Sample
from autmarg.ir.program import Program
from autmarg.ir.staged import known
from autmarg.ir.tape import Tape

if TYPE_CHECKING:
    from autmarg.conjugacy.families import Family  # needs SymPy, which is slow to import

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


def _by_betaln(y: Any, r: Any) -> Any:
    """What jax's betaln, off by some 1e-6, adds to the log-density of NumPyro's class."""
    exact = gammaln(r) + gammaln(y + 1) - gammaln(r + y + 1)
    return exact - betaln(r, y + 1)


# Classes whose log_prob differs from their family's by a function of y and of what else a rule's
# child has: it is added, since what is integrated is the user's program as NumPyro evaluates it.
OFF_BY: dict[type, Callable[..., Any]] = {dist.NegativeBinomialProbs: _by_betaln}
# How the prior's family is built from its parameters again.
BUILDERS: dict[str, Callable[..., Any]] = {
    "Beta": dist.Beta,
    "Gamma": dist.Gamma,
    "InverseGamma": dist.InverseGamma,
    "Pareto": dist.Pareto,
    "Normal": dist.Normal,
    "Dirichlet": dist.Dirichlet,
}


def parameters_as(base: Any, family: str) -> tuple[Any, ...] | None:
    """Parameters of a distribution as those of a family, or None where it is not of it."""
    reader = READERS.get(type(base), {}).get(family)
    return reader(base) if reader else None


def class_of(program: Program, node: Sample) -> type:
    """The class of a site's distribution, without its wrapping."""

    def look(*leaves: Any) -> type:
        return type(base_of(node.distribution.unflatten(leaves)))

    return known(look, *(program.tape.avals[v] for v in node.distribution.values))


def rows_of(node: Sample, family: Family) -> tuple[int, ...]:
    """The shape of a site's rows: without the coordinates of vectors."""
    return node.shape[:-1] if family.vector and not family.labels else node.shape


def arguments_of(
    tape: Tape, node: Sample, family: Family
) -> tuple[Tape, list[int], list[np.ndarray]]:
    """The tape with the arguments of a site's distribution, their numbers, and its masks.

    Arguments are of the rows' shape; those of a family of vectors have an axis more, of length one
    where they are no vectors.

    Raises:
        NoMatch: the distribution is not of the family, or a mask is not known.
    """
    spec, rows = node.distribution, rows_of(node, family)
    constants = {v: tape.constants[v] for v in spec.values if v in tape.constants}
    free = [v for v in dict.fromkeys(spec.values) if v not in constants]

    def arguments(*arrays: Any) -> tuple[list[np.ndarray], list[Any]]:
        masks, values = [], {**constants, **dict(zip(free, arrays, strict=True))}
        found = unwrapped(spec.unflatten(values[v] for v in spec.values))
        given = parameters_as(found.base, family.name)
        if given is None:
            raise NoMatch(f"'{node.name}' is no {family.name}")
        for mask, axes in found.effective_masks:
            if not isinstance(mask, np.ndarray | bool):
                raise NoMatch(
                    f"the mask over '{node.name}' is traced or depends on a latent", near=True
                )
            ones = (1,) * (axes - len(found.base.event_shape))
            masks.append(np.broadcast_to(np.reshape(mask, (*np.shape(mask), *ones)), rows))
        out = []
        for (name, _), value in zip(family.parameters, given, strict=True):
            value = jnp.asarray(value)
            if family.vector and name not in family.vectors:
                value = value[..., None]
            length = value.shape[-1:] if family.vector else ()
            out.append(jnp.broadcast_to(value, (*rows, *length)))
        return masks, out

    tape, numbers, masks = tape.extend_staged(arguments, free)
    return tape, numbers, masks
