"""The model's graph before and after, as networkx graphs, as JSON and in Graphviz's language."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import networkx as nx

from autmarg.ir.nodes import (
    Deterministic,
    Factor,
    Marginal,
    Node,
    NonCentred,
    Observe,
    Param,
    Recover,
)
from autmarg.ir.program import Program
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.plan import Plan

# Fill of a vertex by what happens to it; also the colour of its line in the table.
COLOURS = {
    "integrated out": "#cfe8cf",
    "sampled": "#ffffff",
    "sampled, non-centred": "#fde7c4",
    "sampled, density in marginal": "#dfe3f7",
    "summed over": "#f7f7f7",
    "observed": "#d9d9d9",
    "observed, marginal": "#d9d9d9",
    "observed, cross-products": "#d9d9d9",
    "observed, equal rows once": "#d9d9d9",
    "after recovery": "#eef6ee",
    "recovered": "#cfe8cf",
    "computed": "#f7f7f7",
    "removed": "#f6cfcf",
    "factor": "#f7f7f7",
    "param": "#ffffff",
}


def before(plan: Plan) -> nx.DiGraph[Any]:
    """The source program: one vertex a site, coloured by what happens to it.

    Vertices have ``kind`` (latent, observed, deterministic, factor, param), ``action``, ``plates``
    (outermost first), ``size``, ``note`` (why, how and at what cost) and ``place``.
    """
    entries = {e.site: e for e in plan.entries}
    graph = nx.DiGraph(name="before")
    for node in plan.program.nodes:
        entry = entries.get(node.name)
        action = entry.action if entry else _kind(node)
        note = f"{node.name}: {action}"
        if entry:
            note = ". ".join(
                filter(None, (note, entry.reason or entry.why, entry.structure, entry.cost))
            )
        _add(graph, node, action, note)
    _link(graph, plan.program)
    return graph


def after(plan: Plan) -> nx.DiGraph[Any]:
    """The rewritten program, with a marginal where its observed sites were; recovery is dashed."""
    program = plan.rewritten or plan.program
    graph = nx.DiGraph(name="after")
    for node in program.nodes:
        if isinstance(node, Marginal):
            sites = node.observed
            label = ", ".join(s.name for s in sites) or node.name
            given = ", ".join(sorted(node.parents)) or "nothing"
            note = f"{node.name} given {given}: {'; '.join(node.structure)}"
            _add(graph, node, "observed, marginal", note, label, sites[0] if sites else node)
        elif isinstance(node, Recover):
            for member in node.members:
                note = f"{member.name} is drawn by recovery, given {node.marginal}: {node.rule}"
                _add(graph, member, "recovered", note)
                graph.add_edge(node.marginal, member.name, dashed=True)
        else:
            _add(graph, node, _action(node, program), f"{node.name}: {_action(node, program)}")
        if isinstance(node, NonCentred):
            note = f"{node.base.name}: standard noise of {node.name}"
            _add(graph, node.base, "sampled", note)
            graph.add_edge(node.base.name, node.name)
    _link(graph, program)
    for node in program.nodes:
        if isinstance(node, Marginal):
            graph.add_edges_from((node.name, child) for child in node.children)
    return graph


def _kind(node: Node) -> str:
    kinds = ((Observe, "observed"), (Deterministic, "deterministic"), (Factor, "factor"))
    kinds = (*kinds, (Param, "param"), (Marginal, "marginal"))
    return next((kind for type_, kind in kinds if isinstance(node, type_)), "latent")


def _action(node: Node, program: Program) -> str:
    if isinstance(node, NonCentred):
        return "sampled, non-centred"
    if isinstance(node, Deterministic):
        recovered = {m.name for m in program.integrated}
        return "after recovery" if node.parents & recovered else "computed"
    kind = _kind(node)
    return "sampled" if kind == "latent" else kind


def _add(
    graph: nx.DiGraph[Any],
    node: Node,
    action: str,
    note: str,
    label: str = "",
    at: Node | None = None,
) -> None:
    plates = sorted((at or node).plates, key=lambda p: p.dim)
    graph.add_node(
        node.name, label=label or node.name, kind=_kind(node), action=action, note=note,
        plates=tuple(f"{p.name} {p.size:,}" for p in plates), size=(at or node).size,
        place=str(node.place) if node.place else "",
    )  # fmt: skip


def _link(graph: nx.DiGraph[Any], program: Program) -> None:
    for node in program.nodes:
        if not isinstance(node, Recover):
            known = (p for p in sorted(node.parents) if p in graph and p != node.name)
            graph.add_edges_from((parent, node.name) for parent in known)


def to_json(plan: Plan) -> str:
    """The whole plan: entries, refusals, stages with their costs, rewrites, graphs and texts."""
    program, pictures = plan.rewritten or plan.program, (before(plan), after(plan))
    whole = {
        "model": plan.program.name,
        "integrated": plan.integrated,
        "kept": plan.kept,
        "noncentred": plan.noncentred,
        "entries": [vars(e) for e in plan.entries],
        "refusals": [asdict(r) for r in plan.refusals],
        "groups": [_group(group) for group in plan.groups],
        "cost": {"formula": str(plan.cost), "multiply_adds": int(plan.cost)},
        "predicted": _predicted(plan),
        "history": [_step(step) for step in plan.history],
        "graph": {g.name: nx.node_link_data(g, edges="edges") for g in pictures},
        "text": {"before": str(plan.program), "after": str(program)},
    }
    return json.dumps(whole, indent=1)


def _predicted(plan: Plan) -> dict[str, dict[str, float]]:
    """Seconds of a gradient and of an effective draw, as planned and for the source."""
    pairs = zip(("planned", "source"), plan.predicted or (), strict=False)
    return {name: {"gradient": each.gradient, "draw": each.draw} for name, each in pairs}


def _step(step: Any) -> dict[str, Any]:
    places = [str(place) for place in step.places]
    own = {"pass": step.name, "rule": step.rule, "sites": step.sites, "seconds": step.seconds}
    return {**own, "places": places}


def _group(group: ScheduledGroup) -> dict[str, Any]:
    stages = [
        {
            "structure": cost.structure,
            "formula": str(cost.formula),
            "multiply_adds": int(cost.flops),
            "values": dict(cost.sizes),
        }
        for cost in group.costs
    ]
    members = [m.name for m in group.members]
    return {"name": group.name, "members": members, "stages": stages}


def to_dot(plan: Plan) -> str:
    """Both graphs in Graphviz's language, plates as clusters."""
    lines = ["digraph plan {", '  node [style=filled, fontname="sans-serif"];']
    for graph in (before(plan), after(plan)):
        lines += [f"  subgraph cluster_{graph.name} {{", f'    label="{graph.name}";']
        for name, data in graph.nodes(data=True):
            shape = "box" if data["kind"] == "marginal" else "ellipse"
            style = "filled,dashed" if data["action"] == "recovered" else "filled"
            fill, note = COLOURS.get(data["action"], "#ffffff"), _dot_text(data["note"])
            label = f"label={_dot_text(data['label'])}, shape={shape}, style={_dot_text(style)}"
            lines.append(
                f"    {_dot_text(graph.name + ':' + name)} [{label}, fillcolor={_dot_text(fill)}, "
                f"tooltip={note}];"
            )
        lines += _clusters(graph)
        for a, b, data in graph.edges(data=True):
            style = " [style=dashed]" if data.get("dashed") else ""
            ends = (_dot_text(f"{graph.name}:{name}") for name in (a, b))
            lines.append(f"    {' -> '.join(ends)}{style};")
        lines.append("  }")
    return "\n".join([*lines, "}"])


def _clusters(graph: nx.DiGraph[Any]) -> list[str]:
    paths: dict[tuple[str, ...], list[str]] = {}
    for name, data in graph.nodes(data=True):
        if data["plates"]:
            paths.setdefault(data["plates"], []).append(_dot_text(f"{graph.name}:{name}"))
    lines = []
    for k, (path, names) in enumerate(paths.items()):
        for depth, plate in enumerate(path):
            number = f"{graph.name}_{k}_{depth}"
            lines.append(f"    subgraph cluster_{number} {{ label={_dot_text(plate)};")
        lines.append(f"      {'; '.join(names)}; {'}' * len(path)}")
    return lines


def _dot_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
