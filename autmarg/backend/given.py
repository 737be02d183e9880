"""What handlers around an emitted model say about a site that it meets in another form."""

from __future__ import annotations

from typing import Any

import jax
from numpyro import handlers
from numpyro.primitives import _PYRO_STACK

from autmarg.ir.nodes import decentered


def as_written(name: str, fn: Any, shape: tuple[int, ...], standard: Any) -> bool:
    """Whether a non-centred site must be met as the user wrote it.

    It must where a handler gives a value to the site and not to its standardised site, which
    would be ignored otherwise, and where densities are scaled, since a power of a density is not
    invariant under a change of variables.

    Args:
        name, fn, shape: the site's name, distribution and sample shape.
        standard: the distribution of its standard noise.
    """
    base = decentered(name)
    for handler in reversed(_PYRO_STACK):
        if isinstance(handler, handlers.scale):
            return True
        if gives(handler, name, fn, shape) and not gives(handler, base, standard, shape):
            return True
        if isinstance(handler, handlers.scope) and "sample" not in handler.hide_types:
            name, base = (f"{handler.prefix}{handler.divider}{n}" for n in (name, base))
        if isinstance(handler, handlers.block) and handler.hide_fn(_message(name, fn, shape)):
            break
    return False


def gives(handler: Any, name: str, fn: Any, shape: tuple[int, ...] = ()) -> bool:
    """Whether a handler gives a latent site a value."""
    if isinstance(handler, handlers.replay):
        return name in handler.trace
    if not isinstance(handler, handlers.substitute | handlers.condition | handlers.do):
        return False
    if handler.data is not None:
        return handler.data.get(name) is not None
    function = getattr(handler, "substitute_fn", None) or getattr(handler, "condition_fn", None)
    with handlers.block():
        return function is not None and function(_message(name, fn, shape)) is not None


def _message(name: str, fn: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """The message of a latent site, as NumPyro sends it."""
    kwargs = {"rng_key": jax.random.key(0), "sample_shape": shape}
    return {
        "type": "sample", "name": name, "fn": fn, "args": (), "kwargs": kwargs, "value": None,
        "scale": None, "is_observed": False, "intermediates": [], "cond_indep_stack": [],
        "infer": {},
    }  # fmt: skip
