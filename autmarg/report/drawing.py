"""A graph with plates as SVG: parents above children, plates as frames around their sites.

The layout is our own, so that a notebook needs no other program. Every site and every frame gets a
place of its own: sites on rows by depth, frames as intervals of columns over their rows, packed
from the left and then moved towards their neighbours as far as nothing overlaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import networkx as nx

from autmarg.report.graph import COLOURS
from autmarg.report.routing import End, Zone, path, reach, route

CHARACTER = 7.6  # width of a character of 13 px
HEIGHT = 30.0  # of a site
GAP = 16.0  # between neighbours
WIDEST = 560.0  # of a row from which roots move up, so that two pictures fit side by side
LEAST = 480.0  # pixels to which a picture is made smaller on a narrow page
LABEL = 18.0  # height of a frame's label
CHANNEL = 34.0  # height between two rows, where edges bend
LINE = "#888"  # edges and frames, on a light and on a dark page
INK = "#222"  # what stands on a site's fill
SWEEPS = 6


@dataclass(eq=False)
class Item:
    """A site, or a frame with what is inside it, at ``x`` (its left edge) within its parent."""

    name: str
    width: float
    rows: tuple[int, int]
    x: float = 0.0
    inner: list[Item] = field(default_factory=list)
    label: str = ""

    @property
    def letters(self) -> float:
        """The width of a frame's label."""
        return CHARACTER * 0.93 * len(self.label)

    @property
    def depth(self) -> int:
        """Frames inside one another, itself included."""
        return 1 + max((i.depth for i in self.inner), default=0) if self.inner else 0

    def sites(self, left: float = 0.0) -> Iterator[tuple[str, float]]:
        """Names and centres of all sites inside."""
        if not self.inner:
            yield self.name, left + self.x + self.width / 2
        for item in self.inner:
            yield from item.sites(left + self.x)


def svg(graph: nx.DiGraph[Any]) -> str:
    """The graph's picture, with a tooltip on every site."""
    rows = _rows(graph)
    top = Item("", 0.0, (0, 0), inner=_packed(graph, rows, list(graph), 0))
    _improve(graph, top)
    depth = max((i.depth for i in top.inner), default=0)
    step = HEIGHT + CHANNEL + depth * (LABEL + 8)
    y = {name: GAP + depth * 6 + HEIGHT / 2 + row * step for name, row in rows.items()}
    x = {name: centre + GAP for name, centre in top.sites()}
    zones = _zones(graph, top, rows, x, y)
    out = {name: End(x[name], y[name] + HEIGHT / 2, rows[name]) for name in graph}
    into = {name: End(x[name], y[name] - HEIGHT / 2 - 1, rows[name]) for name in graph}
    routes = {(a, b): route(zones, a, out[a], into[b]) for a, b in graph.edges}
    low, high = reach(routes.values())
    right = max((GAP + i.x + i.width for i in top.inner), default=0.0)
    shift = max(0.0, GAP - low)
    width = max(right, high) + GAP + shift
    height = (max(rows.values(), default=0) + 1) * step + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="{-shift:.0f} 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" font-family="sans-serif" '
        f'style="max-width:100%;min-width:{min(width, LEAST):.0f}px;height:auto" '
        'font-size="13" fill="currentColor">',
        f'<defs><marker id="tip-{graph.name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="{LINE}"/></marker></defs>',
    ]
    parts += _frames(top, y, GAP)
    for (a, b), points in routes.items():
        dash = ' stroke-dasharray="4 3"' if graph.edges[a, b].get("dashed") else ""
        parts.append(
            f'<path d="{path(points, CHANNEL)}" fill="none" stroke="{LINE}"{dash} '
            f'marker-end="url(#tip-{graph.name})"/>'
        )
    parts += _labels(top, y, GAP)
    parts += [_site(x[name], y[name], data) for name, data in graph.nodes(data=True)]
    return "".join([*parts, "</svg>"])


