"""What a notebook has to be told so that it shows a value."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS = 110  # per inch


def shown(figure: Figure) -> Figure:
    """A figure that a notebook shows; it would show only those that pyplot made, after it did."""
    figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DOTS, bbox_inches="tight")
    return out.getvalue()
