"""The figures of the experiments, as SVG, from the CSV file, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from examples.paper.results import Result, results

_INK = "#7a7a7a"  # lines and letters: on white and on black alike
_SOURCE, _NOISE, _HAND, _SECOND, _OURS, _MORE = (
    "#b5642a", "#c99b2f", "#5f8f5a", "#8fb58a", "#2f7fb5", "#7fb5d8",
)  # fmt: skip
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "autmarg",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def colour(r: Result, hands: Sequence[str] = ()) -> str:
    """One colour for each kind of program."""
    if r.ours:
        return _OURS if r.program == "autmarg" else _MORE
    if r.program.startswith("by hand"):
        return _SECOND if hands and r.program != hands[0] else _HAND
    return _NOISE if r.program == "non-centred" else _SOURCE


def _beside(axes: Any, end: float, name: str, words: str) -> None:
    """Words to the right of a bar."""
    at = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
    axes.annotate(words, (end, name), **at)


def _logarithmic(axes: Any, which: str) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 within a decade, or at decades."""
    getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    subs = (1.0, 2.0, 5.0) if high < 50 * low else (1.0,)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def insteval(found: Sequence[Result]) -> Figure:
    """Effective draws of each variable for 100 draws, and each program's seconds."""
    sites = [*dict.fromkeys(site for r in found for site in r.ess)]
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(3, 1.5))
    width = 0.8 / len(found)
    shades = [_SOURCE, _HAND, _SECOND, "#c9d9a5", _MORE, _OURS]
    for k, (r, shade) in enumerate(zip(found, shades, strict=False)):
        at = np.arange(len(sites)) + (k - (len(found) - 1) / 2) * width
        heights = [100 * r.ess[s] / r.each if s in r.ess else 0 for s in sites]
        left.bar(at, heights, width, color=shade, label=r.program)
        seconds = r.warmup_s + r.sampling_s
        right.barh([r.program], [seconds], color=shade)
        _beside(right, seconds, r.program, f"{seconds:.0f} s" + (" (stopped)" if r.cut else ""))
    left.set_xticks(range(len(sites)), sites)
    _logarithmic(left, "y")
    left.set_title("ESS for each 100 draws, mean over a variable's elements", fontsize=10)
    left.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    right.invert_yaxis()
    right.margins(x=0.35)
    right.set_title("seconds of a chain", fontsize=10)
    return picture


def grouseticks(found: Sequence[Result]) -> Figure:
    """Three by three: how broods and locations are treated, as divergences and effective draws."""
    forms = ("sampled", "non-centred", "integrated")
    by_name = {r.program: r for r in found}
    picture = Figure(figsize=(9, 3.4), layout="constrained")
    panels: list[tuple[str, Callable[[Result], float], str]] = [
        ("divergences for each 1,000 draws", lambda r: 1000 * r.div / max(r.draws, 1), "Oranges"),
        ("least ESS for each second", lambda r: r.per_second, "Blues"),
    ]
    for axes, (title, value, shades) in zip(picture.subplots(1, 2), panels, strict=True):
        numbers = np.full((3, 3), np.nan)
        for i, brood in enumerate(forms):
            for j, location in enumerate(forms):
                r = by_name.get(f"brood {brood}, location {location}")
                numbers[i, j] = np.nan if r is None else value(r)
        shown = np.log1p(numbers)
        top = max(float(np.nanmax(shown)), 1e-9) if np.isfinite(shown).any() else 1.0
        axes.pcolormesh(shown, cmap=shades, vmin=-0.3 * top, vmax=1.3 * top)
        for (i, j), number in np.ndenumerate(numbers):
            words = (
                "–" if np.isnan(number) else f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
            )
            dark = shown[i, j] > 0.75 * top
            axes.text(
                j + 0.5, i + 0.5, words, ha="center", va="center", color="#fff" if dark else "#222"
            )
        axes.set_xticks(np.arange(3) + 0.5, forms)
        axes.set_yticks(np.arange(3) + 0.5, forms)
        axes.invert_yaxis()
        axes.set_xlabel("locations")
        axes.set_ylabel("broods")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=10)
    return picture


def times(found: Sequence[Result]) -> Figure:
    """Seconds of compilation, warm-up, draws and recovery, one bar a program."""
    sets = [*dict.fromkeys(r.set for r in found)]
    most = max(sum(r.set == name for r in found) for name in sets)
    picture = Figure(figsize=(9, 1.2 + 0.42 * most), layout="constrained")
    phases: list[tuple[str, Callable[[Result], float], str]] = [
        ("compilation", lambda r: r.compile_s, "#9a9a9a"),
        ("warm-up", lambda r: r.warmup_s, _NOISE),
        ("draws", lambda r: r.sampling_s, _OURS),
        ("recovery", lambda r: r.recover_s, _HAND),
    ]
    for axes, name in zip(np.atleast_1d(picture.subplots(1, len(sets))), sets, strict=True):
        mine = [r for r in found if r.set == name]
        names, start = [r.program for r in mine], np.zeros(len(mine))
        for label, value, shade in phases:
            widths = np.nan_to_num([value(r) for r in mine])
            axes.barh(names, widths, 0.6, left=start, color=shade, label=label)
            start += widths
        for r, end in zip(mine, start, strict=True):
            _beside(axes, end, r.program, "stopped" if r.cut else f"{r.per_second:,.0f} ESS/s")
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.set_title(f"{name}: seconds", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    return picture


def cognitive(found: Sequence[Result]) -> Figure:
    """Iterations a second, effective draws an iteration, least effective draws a second."""
    sets = [*dict.fromkeys(r.set for r in found)]
    picture = Figure(figsize=(9, 1.4 + 0.42 * len(sets)), layout="constrained")
    panels: list[tuple[str, Callable[[Result], float]]] = [
        ("iterations a second", lambda r: r.iterations),
        ("mean ESS an iteration", lambda r: r.per_draw),
        ("least ESS a second", lambda r: r.per_second),
    ]
    labels: dict[str, Any] = {}
    for axes, (title, value) in zip(picture.subplots(1, 3, sharey=True), panels, strict=True):
        for row, name in enumerate(sets):
            mine = [r for r in found if r.set == name]
            hands = [r.program for r in mine if r.program.startswith("by hand")]
            for k, r in enumerate(mine):
                at = row + 0.11 * (k - (len(mine) - 1) / 2)
                shade = colour(r, hands)
                label = "by hand, larger class" if r.program in hands else r.program
                label = "by hand, smaller class" if r.program in hands[1:] else label
                fill = "none" if r.cut else shade
                (mark,) = axes.plot([value(r)], [at], "o", ms=6, mec=shade, mfc=fill)
                if not r.cut:
                    labels.setdefault(label, mark)
        _logarithmic(axes, "x")
        axes.set_yticks(range(len(sets)), sets)
        axes.grid(axis="y", color=_INK, alpha=0.25, lw=0.6)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(len(sets) - 0.5, -0.5)
    picture.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=5, fontsize=9)
    return picture


FIGURES: dict[str, Callable[[Sequence[Result]], Figure]] = {
    "insteval": insteval,
    "grouseticks": grouseticks,
    "times": times,
    "cognitive": cognitive,
}


def figures(path: Path, folder: Path) -> list[Path]:
    """Draw every experiment that the file has rows of; the files written."""
    written = []
    with matplotlib.rc_context(_STYLE):
        for name, draw in FIGURES.items():
            if found := results(path, name):
                folder.mkdir(parents=True, exist_ok=True)
                target = folder / f"paper-{name}.svg"
                draw(found).savefig(target, transparent=True, metadata={"Date": None})
                written.append(target)
    return written
