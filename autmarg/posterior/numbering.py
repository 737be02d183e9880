"""Checks that new elements leave alone all that is known.

New elements are drawn from their population given the known ones. That is right if nothing known
depends on them: not the prior of known elements, not data, not a factor. Two runs from one
draw that differ in the new elements alone must therefore agree about all that is known. So must the
run at the fit's arguments about the prior of a site that has grown: it would not, were the levels
numbered otherwise or their covariates others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Unit

from autmarg.compat.jaxprs import is_traced
from autmarg.compat.numpyro import base_of
from autmarg.compat.programs import compiled
from autmarg.errors import RequestError, named
from autmarg.posterior.continuing import log_density, prior_of_known
from autmarg.posterior.levels import Known
from autmarg.posterior.simulation import Message, Simulation

Array = jax.Array
Seen = dict[str, dict[str, Array]]


def check_numbering(
    simulation: Simulation,
    point: Mapping[str, Array],
    key: Array,
    ran: Simulation | None,
    before: Mapping[str, Array],
) -> set[str]:
    """Raise where something known depends on what is new.

    Args:
        simulation: of the new arguments.
        point: values of the known sites at one draw, and those of params.
        key: for the new elements.
        ran: of the fit's arguments, or None where these are not known.
        before: values for ``ran``.

    Returns:
        Observed sites whose values are drawn in part, which are no data there.

    Raises:
        RequestError: it does.
    """

    def twice(keys: Array, point: Mapping[str, Array]) -> Seen:
        return jax.vmap(lambda key: _seen(simulation, key, point))(keys)

    seen = compiled(twice)(jax.random.split(key, 2), point)
    if is_traced(seen):
        raise RequestError(
            "predict was called under jit or vmap with new levels: it has to compare values. Call "
            "it outside"
        )
    for name, prior in seen["prior"].items():
        if not _alike(prior[0], prior[1]):
            raise RequestError(
                f"the prior of fitted elements of '{name}' depends on new elements of "
                f"{named(_new(simulation))}, which predict draws without regard to '{name}'. "
                "Expected known levels to belong to the same groups as in the fit; pass "
                f"new_levels=['{name}', …] if all its elements are new here"
            )
    drawn = {name for name, value in seen["value"].items() if not _alike(*value)}
    for name, terms in seen["data"].items():
        if not _alike(*_of_data(terms, seen["value"].get(name))):
            raise RequestError(
                f"'{name}' has a value with these arguments and depends on new elements, which "
                "predict draws without regard to it: leave out its data, or fit with them"
            )
    if ran is not None:
        _check_alike_in_the_fit(simulation, seen["prior"], ran, before, key)
    return drawn


def _check_alike_in_the_fit(
    simulation: Simulation,
    prior: Mapping[str, Array],
    ran: Simulation,
    before: Mapping[str, Array],
    key: Array,
) -> None:
    grown = {n: known for n, known in simulation.known.items() if known.grown and n in ran.known}
    if not grown:
        return

    def there(key: Array, point: Mapping[str, Array]) -> dict[str, Array]:
        trace = ran.run(key, point)
        return {n: _prior(trace[n], known) for n, known in grown.items() if n in trace}

    for name, own in compiled(there)(key, before).items():
        if not _alike(own, prior[name][0]):
            raise RequestError(
                f"the prior of the fitted elements of '{name}' is not the one of the fit. Of its "
                f"shape {grown[name].mask.shape}, expected the first {grown[name].shape} to be the "
                "fit's elements, in the same order and with the same covariates. If they are, the "
                "prior changes with the number of elements: fit with the new ones in the model "
                "(levels need no data)"
            )


def _seen(simulation: Simulation, key: Array, point: Mapping[str, Array]) -> Seen:
    """Priors of known elements, terms of what has data, and these data, in one run."""
    trace = simulation.run(key, point)
    prior = {n: _prior(trace[n], k) for n, k in simulation.known.items() if n in trace}
    observed = {n: m for n, m in trace.items() if m["type"] == "sample" and m["is_observed"]}
    data = {n: log_density(m["fn"], m["value"]) for n, m in observed.items()}
    values = {
        n: jnp.asarray(m["value"])
        for n, m in observed.items()
        if not isinstance(base_of(m["fn"]), Unit)
    }
    return {"prior": prior, "data": data, "value": values}


def _prior(msg: Message, known: Known) -> Array:
    return prior_of_known(msg["fn"], msg["value"], known.shape, known.grown)


def _new(simulation: Simulation) -> list[str]:
    """Names of latents with new elements."""
    grown = [name for name, known in simulation.known.items() if known.grown]
    return sorted({*grown, *simulation.renewed}) or ["other sites"]


def _of_data(terms: Array, values: Array | None) -> tuple[np.ndarray, np.ndarray]:
    """Terms of two runs, zero where the value itself was drawn."""
    first, second = np.asarray(terms)
    if values is None:
        return first, second
    one, two = np.asarray(values)
    same = (one == two) | ((one != one) & (two != two))
    wide = same.reshape(*same.shape[: first.ndim], -1).all(-1) if same.ndim > first.ndim else same
    wide = np.broadcast_to(wide, np.broadcast_shapes(wide.shape, first.shape))
    return np.where(wide, first, 0.0), np.where(wide, second, 0.0)


def _alike(one: Any, two: Any) -> bool:
    """Whether numbers agree up to rounding."""
    one, two = np.asarray(one), np.asarray(two)
    if one.dtype.kind not in "fc":
        return np.array_equal(one, two)
    limit = 10 * float(np.sqrt(np.finfo(one.dtype).eps))
    return np.allclose(one, two, rtol=limit, atol=limit, equal_nan=True)


def check_categories(ran: tuple[Any, ...], given: tuple[Any, ...]) -> None:
    """Raise where a categorical column's first categories are not those of the fit.

    Args:
        ran: arguments of the run, (args, kwargs).
        given: those of the prediction.

    Raises:
        RequestError: a category has another code than in the fit.
    """
    before, now = dict(_categories(ran)), dict(_categories(given))
    for where in before.keys() & now.keys():
        first = now[where][: len(before[where])]
        if first != before[where]:
            raise RequestError(
                f"the categories of {where} are {_short(now[where])} and were "
                f"{_short(before[where])} in the fit, so that codes stand for other levels: "
                "expected those of the fit first, in their order, as by "
                "new.cat.set_categories(…)"
            )


def _categories(arguments: tuple[Any, ...]) -> list[tuple[str, list[Any]]]:
    args, kwargs = arguments
    places = [*((f"argument {k + 1}", v) for k, v in enumerate(args)), *kwargs.items()]
    found = []
    for where, value in places:
        columns = getattr(value, "columns", None)
        inside = [(where, value)] if columns is None else [(c, value[c]) for c in columns]
        for name, column in inside:
            categories = getattr(getattr(column, "dtype", None), "categories", None)
            if categories is not None:
                found.append((str(name), list(categories)))
    return found


def _short(names: list[Any]) -> str:
    return f"{names[:3]}" if len(names) <= 3 else f"{names[:3]} and {len(names) - 3} more"
