"""Posterior draws in one form, wherever they come from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autmarg.backend.runs import Arguments
from autmarg.compat.numpyro import run_arguments
from autmarg.errors import RequestError, named
from autmarg.posterior.stored import is_stored, posterior_of


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of sites by name.

    Attributes:
        samples: arrays [*lead, …] by site.
        lead: their leading dimensions, (draws,) or (chains, draws); None where only the sites'
            shapes can tell.
        mcmc: the ``MCMC`` that made them, or None.
        stored: the dataset of a saved fit that they are from, or None.
    """

    samples: dict[str, Any]
    lead: tuple[int, ...] | None
    mcmc: Any = None
    stored: Any = None


def draws_of(mcmc_or_samples: Any, method: str, *, group_by_chain: bool = False) -> Draws:
    """The draws of an ``MCMC`` that has run, of a dict of arrays by site, or of a saved fit.

    Args:
        mcmc_or_samples: either of them; a saved fit is what ``to_arviz`` returned (an
            ``InferenceData`` or a ``DataTree``), or the path that it was saved to.
        method: who asks, for messages.
        group_by_chain: of an ``MCMC`` or a saved fit, leading dimensions (chains, draws) rather
            than (draws,).

    Raises:
        RequestError: it is something else, or has not run.
    """
    if hasattr(mcmc_or_samples, "get_samples"):
        if getattr(mcmc_or_samples, "_states", True) is None:
            raise RequestError(f"{method} was given an MCMC that has not run: call run first")
        samples = mcmc_or_samples.get_samples(group_by_chain=group_by_chain)
        chains = mcmc_or_samples.num_chains
        each = mcmc_or_samples.num_samples // mcmc_or_samples.thinning
        lead = (chains, each) if group_by_chain else (chains * each,)
        return Draws(dict(samples), lead, mcmc_or_samples)
    if is_stored(mcmc_or_samples):
        return _stored(posterior_of(mcmc_or_samples, method), method, group_by_chain)
    if isinstance(mcmc_or_samples, Mapping):
        return Draws(dict(mcmc_or_samples), None)
    raise RequestError(
        f"{method} takes an MCMC object, a dict of draws by site name, or what to_arviz returned "
        f"or saved; found {type(mcmc_or_samples).__name__}"
    )


def _stored(dataset: Any, method: str, group_by_chain: bool) -> Draws:
    samples = {str(name): array.values for name, array in dataset.items()}
    if not samples:
        raise RequestError(f"{method} was given a saved fit without draws of any site")
    chains, each = next(iter(samples.values())).shape[:2]
    if group_by_chain:
        return Draws(samples, (chains, each), stored=dataset)
    joined = {name: x.reshape(chains * each, *x.shape[2:]) for name, x in samples.items()}
    return Draws(joined, (chains * each,), stored=dataset)


def arguments_for(
    mcmc_or_samples: Any, args: tuple[Any, ...], kwargs: dict[str, Any], marg: Any
) -> Arguments:
    """The arguments given, or where there are none those that an ``MCMC`` was run with.

    Raises:
        RequestError: there are none, and the model ``marg`` needs some.
    """
    if args or kwargs:
        return args, kwargs
    ran = run_arguments(mcmc_or_samples)
    if ran is None and (signature := getattr(marg, "__signature__", None)) is not None:
        parameters = signature.parameters
        if any(map(_is_needed, parameters.values())):
            raise RequestError(
                f"draws by themselves do not know what '{marg.__name__}' was run with: pass its "
                f"arguments {named(list(parameters))} after the draws, data included (what "
                "marg.sample returned, or an MCMC, knows them)"
            )
    return ran or (args, kwargs)


def _is_needed(parameter: inspect.Parameter) -> bool:
    empty = parameter.default is inspect.Parameter.empty
    return empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def made_by(mcmc_or_samples: Any, marg: Any) -> Any:
    """The transformed model that was sampled: ``marg.sample`` may take another than ``marg``."""
    return getattr(mcmc_or_samples, "marg", marg)
