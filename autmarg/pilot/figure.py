"""A comparison as three panels of bars, with the predictions as marks."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from autmarg.errors import RequestError
from autmarg.notebook import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from autmarg.pilot.comparison import Comparison, Pilot

_WRITTEN, _INTEGRATED = "#b5642a", "#2a6f97"


def figure(comparison: Comparison) -> Figure:
    """Effective draws for each 1,000 gradients, a gradient's time, effective draws for each second.

    Raises:
        RequestError: matplotlib is not installed, or nothing was measured.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise RequestError("a figure needs matplotlib: pip install 'autmarg[demo]'")
    pilots = [p for p in comparison.pilots if p.measured is not None and not p.same]
    if not pilots:
        raise RequestError("no program was measured, so there is nothing to draw")
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 1.2 + 0.45 * len(pilots)), layout="constrained")
    first, second, third = picture.subplots(1, 3, sharey=True)
    measured = [p.measured for p in pilots if p.measured is not None]
    _panel(
        first, pilots, "ESS for each 1,000 gradients", [m.ess_per_1000_gradients for m in measured]
    )
    guesses = [p.predicted and 1e6 * p.predicted.gradient for p in pilots]
    times = [1e6 * m.gradient_seconds for m in measured]
    _panel(second, pilots, "gradient, µs", times, guesses)
    guesses = [p.predicted and 1 / p.predicted.draw for p in pilots]
    _panel(third, pilots, "ESS for each second", [m.ess_per_second for m in measured], guesses)
    first.invert_yaxis()
    picture.suptitle(comparison.model)
    handles, labels = third.get_legend_handles_labels()
    if handles:
        picture.legend(handles, labels, loc="outside lower right", frameon=False, fontsize=9)
    return shown(picture)


def _panel(
    axes: Any,
    pilots: list[Pilot],
    title: str,
    values: list[float],
    predicted: list[float | None] | None = None,
) -> None:
    names = [p.program for p in pilots]
    colours = [_INTEGRATED if p.ours else _WRITTEN for p in pilots]
    axes.barh(names, values, color=colours, height=0.6)
    guesses = [(n, g) for n, g in zip(names, predicted or [], strict=False) if g]
    if guesses:
        axes.plot(
            [g for _, g in guesses], [n for n, _ in guesses], "D", ms=6, mfc="#fff", mec="#222",
            label="predicted",
        )  # fmt: skip
    axes.set_title(title, fontsize=10)
    positive = [v for v in [*values, *(g for _, g in guesses)] if v > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_xscale("log")
        axes.set_xlim(left=min(positive) / 2)
    axes.spines[["top", "right"]].set_visible(False)
