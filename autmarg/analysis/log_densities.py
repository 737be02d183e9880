"""Log-densities of sites, written onto a tape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array

from autmarg.ir.nodes import DistributionSpec, Observe, Sample
from autmarg.ir.tape import Tape


def with_log_densities(tape: Tape, sites: Sequence[Sample]) -> tuple[Tape, list[int]]:
    """The tape with the log-density of each site, element by element; their numbers."""
    terms: list[int] = []
    for site in sites:
        value = site.value if isinstance(site, Observe) else tape.inputs[site.name]
        scale = [] if site.scale is None else [site.scale]
        numbers = [*scale, value, *site.distribution.values]
        tape, own = tape.extend(partial(_log_density, site.distribution, len(scale)), numbers)
        terms += own
    return tape.folded(terms), terms


def _log_density(fn: DistributionSpec, scaled: int, *arrays: Array) -> list[Array]:
    """Of a value (after its scale, if there is one; before the distribution's arrays)."""
    found = jnp.asarray(fn.unflatten(arrays[scaled + 1 :]).log_prob(arrays[scaled]))
    return [found * arrays[0] if scaled else found]


__all__ = ["with_log_densities"]
