"""The programs that are compared on one set: the source, by hand, and through autmarg."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import jax

import autmarg
from examples.benchmarks.opponents import dense, recover_single_class, single_class
from examples.benchmarks.sets import Draws, Set
from examples.models.reference import Model

DENSE_ROWS = 1000  # up to which the N×N covariance of all rows is tried
_BY_HAND = ("source", "noncentred", "single-class", "dense")
METHODS = (*_BY_HAND, "all", "auto", "factor+fixed", "fixed", "nothing")
_SITES = "integrate:"  # and names of sites, with + between: what is integrated out


@dataclass(frozen=True, eq=False)
class Method:
    """One program.

    Attributes:
        name: of the method.
        model: a NumPyro model.
        recover: (key, draws of its sites) → draws of the source's latents.
        plan_seconds: what planning took; None where there is nothing to plan.
        marg: the transformed model, where autmarg made it.
    """

    name: str
    model: Model
    recover: Callable[[Any, Draws], Draws]
    plan_seconds: float | None = None
    marg: Any = None


def _requests(data: Set) -> dict[str, dict[str, Any]]:
    """Options of transform for each choice of what to integrate out."""
    largest = data.factors[0].effects if data.factors else ()
    rest = {"reparameterize": "noncentred"}
    return {
        "all": {"marginalize": "all", **rest},
        "auto": {"marginalize": "auto"},
        "factor+fixed": {"marginalize": [*largest, *data.fixed], **rest},
        "fixed": {"marginalize": list(data.fixed), **rest},
        "nothing": {"marginalize": [], **rest},
    }


def subsets(data: Set) -> list[str]:
    """Methods that integrate out each set of grouping factors, without and with fixed effects."""
    groups = [each.effects for each in data.factors] + [data.fixed] * bool(data.fixed)
    chosen = chain.from_iterable(combinations(groups, k) for k in range(len(groups) + 1))
    return [_SITES + "+".join(chain.from_iterable(some)) for some in chosen]


def method(data: Set, name: str) -> Method | None:
    """One method on one set; None where it does not apply.

    Raises:
        KeyError: no method has this name.
    """
    if name in _BY_HAND:
        return _by_hand(data, name)
    requests = _requests(data)
    if name.startswith(_SITES):
        sites = [site for site in name.removeprefix(_SITES).split("+") if site]
        requests[name] = {"marginalize": sites, "reparameterize": "noncentred"}
    if name not in requests:
        raise KeyError(
            f"no method {name!r}; expected one of {', '.join(METHODS)}, subsets, "
            f"or {_SITES}SITE+SITE"
        )
    return transformed(data, name, **requests[name])


def transformed(data: Set, name: str, **options: Any) -> Method:
    """What autmarg makes of the source with some options of ``transform``."""
    marg = autmarg.transform(data.source, **options)
    started = time.perf_counter()
    marg.plan(*data.args)
    seconds = time.perf_counter() - started

    def recover(key: Any, draws: Draws) -> Draws:
        return jax.block_until_ready(marg.recover(key, draws, *data.args, progress=False))

    return Method(name, marg, recover, seconds, marg)


def _by_hand(data: Set, name: str) -> Method | None:
    if name == "source":
        return Method(name, data.source, lambda key, draws: draws)
    if name == "noncentred":
        if data.noncentred is None:
            return None
        return Method(name, data.noncentred, lambda key, draws: data.effects(draws))
    if not data.factors or (name == "dense" and data.rows > DENSE_ROWS):
        return None
    if name == "dense":  # timed only: nobody samples from it
        return Method(name, dense(data.source, data.factors, data.observed), lambda key, draws: {})
    parts = (data.source, data.factors[0], data.observed)
    return Method(
        name,
        single_class(*parts),
        lambda key, draws: recover_single_class(*parts, key, draws, data.args),
    )