def _zones(
    graph: nx.DiGraph[Any],
    top: Item,
    rows: dict[str, int],
    x: dict[str, float],
    y: dict[str, float],
) -> list[Zone]:
    """The rows of the picture, with what an edge must not cross."""
    zones: list[Zone] = []
    for row in range(max(rows.values(), default=-1) + 1):
        names = [n for n in graph if rows[n] == row]
        halves = {n: _site_width(graph.nodes[n]) / 2 for n in names}
        blocked = [(x[n] - half, x[n] + half) for n, half in halves.items()]
        middle = y[names[0]]
        zones.append(Zone(middle - HEIGHT / 2 - 2, middle + HEIGHT / 2 + 2, blocked))
    for item, left in _framed(top, GAP):
        zone, (start, bottom, width, height) = zones[item.rows[1]], _box(item, y, left)
        zone.blocked.append((start + width - 6 - item.letters, start + width - 6))
        zone.bottom = max(zone.bottom, bottom + height + 2)
    return zones


def _framed(top: Item, left: float) -> Iterator[tuple[Item, float]]:
    """All frames, each with the left edge of what it stands in."""
    for item in top.inner:
        if item.inner:
            yield item, left
            yield from _framed(item, left + item.x)


def _rows(graph: nx.DiGraph[Any]) -> dict[str, int]:
    """Longest path from above; what has no parents stands right above its first child."""
    rows: dict[str, int] = {}
    order = _order(graph)
    for name in order:
        rows[name] = max((rows[p] + 1 for p in graph.predecessors(name) if p in rows), default=0)
    roots = [n for n in order if not graph.in_degree(n)]
    for name in roots:
        rows[name] = min((rows[c] - 1 for c in graph.successors(name)), default=0)
    free = [n for n in roots if not graph.nodes[n]["plates"]]
    for row in range(max(rows.values(), default=0), -len(rows), -1):
        names = [n for n in order if rows[n] == row]
        left = sum(_width(graph, n) for n in names) - WIDEST
        for name in (n for n in names if n in free):
            if left > 0 and len(names) > 1:
                rows[name] -= 1
                left -= _width(graph, name)
    first = min(rows.values(), default=0)
    return {name: row - first for name, row in rows.items()}


def _width(graph: nx.DiGraph[Any], name: str) -> float:
    """Of a site, or of the frame around it."""
    data = graph.nodes[name]
    return GAP + 26 + CHARACTER * max(len(text) for text in (data["label"], *data["plates"]))


def _order(graph: nx.DiGraph[Any]) -> list[str]:
    """Parents first; sites of a scan may read each other, then as they come."""
    acyclic = nx.DiGraph(graph)
    while not nx.is_directed_acyclic_graph(acyclic):
        acyclic.remove_edge(*nx.find_cycle(acyclic)[-1])
    return list(nx.topological_sort(acyclic))


def _packed(
    graph: nx.DiGraph[Any], rows: dict[str, int], names: list[str], depth: int
) -> list[Item]:
    """Sites at this depth of plates, and frames of deeper ones, packed from the left."""
    items: list[Item] = []
    frames: dict[str, list[str]] = {}
    for name in names:
        plates = graph.nodes[name]["plates"]
        if len(plates) > depth:
            frames.setdefault(plates[depth], []).append(name)
        else:
            width = _site_width(graph.nodes[name]) + 2
            items.append(Item(name, width, (rows[name], rows[name])))
    for label, inside in frames.items():
        inner = _packed(graph, rows, inside, depth + 1)
        own = (min(i.rows[0] for i in inner), max(i.rows[1] for i in inner))
        frame = Item(f"{label}/{inside[0]}", 0.0, own, inner=inner, label=label)
        frame.width = max(max(i.x + i.width for i in inner) + GAP / 2, frame.letters + 20)
        leaving = [x for n, x in frame.sites() if rows[n] == own[1] and graph.out_degree(n)]
        beside = max(leaving, default=-GAP) + GAP + frame.letters  # edges leave left of the label
        shift = (frame.width - GAP / 2 - max(i.x + i.width for i in inner)) / 2
        for item in inner if beside <= frame.width else ():
            item.x += max(0.0, min(shift, frame.width - beside))
        frame.width = max(frame.width, beside)
        items.append(frame)
    _pack(items, GAP / 2 if depth else 0.0)
    return items


