"""The plan as a text table."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from autmarg.errors import suggestions
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.plan import Plan
from autmarg.report.reasons import collapsed

_WIDE = 34  # characters of a cell before it wraps
_LINE = 100  # of a reason


def plan_table(plan: Plan) -> str:
    """Sites, their sizes, what happens to each, why, with which block structure, at what cost."""
    header = ("site", "size", "what happens", "why", "block structure", "cost")
    rows = [
        (e.site, f"{e.size:,}" if e.size else "", e.action, e.why, e.structure, e.cost)
        for e in plan.entries
    ]
    lines = [f"plan of '{plan.program.name}': {summary(plan)}", *predictions(plan), ""]
    lines += table(header, rows)
    if reasons := collapsed(plan.refusals):
        lines += ["", "sampled because"]
        for reason in [*reasons, *suggestions(plan.refusals)]:
            lines += textwrap.wrap(reason, _LINE, initial_indent="  ", subsequent_indent="    ")
    for group in plan.groups:
        lines += ["", density_line(plan, group)]
        # (levels that are integrated numerically have no stages: each goes by itself)
        for k, cost in enumerate(() if group.is_by_quadrature else group.costs, start=1):
            lines.append(f"  {k}: {cost.structure}; multiply-adds {cost}")
    return "\n".join(lines)


def summary(plan: Plan) -> str:
    """How much is integrated out, or why nothing is."""
    gone, white, stay = (
        sum(plan.dimensions[name] for name in names)
        for names in (plan.integrated, plan.whitened, plan.kept)
    )
    total = gone + white + stay
    if white:
        more = f"{gone:,} integrated out, " if gone else ""
        noise = sum(plan.noise.values())
        wider = f" (as {noise:,} of noise)" if noise > white else ""
        return f"{white:,} of {total:,} dimensions whitened{wider}, {more}{stay:,} as written"
    if not gone:
        return f"nothing is integrated out ({_why(plan)}); {stay:,} dimensions are sampled"
    how = ", by quadrature" if plan.quadrature else ""
    return f"{gone:,} of {total:,} dimensions integrated out{how}, {stay:,} sampled"


def predictions(plan: Plan) -> list[str]:
    """A line each for what the planned program and the source are predicted to take."""
    if plan.predicted is None:
        return []
    planned, source = plan.predicted
    return [
        *plan.quadrature,
        f"predicted as planned: {planned}",
        f"predicted for the source in its best form: {source}",
    ]


def _why(plan: Plan) -> str:
    """Why nothing goes, in one line."""
    if plan.program.obstacles:
        return plan.program.obstacles[0].reason
    others = ("non-Gaussian prior", "not conjugate")
    gaussian = [r for r in plan.refusals if r.rule not in others]
    if plan.rewritten is not None and all(r.rule == "no pass" for r in gaussian) and gaussian:
        return "no pass does so"
    if not gaussian:
        return "no latent site has a Gaussian prior, and no conjugacy was found"
    if all(r.rule == "non-Gaussian child" for r in gaussian):
        return "every Gaussian latent has a non-Gaussian child, as in a generalised linear model"
    return "every Gaussian latent is sampled, for the reasons below"


def density_line(plan: Plan, group: ScheduledGroup) -> str:
    """A marginal density, or a surrogate's, and its sizes."""
    what = "surrogate of " if group.stand_ins else ""
    assembly = group.schedule.assembly
    others: Counter[str] = Counter()
    for term in assembly.terms:
        others[term.how] += term.n
    added = others.pop(assembly.summed.how)
    rows = [f"{count:,} rows {how}" for how, count in others.items()]
    if added or not rows:
        sums = len(assembly.summed.stats.total)
        rows.insert(0, f"N = {added:,} rows added up into {sums:,} statistics")
    return (
        f"{what}{group.name}: {', '.join(rows)}, "
        f"G has {group.schedule.form.columns:,} columns and {group.assembly.nnz:,} entries"
        f"{_in_pieces(group)}"
    )


def _in_pieces(group: ScheduledGroup) -> str:
    """What knows what of a surrogate in pieces, "" of others."""
    if not group.pieces:
        return ""
    pieces, outside = "; ".join(", ".join(p) for p in group.pieces), group.outside_largest
    return (
        f"; in pieces: {pieces} (what these have to do with one another is taken at the mode, a "
        f"matrix of {len(outside):,} × {outside.sum():,})"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with wrapped cells; columns that are empty throughout are left out."""
    used = [j for j in range(len(header)) if any(row[j] for row in rows)]
    if not used:
        return []
    cells = [[header[j] for j in used], *([row[j] for j in used] for row in rows)]
    wrapped = [[textwrap.wrap(c, _WIDE) or [""] for c in row] for row in cells]
    widths = [max(len(line) for row in wrapped for line in row[k]) for k in range(len(used))]
    lines = []
    for i, row in enumerate(wrapped):
        for k in range(max(len(c) for c in row)):
            parts = [c[k] if k < len(c) else "" for c in row]
            text = "  ".join(p.ljust(w) for p, w in zip(parts, widths, strict=True))
            lines.append(text.rstrip())
        if i == 0:
            lines.append("  ".join("─" * w for w in widths))
    return lines


def rich_table(plan: Plan) -> Any:
    """The same for a terminal, where `rich` prints it: colours, and columns as wide as there is."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colours = {"integrated out": "green", "whitened": "green"}
    colours |= {"sampled": "yellow", "observed": "dim"}
    grid = Table(title=f"plan of '{plan.program.name}': {summary(plan)}", box=box.SIMPLE_HEAD)
    for name in ("site", "size", "what happens", "why", "block structure", "cost"):
        grid.add_column(name, justify="right" if name == "size" else "left")
    for e in plan.entries:
        size = f"{e.size:,}" if e.size else ""
        style = next((c for word, c in colours.items() if e.action.startswith(word)), "")
        cells = (Text(e.site, style="bold"), size, Text(e.action, style=style))
        grid.add_row(*cells, Text(e.why), e.structure, e.cost)
    lines = [Text(line) for line in predictions(plan)]
    lines += [Text(density_line(plan, group)) for group in plan.groups]
    reasons = [Text(f"{reason}") for reason in collapsed(plan.refusals)]
    return Group(grid, *reasons, *lines)
