"""A plan as HTML: the model before and after, side by side, and the table of what was done."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from autmarg.report.drawing import svg
from autmarg.report.graph import COLOURS, after, before
from autmarg.report.reasons import explain
from autmarg.report.table import density_line, predictions, summary

_STYLE = """
.autmarg { font: 14px/1.4 sans-serif; color: #222; background: #fff; padding: 12px;
  max-width: 1240px }
.autmarg h3 { font-size: 16px; margin: 4px 0 8px }
.autmarg .pair { display: flex; gap: 24px; flex-wrap: wrap; align-items: flex-start }
.autmarg .pair > div { flex: 1 1 45%; min-width: 320px }
.autmarg h4 { margin: 8px 0 4px; font-size: 14px; color: #555 }
.autmarg table { border-collapse: collapse; margin: 12px 0 }
.autmarg td, .autmarg th { padding: 3px 10px; text-align: left; vertical-align: top;
  border-bottom: 1px solid #ddd; font-size: 13px; background: #fff; color: #222 }
.autmarg td.size { text-align: right }
.autmarg span.chip { border: 1px solid #888; border-radius: 9px; padding: 0 8px;
  white-space: nowrap }
.autmarg pre { font: 12px/1.35 monospace; overflow-x: auto; background: #f7f7f7; padding: 8px;
  color: #222 }
.autmarg summary { cursor: pointer; color: #444 }
"""


def fragment(plan: Any) -> str:
    """What a notebook shows."""
    return "".join(_parts(plan))


def page(plan: Any) -> str:
    """A page that stands by itself."""
    title = escape(f"plan of {plan.program.name}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body>{fragment(plan)}</body></html>"
    )


def _parts(plan: Any) -> Iterator[str]:
    yield f"<style>{_STYLE}</style><div class='autmarg'>"
    yield f"<h3>{escape(plan.program.name)}: {escape(summary(plan))}</h3>"
    yield from (f"<p>{escape(line)}</p>" for line in predictions(plan))
    yield "<div class='pair'>"
    for title, graph in (("as written", before(plan)), ("as sampled", after(plan))):
        yield f"<div><h4>{title}</h4>{svg(graph)}</div>"
    yield "</div>"
    yield from _table(plan)
    for group in plan.groups:
        stages = "".join(
            f"<li>{escape(c.structure)}; multiply-adds {escape(str(c))}</li>" for c in group.costs
        )
        yield f"<p>{escape(group.name)}: {escape(density_line(group))}</p><ol>{stages}</ol>"
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


def _table(plan: Any) -> Iterator[str]:
    yield "<table><tr><th>site</th><th>size</th><th>what happens</th><th>why</th>"
    yield "<th>block structure</th><th>cost</th></tr>"
    for e in plan.entries:
        chip = f"<span class='chip' style='background:{COLOURS.get(e.action, '#fff')}'>"
        size = f"{e.size:,}" if e.size else ""
        cells = "".join(
            f"<td>{escape(text)}</td>" for text in (e.reason or e.why, e.structure, e.cost)
        )
        yield (
            f"<tr><td>{escape(e.site)}</td><td class='size'>{size}</td>"
            f"<td>{chip}{escape(e.action)}</span></td>{cells}</tr>"
        )
    yield "</table>"