def _pack(items: list[Item], margin: float) -> None:
    placed: list[Item] = []
    for item in items:
        item.x = max((p.x + p.width + GAP for p in placed if _beside(p, item)), default=margin)
        placed.append(item)


def _beside(a: Item, b: Item) -> bool:
    return a.rows[0] <= b.rows[1] and b.rows[0] <= a.rows[1]


def _improve(graph: nx.DiGraph[Any], top: Item) -> None:
    """Order the items by their neighbours' places, pack again, and move them towards those."""
    where = {name: item for item in top.inner for name, _ in item.sites()}
    links = nx.Graph((where[a], where[b]) for a, b in graph.edges if where[a] is not where[b])
    links.add_nodes_from(top.inner)

    def wanted(item: Item) -> float:
        near = [n.x + n.width / 2 for n in links[item]]
        return sum(near) / len(near) if near else item.x + item.width / 2

    for _ in range(SWEEPS):
        top.inner.sort(key=wanted)
        _pack(top.inner, 0.0)
        for item in sorted(top.inner, key=lambda i: -len(links[i])):
            _move(item, wanted(item) - item.width / 2, top.inner)
        top.inner.sort(key=lambda i: i.x)
    for _ in range(SWEEPS):
        for item in top.inner:
            _move(item, wanted(item) - item.width / 2, top.inner)
    left = min((i.x for i in top.inner), default=0.0)
    for item in top.inner:
        item.x -= left


def _move(item: Item, to: float, others: Iterable[Item]) -> None:
    """Move an item as far towards ``to`` as its neighbours on the same rows let it."""
    beside = [o for o in others if o is not item and _beside(o, item)]
    low = max((o.x + o.width + GAP for o in beside if o.x <= item.x), default=-1e9)
    high = min((o.x - GAP for o in beside if o.x > item.x), default=1e9) - item.width
    if low <= high:
        item.x = min(max(to, low), high)


def _box(item: Item, y: dict[str, float], left: float) -> tuple[float, float, float, float]:
    """x, y, width and height of a frame."""
    heights = [y[name] for name, _ in item.sites()]
    over, under = HEIGHT / 2 + 6 * item.depth, HEIGHT / 2 + 4 + LABEL * item.depth
    return (
        left + item.x,
        min(heights) - over,
        item.width,
        max(heights) - min(heights) + over + under,
    )


def _frames(top: Item, y: dict[str, float], left: float) -> Iterator[str]:
    for item in top.inner:
        if item.inner:
            x, up, width, height = _box(item, y, left)
            yield (
                f'<rect x="{x:.1f}" y="{up:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8" '
                f'fill="none" stroke="{LINE}"/>'
            )
            yield from _frames(item, y, left + item.x)


def _labels(top: Item, y: dict[str, float], left: float) -> Iterator[str]:
    for item in top.inner:
        if item.inner:
            x, up, width, height = _box(item, y, left)
            yield (
                f'<text x="{x + width - 6:.1f}" y="{up + height - 5:.1f}" text-anchor="end" '
                f'font-size="12" opacity="0.75">{escape(item.label)}</text>'
            )
            yield from _labels(item, y, left + item.x)


def _site_width(data: dict[str, Any]) -> float:
    return CHARACTER * len(data["label"]) + 24


def _site(x: float, y: float, data: dict[str, Any]) -> str:
    width = _site_width(data)
    round_ = 6 if data["kind"] in ("marginal", "factor") else HEIGHT / 2
    dash = ' stroke-dasharray="4 3"' if data["kind"] == "deterministic" or data[
        "action"
    ] in ("recovered", "after recovery") else ""  # fmt: skip
    fill = COLOURS.get(data["action"], "#ffffff")
    return (
        f"<g><title>{escape(data['note'])}</title>"
        f'<rect x="{x - width / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{width:.1f}" '
        f'height="{HEIGHT:.0f}" rx="{round_:.0f}" fill="{fill}" stroke="{INK}"{dash}/>'
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" fill="{INK}">'
        f"{escape(data['label'])}"
        "</text></g>"
    )
