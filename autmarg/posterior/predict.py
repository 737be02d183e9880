"""Draws of what a model observes at new arguments, from posterior draws of a fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from autmarg.backend.runs import Arguments
from autmarg.compat.numpyro import base_of, run_arguments
from autmarg.compat.programs import compiled
from autmarg.errors import RequestError, did_you_mean, named
from autmarg.ir.nodes import Deterministic, Param
from autmarg.ir.program import Program
from autmarg.posterior.draws import Draws, draws_of
from autmarg.posterior.levels import Fit, Known, check_sites, known_levels, leading, observed_past
from autmarg.posterior.numbering import check_categories, check_numbering
from autmarg.posterior.simulation import Message, Simulation
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays

Array = jax.Array
Recover = Callable[..., dict[str, Any]]
_CATEGORICAL = (dist.CategoricalProbs, dist.CategoricalLogits)
_MEMORY = 2.0e7  # numbers that one batch of draws may hold by default


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked of a prediction.

    Attributes:
        sites: names to return; None for the sites without draws and the deterministic ones.
        mean: expected values rather than draws.
        new_levels: sites that are drawn anew as a whole.
        batch_size: draws worked on at once.
    """

    sites: Sequence[str] | None = None
    mean: bool = False
    new_levels: Sequence[str] = ()
    batch_size: int | None = None


def fit_of(
    model: Callable[..., Any],
    recover: Recover,
    rng_key: Array,
    mcmc_or_samples: Any,
    fitted: Any,
    *,
    group_by_chain: bool,
    batch_size: int | None,
) -> Fit:
    """Posterior draws of every latent of a run.

    Args:
        model: the source.
        recover: exact draws of what was integrated out.
        rng_key: for those.
        mcmc_or_samples: an ``MCMC``, or a dict of draws.
        fitted: arguments of the run; None where the ``MCMC`` knows them, or nobody does.
        group_by_chain: keep the chains of an ``MCMC`` apart.
        batch_size: draws recovered at once.
    """
    draws = draws_of(mcmc_or_samples, "predict", group_by_chain=group_by_chain)
    ran = run_arguments(mcmc_or_samples) if fitted is None else _arguments(fitted)
    if ran is None:
        return Fit(draws)
    program, constants = trace_program(model, *as_arrays(*ran))
    if any(n.name not in draws.samples for n in program.latents):
        args, kwargs = ran
        options = {"group_by_chain": group_by_chain, "batch_size": batch_size}
        samples = recover(rng_key, mcmc_or_samples, *args, **options, **kwargs)
        draws = Draws(samples, draws.lead, draws.mcmc)
    return Fit(draws, program, ran, constants)


def _arguments(fitted: Any) -> Arguments:
    """The arguments of the run as (args, kwargs).

    Raises:
        RequestError: they are neither a tuple of positional nor a dict of named arguments.
    """
    if isinstance(fitted, dict):
        return (), fitted
    if isinstance(fitted, tuple | list):
        return tuple(fitted), {}
    raise RequestError(
        "predict takes the arguments of the run as fitted=(…), a tuple of positional arguments, or "
        f"as a dict by name; found {type(fitted).__name__}"
    )


def predict(
    model: Callable[..., Any],
    program: Program,
    fit: Fit,
    arguments: Arguments,
    rng_key: Array,
    wanted: Wanted,
    integrated: set[str],
) -> dict[str, Array]:
    """Draws of a program's sites at new arguments.

    Args:
        model: the source.
        program: that of the new arguments.
        fit: posterior draws of every latent.
        arguments: the new ones.
        rng_key: a JAX random key.
        wanted: what to return.
        integrated: sites that were integrated out in this process.

    Returns:
        [*lead, *shape] by site, in the order of the program.

    Raises:
        RequestError: draws and arguments do not go together, or a site is none of the program's.
    """
    new = _names(wanted.new_levels)
    check_sites(program, fit, new, integrated)
    lead = leading(program, fit)
    count = math.prod(lead)
    if not count:
        raise RequestError(f"predict was given no draws (their leading dimensions are {lead})")
    known = known_levels(program, fit, lead, new)
    known |= observed_past(program, fit, count)
    _check_no_past(program, fit, known)
    points = {n: k.values for n, k in known.items()} | _params(program, fit, lead, count)
    simulation = Simulation(program.name, model, *as_arrays(*arguments), known, new)
    if fit.arguments is not None:
        check_categories(fit.arguments, arguments)
    seeds = jax.random.split(rng_key, count + 1)
    drawn = _check_new(simulation, program, fit, points, seeds[-1])
    names = _returned(program, fit, wanted, drawn)
    return _run(simulation, names, wanted, points, seeds[:-1], lead, program)


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"predict takes new_levels as a list of site names, found {names!r}")
    return tuple(names)


def _check_no_past(program: Program, fit: Fit, known: Mapping[str, Known]) -> None:
    """Raise where a step that the fit had not reads an earlier one that was observed."""
    if fit.program is None:
        return
    before, latents = {n.name for n in fit.program.nodes}, {n.name for n in program.latents}
    for node in program.latents:
        past = sorted(node.parents & latents & before - fit.latents - set(known))
        if node.name not in before and past:
            where = f" ({node.place})" if node.place else ""
            raise RequestError(
                f"'{node.name}'{where} is new and reads {named(past)}, observed in the fit and "
                "without data here: a forecast would start from replicates. Pass the data of "
                f"{named(past)}, and none for the new sites"
            )


