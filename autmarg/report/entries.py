"""The lines of a plan: what happens to every site, why, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autmarg.aggregation.density import AddedRows
from autmarg.analysis.naming import spoken
from autmarg.errors import Refusal
from autmarg.ir.nodes import (
    QUADRATURE,
    Ancestral,
    Deterministic,
    Marginal,
    Node,
    NonCentred,
    Observe,
    Recover,
    Sample,
    StandIn,
)
from autmarg.ir.program import Program
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.plan import Plan

NOT_READ = "reads no integrated site"


@dataclass(frozen=True)
class Entry:
    """One line of the plan: a site, what happens to it, why, and how.

    ``size`` is a latent's unconstrained dimensions, the elements of an observed site or of one that
    is summed over; ``reason`` is why at length, for a latent that is sampled.
    """

    site: str
    size: int
    action: str
    why: str
    structure: str = ""
    cost: str = ""
    reason: str = ""


def entries(plan: Plan) -> Iterator[Entry]:
    """One for each site that has a density or a value, in program order."""
    program, after = plan.program, plan.rewritten or plan.program
    groups = {m.name: g for g in plan.groups for m in g.members}
    joined = {group.name: c.name for c in plan.conjugacies for group in c.groups}
    recover = {m.name: n for n in after.nodes if isinstance(n, Recover) for m in n.members}
    marginals = [n for n in after.nodes if isinstance(n, Marginal)]
    density = {site: n for n in marginals for site in (*n.children, *(o.name for o in n.observed))}
    members = {n.marginal: n.integrated for n in after.nodes if isinstance(n, Recover)}
    noise = {n.marginal: n.noise for n in after.nodes if isinstance(n, Recover)}
    for node in program.nodes:
        if isinstance(node, Observe):
            marginal = density.get(node.name)
            yield Entry(node.name, node.size, *_observed(marginal, members, noise))
        elif isinstance(node, Sample):
            size, how = node.dimensions(program.tape), recover.get(node.name)
            if how is None and not size and node.is_summed_over(program.tape):
                why = "discrete, with finitely many values: NumPyro's HMC sums over them"
                yield Entry(node.name, node.size, "summed over", why)
            elif how is None:
                action, why, reason = _kept(plan, after, node)
                yield Entry(node.name, size, action, why, reason=reason)
            elif node.name in groups and how.marginal in _names(groups[node.name], joined):
                yield _member_entry(program, node, size, groups[node.name], how)
            else:
                yield Entry(node.name, size, "integrated out", how.why, how.rule)
        elif isinstance(node, Deterministic):
            later = node.parents & set(recover)
            why = f"reads {', '.join(sorted(later))}" if later else NOT_READ
            yield Entry(node.name, 0, "after recovery" if later else "computed", why)
    for node in after.nodes:
        if isinstance(node, Recover) and node.noise:
            why = f"standard noise, which makes {', '.join(node.integrated)}"
            yield Entry(node.noise, plan.noise[node.noise], "sampled", why)


def _names(group: ScheduledGroup, joined: Mapping[str, str]) -> tuple[str, ...]:
    """What the node of a group's marginal may be called: also that of a conjugacy it is part of."""
    return group.name, joined.get(group.name, group.name)


def _observed(
    marginal: Marginal | None, members: Mapping[str, tuple[str, ...]], noise: Mapping[str, str]
) -> tuple[str, str]:
    """What happens to an observed site, and why."""
    if marginal is None:
        return "observed", NOT_READ
    if noise.get(marginal.name):
        return "observed", f"given {', '.join(members[marginal.name])}"
    if gone := members.get(marginal.name):
        return "observed, marginal", f"given {', '.join(gone)}"
    if isinstance(marginal.density, AddedRows):
        saved = f"{marginal.density.saved:,.0f} times less work than all rows"
        return "observed, equal rows once", saved
    return "observed, cross-products", "mean affine in sampled latents"


def _kept(plan: Plan, after: Program, node: Sample) -> tuple[str, str, str]:
    """What happens to a latent that is not integrated out, and why, in short and at length."""
    if node.name not in after:
        return "removed", f"by {', '.join(s.name for s in plan.history if node in s.changed)}", ""
    refusals = [r for r in plan.refusals if r.site == node.name]
    action, why = "sampled", [_short(r, node) for r in refusals]
    if isinstance(after[node.name], Ancestral):
        action = "sampled, density in marginal"
    if isinstance(after[node.name], NonCentred):
        action = "sampled, non-centred"
    if choice := plan.centrings.get(node.name):
        why.append(choice.why)
    reasons = [*map(str, refusals), *why[len(refusals) :]]
    return action, "; ".join(why), "; ".join(reasons)


def _short(refusal: Refusal, node: Sample) -> str:
    """A reason in two or three words."""
    if refusal.rule in ("non-Gaussian prior", "not conjugate"):
        return f"{spoken(node.distribution.kind)} prior"
    return {"cost": "cheaper sampled", "form": "mean of a non-centred site"}.get(
        refusal.rule, refusal.rule
    )


def _member_entry(
    program: Program, node: Sample, size: int, group: ScheduledGroup, recover: Recover
) -> Entry:
    action = "whitened" if recover.noise else "integrated out"
    if recover.rule == QUADRATURE:
        why, density = _affine_readers(program, group, node), recover.density
        level = [m.name for m in density.members].index(node.name)
        nodes = density.nodes ** (len(density.members) - level)
        how = f"quadrature, {density.nodes} nodes"
        return Entry(node.name, size, action, why, how, f"{nodes:,} densities of its rows")
    member = next(m for m in group.schedule.form.members if m.name == node.name)
    for k, stage in enumerate(group.schedule.stages, start=1):
        if (stage.columns.reshape(-1) == member.offset).any():
            why = _affine_readers(program, group, node)
            cost = stage.cost
            how = f"{k}: {cost.structure}"
            return Entry(node.name, size, action, why, how, str(cost))
    raise AssertionError(f"no stage eliminates {node.name}")


def _affine_readers(program: Program, group: ScheduledGroup, node: Node) -> str:
    """Which means, and which observed values, are affine in a member."""
    sites = (*group.members, *group.children, *group.observed)
    readers = [n for n in sites if node.name in n.parents]
    stood_in = {n.original.name: None for n in readers if isinstance(n, StandIn)}
    readers = [n for n in readers if not isinstance(n, StandIn)]
    values = [
        n.name
        for n in readers
        if isinstance(n, Observe) and node.name in program.tape.dependencies([n.value])
    ]
    means = [n.name for n in readers if n.name not in values]
    parts = [
        f"{what} of {', '.join(of)}"
        for what, of in (("mean", means), ("value", values), ("predictor", [*stood_in]))
        if of
    ]
    return f"{' and '.join(parts)} affine in it" if parts else "no other density reads it"
