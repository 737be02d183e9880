"""Log-densities of sites, written onto a tape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from autmarg.compat.jaxprs import as_data
from autmarg.ir.nodes import DistributionSpec, Observe, Sample
from autmarg.ir.tape import Tape


def with_log_densities(tape: Tape, sites: Sequence[Sample]) -> tuple[Tape, list[int]]:
    """The tape with the log-density of each site, element by element; their numbers.

    What is known of a distribution and its data stays so for it: its author may have looked at
    numbers.

    Raises:
        NotImplementedError: NumPyro has no log-density of a site.
    """
    terms: list[int] = []
    for site in sites:
        value = site.value if isinstance(site, Observe) else tape.inputs[site.name]
        scale = [] if site.scale is None else [site.scale]
        numbers = [*scale, value, *site.distribution.values]
        known = {v: as_data(x) for v, x in _known(tape, numbers).items()}
        log_density = partial(_log_density, site.distribution, len(scale))
        given = partial(_given, log_density, numbers, known)
        tape, own = tape.extend(given, [v for v in numbers if v not in known])
        terms += own
    return tape.folded(terms), terms


def _known(tape: Tape, numbers: Sequence[int]) -> dict[int, Any]:
    """Those of some values that are known."""
    known = {v: tape.constants[v] for v in numbers if v in tape.constants}
    return known | tape.known(v for v in numbers if v not in known and not tape.dependencies([v]))


def _given(
    function: Callable[..., list[Array]],
    numbers: Sequence[int],
    known: Mapping[int, Any],
    *arrays: Array,
) -> list[Array]:
    """A function of numbered values, given those that are not known, in order."""
    rest = iter(arrays)
    return function(*(known[v] if v in known else next(rest) for v in numbers))


def _log_density(fn: DistributionSpec, scaled: int, *arrays: Array) -> list[Array]:
    """Of a value (after its scale, if there is one; before the distribution's arrays)."""
    found = jnp.asarray(fn.unflatten(arrays[scaled + 1 :]).log_prob(arrays[scaled]))
    return [found * arrays[0] if scaled else found]


__all__ = ["with_log_densities"]
