"""What counts as one observation of an observed site, and how its rows lie in a Gaussian system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis.families import as_gaussian
from autmarg.analysis.sites import normalise
from autmarg.gaussian.affine import Rows
from autmarg.ir.nodes import Observe
from autmarg.ir.program import Program


def batch_of(node: Observe) -> tuple[int, ...]:
    """The shape of a site's log-density: one observation an element."""
    return node.shape[: len(node.shape) - len(node.distribution.event_shape)]


@dataclass(frozen=True, eq=False)
class Units:
    """The rows of a site in a Gaussian system.

    Attributes:
        observation: of each row (or block of correlated rows), its place in the flattened
            :func:`batch_of`.
        power: by which the density of each is raised, of ``handlers.scale``.
    """

    observation: np.ndarray
    power: np.ndarray


def units_of(
    program: Program, sites: tuple[Observe, ...], rows: tuple[Rows, ...]
) -> dict[str, Units]:
    """The rows of observed sites, by name.

    Args:
        program: in which the sites are.
        sites: of one Gaussian system, whose rows are among ``rows``.
    """
    normalised = normalise(replace(program, nodes=sites))
    tape, blocks = normalised.program.tape, {each.name: each.block for each in rows}
    found = {}
    for node in sites:
        site = normalised.gaussian[node.name]
        elements = math.prod(tape.avals[site.loc].shape)
        kept = np.arange(elements)
        if site.mask is not None:
            kept = np.flatnonzero(np.reshape(tape.constants[site.mask], -1))
        group = 1
        if site.scale_tril is not None or site.basis is not None:
            number = site.scale_tril if site.scale_tril is not None else site.basis
            assert number is not None
            group = tape.avals[number].shape[-2]
        kept = kept[:: blocks[node.name]]
        each = elements // max(math.prod(batch_of(node)), 1)
        power = np.ones(1) if site.power is None else site.power
        power = power if len(power) == 1 else power[kept // group]
        found[node.name] = Units(kept // max(each, 1), np.broadcast_to(power, len(kept)))
    return found


def log_normalisers(fn: Any, value: Any) -> Any:
    """What log p(value | θ) has beside -½ of the sum of squares of a Gaussian site's rows.

    Args:
        fn: the site's distribution; its mean is not read.
        value: as observed, of its whole shape.

    Returns:
        Σ -½ log 2π - log σ, and the log-Jacobian of a bijection, of the rows that a mask leaves in;
        one number for each observation, of the distribution's batch shape.
    """
    g, batch = as_gaussian(fn), value.shape[: value.ndim - fn.event_dim]
    mask = None if g.mask is None else jnp.broadcast_to(g.mask, value.shape)
    total, inner = jnp.zeros(batch), value
    for transform in reversed(g.bijection):
        before = transform.inv(inner)
        slope = transform.log_abs_det_jacobian(before, inner)
        total = total - _summed(slope, mask, batch)
        inner = before
    shape = inner.shape[: inner.ndim - g.event_dim]
    if g.scale_tril is not None:
        size = jnp.log(jnp.abs(jnp.diagonal(g.scale_tril, axis1=-2, axis2=-1))).sum(-1)
        rows = g.scale_tril.shape[-1]
    elif g.basis is not None:
        rows = g.basis.shape[-1]
        scale = jnp.broadcast_to(g.scale, (*jnp.shape(g.scale)[:-1], rows))
        size = jnp.linalg.slogdet(g.basis)[1] + jnp.log(scale).sum(-1)
    else:
        size, rows = jnp.log(g.scale), 1
    terms = jnp.broadcast_to(-0.5 * rows * jnp.log(2 * jnp.pi) - size, shape)
    return total + _summed(terms, mask, batch)


def _summed(terms: Any, mask: Any, batch: tuple[int, ...]) -> Any:
    """Terms [*batch, …] added up over what is not masked, to the batch shape."""
    if mask is not None:
        first = (..., *(0,) * max(mask.ndim - terms.ndim, 0))
        own = mask[first]
        own = own.reshape((*own.shape, *(1,) * (terms.ndim - own.ndim)))
        terms = jnp.where(own, terms, 0.0)
    return terms.sum(axis=tuple(range(len(batch), terms.ndim)))


def label_of(groups: Mapping[str, np.ndarray], name: str, units: Units) -> np.ndarray:
    """The group of each row of a site; ``groups`` has those of its observations, by site."""
    return groups[name].reshape(-1)[units.observation]


__all__ = ["Units", "batch_of", "label_of", "log_normalisers", "units_of"]
