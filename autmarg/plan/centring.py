"""Which kept location-scale latents are met through standard noise, and why.

Where few data inform an element, its posterior is as narrow as its prior's scale lets it be, and
the two make a funnel: the non-centred form is the better one. Where many do, the data fix the
element and the non-centred form is the one with the ridge (Papaspiliopoulos, Roberts & Sköld
2007; Betancourt & Girolami 2015).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import jax
import numpy as np

from autmarg.analysis.families.location_scale import NotLocationScale, as_location_scale
from autmarg.errors import Refusal, RequestError, did_you_mean, named
from autmarg.ir.nodes import Factor, Param, Sample, decentered
from autmarg.ir.program import Program
from autmarg.plan.select import Request

_ANCESTRAL = "integrated parent"
INFORMED = 150  # rows for each element from which the form as written is kept; see docs/design.md


@dataclass(frozen=True)
class Centring:
    """Whether a kept location-scale latent is non-centred or stays as written, and why."""

    noncentred: bool
    why: str


def centrings(
    program: Program,
    integrated: Collection[str],
    request: Request,
    sampled: Collection[str] = (),
) -> dict[str, Centring]:
    """The decision for every kept latent that could be re-expressed.

    Those ``sampled`` though they could be integrated out are met through standard noise, which is
    what their being sampled was weighed with.

    Raises:
        RequestError: a name asked for cannot be non-centred.
    """
    asked = request.reparameterize
    if asked == "off":
        return {}
    objections = {n.name: next(_objections(program, n, integrated), None) for n in program.latents}
    if isinstance(asked, tuple):
        _check_request(program, objections, asked)
    choices = {}
    for node in program.latents:
        objection = objections[node.name]
        if objection is None and asked == "auto" and node.name in sampled:
            choices[node.name] = Centring(True, "non-centred")
        elif objection is None:
            choices[node.name] = _decide(program, node, asked)
        elif objection.rule == _ANCESTRAL:
            choices[node.name] = Centring(False, f"as written: {objection}")
    return choices


def _decide(program: Program, node: Sample, asked: str | tuple[str, ...]) -> Centring:
    if asked != "auto":
        requested = asked == "noncentred" or node.name in asked
        return Centring(requested, f"{'non-centred' if requested else 'as written'} on request")
    rows = _rows(program, node) / node.size
    noncentred = rows < INFORMED
    form = "non-centred" if noncentred else "as written"
    return Centring(noncentred, f"{form}: {rows:,.3g} rows for each element")


def _rows(program: Program, node: Sample) -> int:
    """Elements of all sites whose density reads the latent."""
    children = program.children(node.name)
    terms = [program.tape.avals[c.value] for c in children if isinstance(c, Factor)]
    return sum(c.size for c in children) + sum(int(np.prod(t.shape)) for t in terms)


def _objections(program: Program, node: Sample, integrated: Collection[str]) -> Iterator[Refusal]:
    """Reasons why a latent cannot be re-expressed, the most basic first."""
    name, place = node.name, node.place
    for obstacle in program.obstacles:
        yield Refusal(name, obstacle.rule, obstacle.reason, obstacle.place)
    if name in integrated:
        yield Refusal(name, "integrated", f"'{name}' is integrated out, not sampled", place)
    spec = node.distribution
    try:
        leaves = [program.tape.avals[v] for v in spec.values]
        jax.eval_shape(lambda *a: as_location_scale(spec.unflatten(a)).loc, *leaves)
    except NotLocationScale as found:
        reason = f"'{name}' is {found}, not a location-scale family"
        yield Refusal(name, "family", reason, place)
    if node.scale is not None:
        yield Refusal(name, "scale handler", f"'{name}' is under handlers.scale", place)
    if node.scanned:
        yield Refusal(name, "scan", f"'{name}' is sampled in a scan", place)
    if node.size == 0:
        yield Refusal(name, "empty site", f"'{name}' has no elements", place)
    if decentered(name) in program:
        reason = f"'{name}' needs the name '{decentered(name)}', which another site has"
        yield Refusal(name, "name", reason, place)
    read = [program[p] for p in sorted(node.parents) if p in program]
    if not any(isinstance(p, Sample | Param) for p in read):
        reason = f"'{name}' has a constant prior, so that it is the same in either form"
        yield Refusal(name, "constant prior", reason, place)
    if gone := [p.name for p in read if p.name in integrated]:
        reason = f"its prior reads {named(gone)}, which autmarg integrates out"
        yield Refusal(name, _ANCESTRAL, reason, remedy=f"keep={gone} allows the non-centred form")
    for parent in read:
        if isinstance(parent, Sample) and not np.issubdtype(parent.dtype, np.floating):
            reason = f"'{name}' has a prior that reads the discrete site '{parent.name}'"
            yield Refusal(name, "discrete parent", reason, place)


def _check_request(
    program: Program, objections: dict[str, Refusal | None], names: tuple[str, ...]
) -> None:
    for name in names:
        if name not in objections:
            raise RequestError(
                f"'{name}' is not a latent site of model '{program.name}'"
                f"{did_you_mean(name, objections)}; expected one of {', '.join(objections)}"
            )
    failed = tuple(r for n in names if (r := objections[n]) is not None)
    if failed:
        raise RequestError(f"cannot non-centre {list(names)}, as reparameterize asks:", failed)
