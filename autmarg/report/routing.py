"""Edges of a layered picture that cross no site and no label.

Between two rows lies a free *channel*; a row with its labels is a *zone*. An edge bends only in
channels. It crosses a zone on a vertical line, through a gap between what stands there; where the
straight way is blocked it takes the nearest gap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

CLEAR = 5.0  # between an edge and what it passes
LANE = 3.5  # between two edges in one gap

Interval = tuple[float, float]


@dataclass
class Zone:
    """A row of the picture.

    Attributes:
        top, bottom: of its sites and labels.
        blocked: intervals of x that sites and labels take.
        lanes: x of the edges through it → the site from which each comes.
    """

    top: float
    bottom: float
    blocked: list[Interval]
    lanes: dict[float, str] = field(default_factory=dict)

    def gap(self, wanted: float, source: str) -> float:
        """The x nearest to ``wanted`` at which an edge can pass, which it then takes."""
        taken = [(x - LANE, x + LANE) for x, other in self.lanes.items() if other != source]
        free = _nearest(wanted, [*((a - CLEAR, b + CLEAR) for a, b in self.blocked), *taken])
        self.lanes[free] = source
        return free


def _nearest(wanted: float, blocked: Sequence[Interval]) -> float:
    ends = [x for interval in blocked for x in interval]
    free = (x for x in (wanted, *ends) if not any(a < x < b for a, b in blocked))
    return min(free, key=lambda x: abs(x - wanted))


@dataclass(frozen=True)
class End:
    """Where an edge starts or ends: the middle of a site's lower or upper side, and its row."""

    x: float
    y: float
    row: int


@dataclass(frozen=True)
class Point:
    """A place on an edge, and whether the edge runs down (1) or up (-1) there."""

    x: float
    y: float
    down: int = 1


def route(zones: Sequence[Zone], source: str, start: End, end: End) -> list[Point]:
    """Points of an edge; it is straight from each to the next in a zone, and bends in channels."""
    points = [Point(start.x, start.y), Point(start.x, zones[start.row].bottom)]
    up = end.row <= start.row
    rows = range(start.row, end.row - 1, -1) if up else range(start.row + 1, end.row)
    x = start.x
    for k, row in enumerate(rows):
        zone = zones[row]
        x = zone.gap(x + (end.x - x) / (len(rows) - k + 1), source)
        pair = [Point(x, zone.top, -1 if up else 1), Point(x, zone.bottom, -1 if up else 1)]
        points += pair[::-1] if up else pair
    return [*points, Point(end.x, zones[end.row].top), Point(end.x, end.y)]


def path(points: Sequence[Point], channel: float) -> str:
    """The SVG path through the points of :func:`route`; ``channel`` is a channel's height."""
    return " ".join(_commands(points, channel))


def _commands(points: Sequence[Point], channel: float) -> Iterator[str]:
    yield f"M{points[0].x:.1f} {points[0].y:.1f}"
    for k, (a, b) in enumerate(itertools.pairwise(points)):
        if k % 2 == 0:
            yield f"L{b.x:.1f} {b.y:.1f}"
            continue
        turns = a.down != b.down
        bend = 0.6 * channel if turns else abs(b.y - a.y) / 2
        yield (
            f"C{a.x:.1f} {a.y + a.down * bend:.1f} {b.x:.1f} {b.y - b.down * bend:.1f} "
            f"{b.x:.1f} {b.y:.1f}"
        )


def reach(routes: Iterable[Sequence[Point]]) -> Interval:
    """The least and the largest x of some edges."""
    xs = [point.x for points in routes for point in points]
    return min(xs, default=0.0), max(xs, default=0.0)
