"""ArviZ's question for the log-likelihood of each row, which only the call stack gives away.

ArviZ calls a model through ``numpyro.infer.log_likelihood``, as users do, and takes the elements of
each observed site's log-density for those of rows.
"""

from __future__ import annotations

import sys
from types import FrameType

_ARVIZ = ("arviz", "arviz_base")  # its two generations
_ASKING = "log_likelihood_to_xarray"


def stacklevel_of_asker() -> int | None:
    """Where in the stack, seen from the caller, somebody asks ArviZ for values of each row.

    Returns:
        A ``stacklevel`` for a warning of the caller's; None where ArviZ does not ask.
    """
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    depth = next((k for k, each in enumerate(frames) if _asks(each)), None)
    if depth is None:
        return None
    outside = (k for k, each in enumerate(frames) if k > depth and not _of_arviz(each))
    return next(outside, depth) + 1


def _of_arviz(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _ARVIZ


def _asks(frame: FrameType) -> bool:
    return frame.f_code.co_name == _ASKING and _of_arviz(frame)


__all__ = ["stacklevel_of_asker"]
