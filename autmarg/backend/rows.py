"""ArviZ's question for the log-likelihood of each row, which a joint density cannot answer.

``arviz.from_numpyro(mcmc)`` evaluates the log-density of every observed site and takes its elements
for those of rows. A site whose rows were made dependent by integration has one number. ArviZ calls
the model through ``numpyro.infer.log_likelihood``, which is right for users who want that number
(see "Observed sites" in docs/using.md), so that only the call stack tells the two apart.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType

_ARVIZ = ("arviz", "arviz_base")  # its two generations
_ASKING = "log_likelihood_to_xarray"


def leaves_out_rows(model: str, names: Sequence[str]) -> bool:
    """Whether ArviZ asks for values of each row; if so, a warning says that there are none.

    Args:
        model: the user's name for it.
        names: observed sites with one joint density.
    """
    depth = next((k for k, frame in enumerate(_frames()) if _asks(frame)), None)
    if depth is None:
        return False
    outside = (k for k, frame in enumerate(_frames()) if k > depth and not _of_arviz(frame))
    warnings.warn(
        f"arviz.from_numpyro leaves {list(names)} of '{model}' out of log_likelihood: their rows "
        "have one joint density after integration, which is no value for each row. Call "
        "marg.to_arviz(mcmc), which has the log-likelihood of each row, and all sites",
        stacklevel=next(outside, depth) + 1,
    )
    return True


def _frames() -> Iterator[FrameType]:
    """The call stack, from the caller of :func:`leaves_out_rows`' frame on."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != leaves_out_rows.__name__:
        frame = frame.f_back
    while frame is not None:
        yield frame
        frame = frame.f_back


def _of_arviz(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _ARVIZ


def _asks(frame: FrameType) -> bool:
    return frame.f_code.co_name == _ASKING and _of_arviz(frame)


__all__ = ["leaves_out_rows"]
