"""The built-in compilation as a list of passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autmarg.passes.pipeline import Passes
from autmarg.passes.registry import BUILT_IN
from autmarg.plan.select import Request


def default_passes(
    *,
    marginalize: str | Sequence[str] = "auto",
    keep: Sequence[str] = (),
    reparameterize: str | Sequence[str] = "auto",
    chains: str = "auto",
    nongaussian: str | Mapping[str, str] = "auto",
) -> Passes:
    """The passes that ``transform`` runs, as a list to print, reorder, drop from or extend.

    Args:
        marginalize, keep, reparameterize, chains, nongaussian: as for :func:`autmarg.transform`.

    Raises:
        RequestError: an option is malformed.
    """
    return passes_for(Request.of(marginalize, keep, reparameterize, chains, nongaussian))


def passes_for(request: Request) -> Passes:
    """The built-in passes for what a user asked."""
    quadrature, whiten, detect, *rest = BUILT_IN
    deciding = (each(request) for each in (quadrature, whiten, detect))
    return Passes((*deciding, *(each() for each in rest)))
