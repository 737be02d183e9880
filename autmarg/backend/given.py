"""Values that NumPyro's handlers around an emitted model give to its sites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from autmarg.compat.numpyro import (
    Message,
    Outermost,
    around,
    gives,
    is_scanned,
    latent_message,
    met,
)
from autmarg.errors import RequestError
from autmarg.ir.nodes import decentered, of_sites
from autmarg.ir.program import Program


def is_given(name: str, fn: Any, shape: tuple[int, ...] = ()) -> bool:
    """Whether a handler gives a latent site a value.

    Args:
        name, fn, shape: the site's name, distribution and sample shape.
    """
    return any(gives(handler, msg) for handler, (msg,) in met(latent_message(name, fn, shape)))


def as_written(name: str, fn: Any, shape: tuple[int, ...], standard: Any) -> bool:
    """Whether a non-centred site must be met as the user wrote it.

    It must where a handler gives a value to the site and not to its standardised site, which
    would be ignored otherwise, and where densities are scaled, since a power of a density is not
    invariant under a change of variables.

    Args:
        name, fn, shape: the site's name, distribution and sample shape.
        standard: the distribution of its standard noise.
    """
    own = latent_message(name, fn, shape)
    noise = latent_message(decentered(name), standard, shape)
    return any(
        isinstance(handler, handlers.scale) or (gives(handler, x) and not gives(handler, z))
        for handler, (x, z) in met(own, noise)
    )


def check_shape(model: str, name: str, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise unless a value that a handler gives has the site's shape, or is repeated to it.

    Raises:
        RequestError: it has another, and an index into it would read another element.
    """
    wide = [1] * (len(shape) - len(given)) + list(given)
    if len(wide) != len(shape) or any(n not in (1, m) for n, m in zip(wide, shape, strict=True)):
        groups = ". For new groups draw their effects from the prior first, and append them"
        raise RequestError(
            f"a value of shape {given} was given for '{name}', which has the shape {shape} in "
            f"'{model}' with these arguments: expected one of that shape{groups if shape else ''}"
        )


class Given(Outermost):
    """Notes which latent sites other handlers gave a value, and which not."""

    def __init__(self, model: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(None)
        self.model, self.shapes = model, shapes
        self.names: set[str] = set()
        self.drawn: set[str] = set()

    def process_message(self, msg: Message) -> None:
        """Note a sampled site, and whether its value was given from outside."""
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        if is_scanned(msg):  # it has a value in any case
            given = any(gives(handler, msg) for handler in around())
        else:
            given = msg["value"] is not None
        name, shape = msg["name"], np.shape(msg["value"])
        if not given:
            self.drawn.add(name)
        else:
            self.names.add(name)
            check_shape(self.model, name, shape, self.shapes.get(name, shape))


def noise_given(
    given: Given, program: Program, whitened: Callable[[Program], Mapping[str, Sequence[str]]]
) -> dict[str, str]:
    """Latents that were drawn → their sites of standard noise, which handlers have values for.

    Args:
        given: what handlers gave the source's sites.
        program: the source.
        whitened: gives the sites of noise of a program, and the latents that each makes.
    """
    found = {name: decentered(name) for name in given.drawn if has_value(decentered(name))}
    drawn = [n for n in program.latents if n.name in given.drawn and program.children(n.name)]
    if given.names or has_value(of_sites("noise", drawn)):  # else there is nothing to plan for
        noise = {name: makes for name, makes in whitened(program).items() if has_value(name)}
        found |= {n: name for name, makes in noise.items() for n in makes if n in given.drawn}
    return found


def check_traced(program: Program, left: Collection[str]) -> None:
    """Raise where handlers give values for another plan than that of data that JAX traces.

    Args:
        program: the source, some of whose data are traced.
        left: latents that are sampled for that reason.

    Raises:
        RequestError: values of some latents, or of the noise that would make them, are given, and
            none of these: they would be drawn from their prior.
    """
    latents = {n.name: n for n in program.latents}
    missing = [n for n in latents if n in left and not has_value(n, latents[n].shape)]
    others = any(has_value(n, latents[n].shape) for n in latents if n not in missing)
    if missing and (others or has_value(of_sites("noise", [latents[n] for n in missing]))):
        raise RequestError(
            f"'{program.name}' was called with data that JAX traces (arguments under jax.jit or "
            "jax.vmap, or of MCMC(…, jit_model_args=True)), and with values for a plan of known "
            f"data, which does not sample {missing}; there is no such plan for these traced data. "
            "Expected known arguments (close over them under jit); marg.tune(draws), which plans "
            "for traced data, too, where levels are known; or "
            "autmarg.transform(model, nongaussian='off')"
        )


def has_value(name: str, shape: tuple[int, ...] = ()) -> bool:
    """Whether a handler has a value for a latent site of a name, as NumPyro has it by then."""
    msg = latent_message(name, dist.Normal(0, 1), shape)
    return any(gives(handler, msg) for handler in around())
