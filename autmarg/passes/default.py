"""The built-in compilation as a list of passes."""

from __future__ import annotations

from collections.abc import Sequence

from autmarg.passes.conjugate import Conjugate
from autmarg.passes.detect import Detect
from autmarg.passes.hoist import Hoist
from autmarg.passes.marginalise import Marginalise
from autmarg.passes.noncentre import NonCentre
from autmarg.passes.pipeline import Passes
from autmarg.passes.simplify import Simplify
from autmarg.plan.select import Request


def default_passes(
    *,
    marginalize: str | Sequence[str] = "auto",
    keep: Sequence[str] = (),
    reparameterize: str | Sequence[str] = "auto",
    chains: str = "auto",
) -> Passes:
    """The passes that ``transform`` runs, as a list to print, reorder, drop from or extend.

    Args:
        marginalize, keep, reparameterize, chains: as for :func:`autmarg.transform`.

    Raises:
        RequestError: an option is malformed.
    """
    return passes_for(Request.of(marginalize, keep, reparameterize, chains))


def passes_for(request: Request) -> Passes:
    """The built-in passes for what a user asked."""
    each = (Marginalise(), Conjugate(), NonCentre(), Hoist(), Simplify())
    return Passes((Detect(request), *each))
