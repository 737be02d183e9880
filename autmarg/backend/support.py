"""Observed values outside the support of their distribution, where the source's density is zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer

from autmarg.compat.jaxprs import reads
from autmarg.compat.numpyro import base_of, unwrapped, validates
from autmarg.errors import ModelError
from autmarg.ir.nodes import Observe
from autmarg.ir.program import Program

_CODES = (dist.BernoulliLogits, dist.BernoulliProbs, dist.CategoricalLogits, dist.CategoricalProbs)


def outside(fn: Any, value: Any) -> Any:
    """Which elements of a batch are outside the support, but for those that a mask takes out."""
    base, masks = unwrapped(fn)
    if not validates(base):  # then NumPyro does not look
        return np.zeros((), bool)
    found = ~_as_truth(base.support(value))
    for mask, axes in masks:
        mask = _as_truth(mask)
        found = found & mask.reshape((*mask.shape, *(1,) * (axes - base.event_dim)))
    events = min(fn.event_dim - base.event_dim, found.ndim)
    return found.any(tuple(range(-events, 0)))


def _as_truth(x: Any) -> Any:
    """As an array of truth values: JAX's where it is one, else NumPy's."""
    return jnp.asarray(x, bool) if isinstance(x, jax.Array) else np.asarray(x, bool)


def is_traced(program: Program, site: Observe) -> bool:
    """Whether an outer jit or vmap decides a site's value, or what its support is."""
    numbers = [site.value, *site.distribution.values]
    return any(name.startswith("@") for name in program.tape.dependencies(numbers))


def restricted(density: Any, found: Iterable[Any], traced: Mapping[str, Any]) -> Any:
    """A log-density, -inf where a traced value is outside its support (``found``).

    Where a traced covariate is infinite the density is a difference of infinities: -inf, too.
    """
    infinite = [jnp.isinf(x).any() for x in traced.values() if _is_real(x)]
    if infinite:
        some = jnp.stack(infinite).any()
        density = jnp.where(some & jnp.isnan(density), -jnp.inf, density)
    for elements in found:
        density = jnp.where(elements.any(), -jnp.inf, density)
    return density


def check_support(program: Program) -> None:
    """Raise where known data are outside their support whatever the latents are.

    Args:
        program: on its folded tape.

    Raises:
        ModelError: they are; NumPyro's density is zero everywhere.
    """
    for site in program.observed:
        if site.value in program.tape.constants:
            _check(program, site)


def _check(program: Program, site: Observe) -> None:
    tape, spec = program.tape, site.distribution
    value = tape.constants[site.value]
    unknown = [v for v in spec.values if v not in tape.constants]
    if any(tape.dependencies([v]) == frozenset() for v in unknown):
        return  # the tape is not folded

    def look(*leaves: Any) -> Any:
        known = {**tape.constants, **dict(zip(unknown, leaves, strict=True))}
        fn = spec.unflatten([known[v] for v in spec.values])
        traced = any(isinstance(x, Tracer) for x in leaves)
        return outside(fn, jnp.asarray(value) if traced else value)

    shapes = [tape.avals[v] for v in unknown]
    # By NumPy, which compiles nothing.
    with jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
        found = np.asarray(look(*(np.ones(a.shape, a.dtype) for a in shapes)))
    if not found.any() or any(reads(look, *shapes)):
        return
    fn: Any = base_of(spec.unflatten([tape.avals[v] for v in spec.values]))
    raise ModelError(
        f"observed site '{site.name}' ({site.place}): {int(found.sum())} of {found.size} values "
        f"are outside the support of {type(fn).__name__}{_examples(value, found)}, so that the "
        "density is zero whatever the latents are. Expected data in the support: "
        f"{_remedy(fn, value, found)}"
    )


def _remedy(fn: Any, value: Any, found: np.ndarray) -> str:
    """What to do; codes from 1 to K have nothing but their K outside of 0 to K - 1."""
    array = np.asarray(value)
    if isinstance(fn, _CODES) and array.shape == found.shape and array.dtype.kind in "iuf":
        outside, inside = array[found], array[~found]
        last = outside.size and inside.size and (outside == outside.max()).all()
        if last and inside.min() == 1 and outside.max() > inside.max():
            return f"these run from 1 to {outside.max():g}; NumPyro's codes start at 0: subtract 1"
    return "check the data, the family, and its bounds"


def _examples(value: Any, found: np.ndarray) -> str:
    """The first offending values, where they are one number each."""
    array = np.asarray(value)
    if array.shape != found.shape:
        return ""
    some = array[found].reshape(-1)[:3].tolist()
    return f" ({', '.join(map(str, some))})"


def _is_real(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


__all__ = ["check_support", "is_traced", "outside", "restricted"]
