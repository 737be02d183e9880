"""What handlers around a transformed model would do to its sites, refused where it cannot be done.

A handler acts on the marginal as on any NumPyro model: kept sites may be conditioned, blocked or
intervened on, and a number given to ``handlers.scale`` multiplies the log-density. What reaches
into the integrated joint density has no such meaning and is an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from autmarg.compat.numpyro import (
    Message,
    Messenger,
    gives,
    hides,
    initialises,
    latent_message,
    met,
    replaces,
)
from autmarg.errors import RequestError
from autmarg.ir.nodes import Ancestral, Marginal, Recover, Sample
from autmarg.ir.program import Program

_BEFORE = "apply the handler to the model before autmarg.transform"


def check_handlers(program: Program) -> None:
    """Look at NumPyro's handler stack on behalf of a rewritten program.

    Raises:
        RequestError: a handler gives a value to an integrated site, replaces a kept site whose
            density is in a marginal, scales a joint density row by row, or hides a part of it.
    """
    for node in program.nodes:
        if isinstance(node, Recover):
            _check_values(program.name, node)
            if node.noise:
                _check_noise(node)
        elif isinstance(node, Ancestral):
            _check_replacement(node)
        elif isinstance(node, Marginal):
            _check_marginal(node)


def _check_values(model: str, node: Recover) -> None:
    given = [m.name for m in node.members if any(_gives(*seen) for seen in _handlers(m.name, m))]
    if given:
        gone = f"are functions of '{node.noise}' in" if node.noise else "are integrated out of"
        raise RequestError(
            f"values were given for {given}, which {gone} '{model}', and would be "
            "ignored: with draws that marg.recover returned use marg.source; or apply condition, "
            "do or substitute to the model before transform, or pass keep=[…]. To start a chain, "
            "leave these sites out of init_params, or let an initialisation strategy return None"
        )


def _check_noise(node: Recover) -> None:
    """A power of the density in noise is not that of the density in the sites it makes."""
    if any(isinstance(handler, handlers.scale) for handler, _ in _handlers(node.noise)):
        raise RequestError(
            f"handlers.scale is over '{node.noise}', of which {list(node.integrated)} are "
            f"functions, so that the power of the density would be another: {_BEFORE}"
        )


def _check_replacement(node: Ancestral) -> None:
    for handler, msg in _handlers(node.name, node):
        if replaces(handler, msg):
            kind, name = type(handler).__name__, msg["name"]
            raise RequestError(
                f"handlers.{kind} is over '{name}', whose density is part of a joint one after "
                f"integration: {_BEFORE}"
            )


def _check_marginal(node: Marginal) -> None:
    names = [*(site.name for site in node.observed), *node.children]
    if not node.observed:
        names.append(node.name)
    hidden = [name for name in names if any(hides(*seen) for seen in _handlers(name))]
    if hidden and len(hidden) < len(names):
        raise RequestError(
            f"handlers.block hides {hidden} but not {sorted({*names} - {*hidden})}, which have one "
            f"joint density after integration: hide all of them or none, or {_BEFORE}"
        )
    for handler, _ in _handlers(names[0]):
        if isinstance(handler, handlers.scale) and np.size(handler.scale) > 1:
            raise RequestError(
                f"handlers.scale has an array of shape {np.shape(handler.scale)} over {names}, "
                "whose rows have one joint density after integration: expected a number, or "
                f"{_BEFORE}"
            )


def _handlers(name: str, node: Sample | None = None) -> Iterator[tuple[Messenger, Message]]:
    """Handlers that a site would meet, each with its message, whose distribution (for functions
    that draw from it) has the site's shape."""
    fn = dist.Normal(0.0, 1.0).expand(node.shape if node else ())
    return ((handler, seen) for handler, (seen,) in met(latent_message(name, fn)))


def _gives(handler: Messenger, msg: Message) -> bool:
    """Whether a handler has a value for the site; NumPyro's own initial values do not count."""
    return not initialises(handler) and gives(handler, msg)
