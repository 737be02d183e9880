"""What a transformed model offers after a fit; each method delegates to one file of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class AfterFit:
    """Methods of :class:`autmarg.MarginalizedModel` that start from posterior draws.

    Attributes:
        source: the user's model.
        recover: exact draws of what was integrated out.
    """

    source: Callable[..., Any]
    recover: Callable[..., dict[str, Any]]
