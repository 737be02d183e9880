"""A plan as HTML: the model before and after, side by side, and the table of what was done."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import networkx as nx

from autmarg.gaussian.stages.cost import SYMBOLS
from autmarg.plan.plan import Plan
from autmarg.report.drawing import svg
from autmarg.report.graph import COLOURS, after, before
from autmarg.report.reasons import explain
from autmarg.report.table import density_line, predictions, summary

# Text has the colour of the page around it, light or dark; fills are pale, their letters dark.
_STYLE = """
.autmarg { font: 14px/1.4 sans-serif; max-width: 1240px; overflow-wrap: break-word }
.autmarg .head { font-size: 16px; font-weight: bold; margin: 4px 0 8px }
.autmarg .dim { opacity: 0.8; margin: 2px 0; font-size: 13px }
.autmarg .pair { display: flex; gap: 24px; flex-wrap: wrap; align-items: flex-start }
.autmarg .pair > div { flex: 1 1 45%; min-width: min(440px, 100%); overflow-x: auto }
.autmarg .name { font-weight: bold; opacity: 0.8; margin: 12px 0 4px }
.autmarg .legend { margin: 10px 0; font-size: 13px; line-height: 2 }
.autmarg .wide { overflow-x: auto; margin: 12px 0 }
.autmarg table { border-collapse: collapse; border: 0; margin: 0; display: table; width: auto;
  color: inherit; background: none }
.autmarg td, .autmarg th, .autmarg tr { background: none; color: inherit; border: 0 }
.autmarg td, .autmarg th { padding: 3px 10px 3px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #8886; font-size: 13px }
.autmarg td.size { text-align: right }
.autmarg td.cost { white-space: nowrap }
.autmarg span.chip { border: 1px solid #666; border-radius: 9px; padding: 0 8px; color: #222;
  white-space: nowrap; display: inline-block; line-height: 1.4 }
.autmarg span.dashed { border-style: dashed }
.autmarg pre { font: 12px/1.35 monospace; overflow-x: auto; background: #8882; padding: 8px;
  color: inherit; white-space: pre }
.autmarg summary { cursor: pointer }
.autmarg ol { margin: 4px 0; padding-left: 1.6em; font-size: 13px }
"""
_DASHED = ("recovered", "after recovery", "computed")
_PAGE = "color-scheme: light dark; margin: 12px"


def fragment(plan: Plan) -> str:
    """What a notebook shows."""
    return "".join(_parts(plan))


def page(plan: Plan) -> str:
    """A page that stands by itself."""
    title = escape(f"plan of {plan.program.name}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>:root {{ {_PAGE} }}</style></head><body>{fragment(plan)}</body></html>"
    )


def _parts(plan: Plan) -> Iterator[str]:
    yield f"<style>{_STYLE}</style><div class='autmarg'>"
    yield f"<div class='head'>{escape(plan.program.name)}: {escape(summary(plan))}</div>"
    yield from (f"<div class='dim'>{escape(line)}</div>" for line in predictions(plan))
    graphs = before(plan), after(plan)
    yield "<div class='pair'>"
    for title, graph in zip(("as written", "as sampled"), graphs, strict=True):
        yield f"<div><div class='name'>{title}</div>{svg(graph)}</div>"
    yield "</div>"
    yield from _legend(graphs)
    yield from _table(plan)
    yield from _costs(plan)
    steps = "\n".join(map(str, plan.history))
    for title, text in (
        ("why the others are sampled", explain(plan.refusals)),
        ("the program as written", str(plan.program)),
        ("the program as sampled", str(plan.rewritten or plan.program)),
        ("the rewrites", steps),
    ):
        if text:
            yield f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"
    yield "</div>"


def _chip(action: str, dashed: bool = False) -> str:
    kind = "chip dashed" if dashed else "chip"
    fill = COLOURS.get(action, "#fff")
    return f"<span class='{kind}' style='background:{fill}'>{escape(action)}</span>"


def _legend(graphs: tuple[nx.DiGraph[Any], nx.DiGraph[Any]]) -> Iterator[str]:
    """The fills and the lines that occur in the two pictures."""
    found = {data["action"]: None for graph in graphs for _, data in graph.nodes(data=True)}
    chips = " ".join(_chip(action, action in _DASHED) for action in found)
    arrows = "an arrow goes from a site to what reads it"
    if any(dashed for graph in graphs for *_, dashed in graph.edges(data="dashed")):
        arrows += "; dashed: drawn by <code>recover</code> after sampling"
    yield f"<div class='legend'>{chips}<br>{arrows}; a frame is a plate with its size</div>"


def _table(plan: Plan) -> Iterator[str]:
    yield "<div class='wide'><table><tr><th>site</th><th>size</th><th>what happens</th>"
    yield "<th>why</th><th>block structure</th><th>cost</th></tr>"
    for e in plan.entries:
        size = f"{e.size:,}" if e.size else ""
        yield (
            f"<tr><td>{escape(e.site)}</td><td class='size'>{size}</td><td>{_chip(e.action)}</td>"
            f"<td title='{escape(e.reason)}'>{escape(e.why)}</td><td>{escape(e.structure)}</td>"
            f"<td class='cost'>{escape(e.cost)}</td></tr>"
        )
    yield "</table></div>"


def _costs(plan: Plan) -> Iterator[str]:
    """The stages of each group, and what the letters of their costs are."""
    used: set[str] = set()
    for group in plan.groups:
        stages = "".join(
            f"<li>{escape(c.structure)}; multiply-adds {escape(str(c))}</li>" for c in group.costs
        )
        used |= {str(symbol) for c in group.costs for symbol in c.formula.free_symbols}
        yield f"<div class='dim'>{escape(density_line(plan, group))}</div>"
        yield f"<ol>{stages}</ol>"
    if used:
        letters = "; ".join(f"<i>{k}</i> {words}" for k, words in SYMBOLS.items() if k in used)
        yield f"<div class='dim'>Costs are multiply-adds of one log-density: {letters}.</div>"
