"""Whether what a user's family returned can be the Gaussian of its distribution, by its shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis.families.base import Family, Gaussian
from autmarg.errors import ModelError

_FORMS = "scale alone, scale_tril alone, or basis and scale"


def check_registration(distribution: Any, family: Any) -> None:
    """Raise where one of the two is not what can be registered.

    Raises:
        ModelError: ``distribution`` is not a class, or ``family`` not a function.
    """
    if not isinstance(distribution, type):
        raise ModelError(
            f"register_gaussian takes a distribution's class, found {distribution!r}; pass the "
            "class, not an instance or its name"
        )
    if not callable(family):
        raise ModelError(
            f"register_gaussian({distribution.__name__}, …) takes a function d -> Gaussian, found "
            f"{type(family).__name__}"
        )


def read_registered(d: Any, family: Family) -> Gaussian:
    """``family(d)``, checked against the shape of ``d``.

    Raises:
        ModelError: it is not a Gaussian, or its arrays do not fit the shape of ``d``.
    """
    found = family(d)
    where = f"the family registered for {type(d).__name__}{_place(family)}"
    if not isinstance(found, Gaussian):
        raise ModelError(
            f"{where} returned {type(found).__name__}; expected autmarg.Gaussian(loc, …)"
        )
    if (wrong := _misfit(found, _inner_shape(found, tuple(d.shape())))) is not None:
        raise ModelError(f"{where} returned {wrong}. {type(d).__name__} has shape {d.shape()} here")
    return found


def _place(family: Callable[..., Any]) -> str:
    code = getattr(family, "__code__", None)
    return f" ({code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno})" if code else ""


def _inner_shape(g: Gaussian, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape before the bijection."""
    for transform in reversed(g.bijection):
        shape = tuple(transform.inverse_shape(shape))
    return shape


def _misfit(g: Gaussian, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a Gaussian of that shape, in words that go on from "returned"."""
    given = {n for n in ("scale", "scale_tril", "basis") if getattr(g, n) is not None}
    if given not in ({"scale"}, {"scale_tril"}, {"basis", "scale"}):
        return f"a Gaussian with {' and '.join(sorted(given)) or 'no scale'}; expected {_FORMS}"
    own = 0 if given == {"scale"} else g.event_dim
    least = int(given != {"scale"})
    if not least <= g.event_dim <= len(shape):
        return f"event_dim = {g.event_dim}; expected {least} to {len(shape)}"
    batch, event = shape[: len(shape) - own], shape[len(shape) - own :]
    d = math.prod(event)
    arrays = {"loc": (g.loc, shape), "mask": (g.mask, shape)}
    if given == {"scale"}:
        arrays["scale"] = (g.scale, shape)
    elif given == {"scale_tril"}:
        arrays["scale_tril"] = (g.scale_tril, (*batch, d, d))
    else:
        k = jnp.shape(g.basis)[-1] if jnp.ndim(g.basis) else 0
        arrays["basis"], arrays["scale"] = (g.basis, (*batch, d, k)), (g.scale, (*batch, k))
    for name, (array, expected) in arrays.items():
        if array is not None and not _fits(name, array, expected):
            return f"{name} of shape {jnp.shape(array)}; expected one that broadcasts to {expected}"
    return None


def _fits(name: str, array: Any, expected: tuple[int, ...]) -> bool:
    """Whether an array broadcasts to a shape; the last axes of a matrix are as they are."""
    shape = jnp.shape(array)
    if name in ("scale_tril", "basis") and shape[-2:] != expected[-2:]:
        return False
    try:
        return np.broadcast_shapes(shape, expected) == expected
    except ValueError:
        return False
