"""Posterior draws in one form, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autmarg.errors import RequestError


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of sites by name.

    Attributes:
        samples: arrays [*lead, …] by site.
        lead: their leading dimensions, (draws,) or (chains, draws); None where only the sites'
            shapes can tell.
        mcmc: the ``MCMC`` that made them, or None.
    """

    samples: dict[str, Any]
    lead: tuple[int, ...] | None
    mcmc: Any = None


def draws_of(mcmc_or_samples: Any, method: str, *, group_by_chain: bool = False) -> Draws:
    """The draws of an ``MCMC`` that has run, or of a dict of arrays by site.

    Args:
        mcmc_or_samples: either.
        method: who asks, for messages.
        group_by_chain: of an ``MCMC``, leading dimensions (chains, draws) rather than (draws,).

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
    if isinstance(mcmc_or_samples, Mapping):
        return Draws(dict(mcmc_or_samples), None)
    raise RequestError(
        f"{method} takes an MCMC object or a dict of draws by site name, found "
        f"{type(mcmc_or_samples).__name__}"
    )