def _params(program: Program, fit: Fit, lead: tuple[int, ...], count: int) -> dict[str, Array]:
    """Values of param sites that come with the draws, one a draw."""
    found = {}
    for node in program.nodes:
        if not isinstance(node, Param):
            continue
        if node.name in fit.draws.samples:
            value = jnp.asarray(fit.draws.samples[node.name])
            if value.shape not in (node.shape, (*lead, *node.shape)):
                raise RequestError(
                    f"param '{node.name}' has shape {value.shape}; expected {node.shape}"
                )
            wide = jnp.broadcast_to(value, (*lead, *node.shape))
            found[node.name] = wide.reshape(count, *node.shape)
        elif not isinstance(node.initial, int):
            raise RequestError(
                f"the param '{node.name}' has a random initial value: expected its value among "
                f"the draws, found only {sorted(fit.draws.samples)}"
            )
    return found


def _check_new(
    simulation: Simulation,
    program: Program,
    fit: Fit,
    points: Mapping[str, Array],
    key: Array,
) -> set[str]:
    """Observed sites that are drawn in part; raises where what is new changes what is known."""
    if not _has_new(simulation, program):
        return set()
    ran, values = None, {}
    if fit.program is not None and fit.arguments is not None:
        samples, own = fit.draws.samples, fit.program.latents
        first = {
            n.name: jnp.asarray(samples[n.name], n.dtype).reshape(-1, *n.shape)[:1]
            for n in own
            if n.name in samples
        }
        before = {name: Known.of(value, value.shape[1:]) for name, value in first.items()}
        values = {name: value[0] for name, value in first.items()}
        values |= {n: v[0] for n, v in points.items() if n not in simulation.known}
        ran = Simulation(program.name, simulation.model, *as_arrays(*fit.arguments), before)
    point = {name: value[0] for name, value in points.items()}
    return check_numbering(simulation, point, key, ran, values)


def _has_new(simulation: Simulation, program: Program) -> bool:
    """Whether something known, or with data, may read what is drawn."""
    known = simulation.known
    latents = {n.name for n in program.latents}
    drawn = latents - set(known) | {n for n, part in known.items() if part.grown}
    fixed = [n for n in program.nodes if n.name in known or n.name not in latents]
    return any(n.parents & drawn for n in fixed if not isinstance(n, Deterministic | Param)) or any(
        part.grown for part in known.values()
    )


def _returned(program: Program, fit: Fit, wanted: Wanted, drawn: set[str]) -> Callable[..., bool]:
    """Which sites of a run are returned: (name, message) → whether."""
    own = fit.latents & set(fit.draws.samples)

    def default(name: str, msg: Message) -> bool:
        if msg["type"] == "deterministic":
            return True
        return msg["type"] == "sample" and (
            name in drawn or (not msg["is_observed"] and name not in own)
        )

    if wanted.sites is None:
        return default
    names = [wanted.sites] if isinstance(wanted.sites, str) else list(wanted.sites)
    there = {node.name for node in program.nodes}
    for name in names:
        if name not in there:
            raise RequestError(
                f"predict was asked for '{name}', not a site of '{program.name}' with these "
                f"arguments: expected some of {sorted(there)}{did_you_mean(name, there)}"
            )
    return lambda name, msg: name in names and msg["type"] in ("sample", "deterministic")


def _run(
    simulation: Simulation,
    is_returned: Callable[[str, Message], bool],
    wanted: Wanted,
    points: Mapping[str, Array],
    keys: Array,
    lead: tuple[int, ...],
    program: Program,
) -> dict[str, Array]:
    """The simulation at every draw, some side by side."""

    def one(each: tuple[Array, Mapping[str, Array]]) -> dict[str, Array]:
        trace = simulation.run(*each)
        chosen = {n: m for n, m in trace.items() if is_returned(n, m)}
        return {n: _value(n, m, wanted.mean, simulation.known) for n, m in chosen.items()}

    count = len(keys)
    elements = 1 + sum(node.size for node in program.nodes)
    batch = wanted.batch_size or int(_MEMORY / elements)
    batch = max(1, min(count, batch))
    found = compiled(lambda keys, points: jax.lax.map(one, (keys, points), batch_size=batch))(
        keys, points
    )
    if not found:
        raise RequestError(
            "predict has nothing to return: every observed site has data with these arguments. "
            "Leave out the data to predict (None), or name sites=[…]"
        )
    order = [node.name for node in program.nodes if node.name in found]
    return {n: jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), found[n]) for n in order}


def _value(name: str, msg: Message, mean: bool, known: Mapping[str, Known]) -> Any:
    value = msg["value"]
    if not mean or msg["type"] != "sample" or msg["is_observed"] or name in known:
        return value
    if isinstance(base_of(msg["fn"]), _CATEGORICAL):  # (NumPyro's mean of it is NaN)
        raise RequestError(
            f"the numbers of '{name}' are categories, which have no mean: leave out mean=True, and "
            f"the share of category k is (draws['{name}'] == k).mean(0); or name sites=[…] that "
            "have a mean"
        )
    try:
        return jnp.broadcast_to(msg["fn"].mean, np.shape(value))
    except NotImplementedError as error:
        raise RequestError(
            f"NumPyro has no mean of a {type(msg['fn']).__name__}, the distribution of '{name}': "
            "leave out mean=True and average draws"
        ) from error
