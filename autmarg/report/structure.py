"""A picture of the block structure of G, in the order in which its columns are eliminated."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from autmarg.errors import RequestError
from autmarg.gaussian.affine import Member
from autmarg.notebook import shown
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.plan import Plan

LINES = 28  # labels that fit below each other along an axis
CHARACTER = 0.018  # width of a label's letter in lengths of an axis
SHADES = ("#2a6f97", "#74a57f", "#c1666b", "#d4a24c", "#7d6b91")


def figure(plan: Plan) -> Any:
    """One panel for each group: G's entries, coloured by the stage that eliminates them.

    Raises:
        RequestError: matplotlib is not installed, or nothing is integrated out.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise RequestError("a figure needs matplotlib: pip install 'autmarg[demo]'")
    if not plan.groups:
        name = plan.program.name
        raise RequestError(f"no Gaussian latent of '{name}' is integrated out: there is no G")
    from matplotlib.figure import Figure

    count = len(plan.groups)
    picture = Figure(figsize=(6.4 * count, 6.8), layout="constrained")
    for axes, group in zip(np.atleast_1d(picture.subplots(1, count)), plan.groups, strict=True):
        _panel(axes, group)
    return shown(picture)


def _panel(axes: Any, group: ScheduledGroup) -> None:
    schedule = group.schedule
    stages, pattern = schedule.stages, group.assembly.pattern
    order = [stage.columns.reshape(-1) for stage in stages]
    order = [columns[columns >= 0] for columns in order]
    columns = np.concatenate(order)
    position = np.full(schedule.form.columns + 1, -1)
    position[columns] = np.arange(len(columns))
    stage_of = np.repeat(np.arange(len(order)), [len(c) for c in order])
    i, j = position[pattern.first], position[pattern.second]
    inside = (i >= 0) & (j >= 0)
    i, j = i[inside], j[inside]
    size = max(0.4, min(8.0, 300.0 / max(len(columns), 1)))
    for k, name in enumerate(stage.name for stage in stages):
        mine = stage_of[np.minimum(i, j)] == k
        x, y = np.concatenate([j[mine], i[mine]]), np.concatenate([i[mine], j[mine]])
        label = f"{k + 1}. {name}: {len(order[k]):,} columns"
        axes.plot(x, y, "s", ms=size, mew=0, color=SHADES[k % len(SHADES)], label=label)
    _sites(axes, schedule.form.members, position)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(columns) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_title(group.name)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.04), markerscale=8 / size, frameon=False
    )


def _sites(axes: Any, members: Sequence[Member], position: np.ndarray) -> None:
    """Names and frames of the sites, each at the columns that it has in a row."""
    total, ticks, names = (position >= 0).sum(), [], []
    for member in members:
        own = position[member.offset : member.offset + member.blocks * member.size]
        own = np.sort(own[own >= 0])
        if not len(own):
            continue
        ticks.append(own.mean())
        names.append(member.name)
        if own[-1] - own[0] + 1 == len(own):
            edge = own[0] - 0.5, own[-1] + 0.5
            for line in (axes.axhline, axes.axvline):
                line(edge[1], color="#bbb", lw=0.6, zorder=0)
    shown = sorted(zip(ticks, names, strict=True))
    axes.set_yticks([tick for tick, _ in shown], [name for _, name in shown])
    axes.set_xticks([])
    width = CHARACTER * (max(map(len, names), default=0) + 1)
    lanes = _lanes([tick for tick, _ in shown], total / LINES)
    for label, lane in zip(axes.get_yticklabels(), lanes, strict=True):
        label.set_x(-width * lane)


def _lanes(ticks: list[float], apart: float) -> list[int]:
    """For each tick, in order, the first column of labels whose last one is ``apart`` from it."""
    last: list[float] = []
    lanes = []
    for tick in ticks:
        free = [k for k, before in enumerate(last) if tick - before >= apart]
        lane = free[0] if free else len(last)
        last[lane : lane + 1] = [tick]
        lanes.append(lane)
    return lanes
