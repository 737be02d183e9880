"""Data that no latents could have made, where no chain finds a place to start at."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers

from autmarg.errors import ModelError
from autmarg.ir.program import Program

_DRAWS = 10


def check_possible(
    program: Program, source: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise where an observed site has no density at any of some draws from the prior.

    Args:
        program: of the source, for its lines.
        source: the user's model.
        args, kwargs: what it is called with.

    Raises:
        ModelError: there is such a site; it says which, and what its log-density is.
    """
    found: dict[str, list[float]] = {}
    factors: set[str] = set()
    for key in jax.random.split(jax.random.key(0), _DRAWS):
        trace = handlers.trace(handlers.seed(source, key)).get_trace(*args, **kwargs)
        for site in trace.values():
            if site["type"] == "sample" and site["is_observed"]:
                log_p = jnp.sum(site["fn"].log_prob(site["value"]))
                found.setdefault(site["name"], []).append(float(log_p))
                factors |= {site["name"]} if isinstance(site["fn"], dist.Unit) else set()
    for name, each in found.items():
        if not any(map(math.isfinite, each)):
            raise _impossible(program, name, each, name in factors)


def _impossible(program: Program, name: str, each: list[float], is_factor: bool) -> ModelError:
    value = "NaN" if all(map(math.isnan, each)) else "-inf"
    where = f" ({program[name].place})" if name in program else ""
    start = "no point with a density was found to start from, and"
    if is_factor:
        return ModelError(
            f"factor '{name}'{where}: {start} it is {value} at each of {_DRAWS} draws from the "
            "prior. Expected a finite number somewhere"
        )
    return ModelError(
        f"observed site '{name}'{where}: {start} the log-density of its data is {value} at each "
        f"of {_DRAWS} draws from the prior. Expected data that the model can make: check them, and "
        "what the distribution's parameters are where it reads no latent"
    )


__all__ = ["check_possible"]
