"""Which kept location-scale latents are met through standard noise, and why.

Where few data inform an element, its posterior is as narrow as its prior's scale lets it be, and
the two make a funnel: the non-centred form is the better one. Where many do, the data fix the
element and the non-centred form is the one with the ridge (Papaspiliopoulos, Roberts & Sköld
2007; Betancourt & Girolami 2015).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np
import numpyro.distributions as dist

from autmarg.analysis.families.location_scale import NotLocationScale, as_location_scale
from autmarg.errors import Refusal, RequestError, did_you_mean, named
from autmarg.ir.nodes import Factor, Node, Observe, Param, Sample, base_of, decentered
from autmarg.ir.program import Program
from autmarg.plan.informed import Information, information
from autmarg.plan.select import Request

_ANCESTRAL = "integrated parent"
INFORMED = 150  # rows for each element from which the form as written is kept; see docs/design.md
_TRIALS = (dist.BinomialLogits, dist.BinomialProbs)


@dataclass(frozen=True)
class Centring:
    """Whether a kept location-scale latent is non-centred or stays as written, and why."""

    noncentred: bool
    why: str


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms in which the latents of a program are best sampled.

    ``found`` holds what has been found out about their data.
    """

    program: Program
    request: Request
    found: dict[str, Information | None] = field(default_factory=dict)

    def centrings(
        self, integrated: Collection[str], sampled: Mapping[str, bool]
    ) -> dict[str, Centring]:
        """The decision for every kept latent that could be re-expressed.

        ``sampled`` are sites that could be integrated out, and whether their being sampled was
        weighed in the non-centred form.

        Raises:
            RequestError: a name asked for cannot be non-centred.
        """
        program, asked = self.program, self.request.reparameterize
        if asked == "off":
            return {}
        objections = {
            n.name: next(_objections(program, n, integrated), None) for n in program.latents
        }
        if isinstance(asked, tuple):
            _check_request(program, objections, asked)
        choices = {}
        for node in program.latents:
            objection = objections[node.name]
            if objection is None and asked == "auto" and node.name in sampled:
                noncentred = sampled[node.name]
                why = "non-centred" if noncentred else "as written: the data know its elements well"
                choices[node.name] = Centring(noncentred, why)
            elif objection is None:
                choices[node.name] = self._decide(node)
            elif objection.rule == _ANCESTRAL:
                choice = self._decide(node)
                why = f"as written: {objection}" if choice.noncentred else choice.why
                choices[node.name] = Centring(False, why)
        return choices

    def blocking(self, members: Collection[Sample]) -> dict[str, Refusal]:
        """Members that are better sampled, since a latent that reads them is best non-centred.

        A kept latent x = loc + scale · z whose loc reads a member that is integrated out cannot be
        sampled through z. Where the data say little about its elements, their funnel with a sampled
        scale costs more than the dimensions of its mean (48 groups of one to three binomial trials:
        an effective size of 14 for the scale, instead of 673).
        """
        names = {m.name for m in members}
        found: dict[str, Refusal] = {}
        for node in self.program.latents:
            above = sorted(node.parents & names)
            asked = {*self.request.keep, *names}
            if node.name in asked or not above or self.request.reparameterize == "off":
                continue
            if node.parents <= names:
                continue  # its scale is known: there is no funnel
            if next(_objections(self.program, node, ()), None) is not None:
                continue
            choice = self._decide(node)
            for name in above if choice.noncentred else ():
                words = f"'{name}' enters the mean of '{node.name}', which is {choice.why}"
                remedy = "marginalize='all' integrates it out all the same"
                found.setdefault(name, Refusal(name, "form", words, node.place, remedy))
        return found

    def _decide(self, node: Sample) -> Centring:
        asked = self.request.reparameterize
        if asked != "auto":
            requested = asked == "noncentred" or node.name in asked
            return Centring(requested, f"{'non-centred' if requested else 'as written'} on request")
        children = self.program.children(node.name)
        rows = sum(_rows(self.program, child) for child in children) / node.size
        words = f"{rows:,.3g} row{'s' if rows != 1 else ''} for each element"
        if rows < INFORMED and (known := self._information(node)) is not None:
            differ = "differ" if known.plain else "hardly differ"
            return _centring(
                not known.plain, f"{words}, which {differ} in the data (F = {known.ratio:.3g})"
            )
        observed = (child for child in children if isinstance(child, Observe))
        counted = sum(_counted(self.program, child) for child in observed) / node.size
        if rows < INFORMED <= counted:
            words = f"{counted:,.3g} trials or events for each element"
        return _centring(max(rows, counted) < INFORMED, words)

    def _information(self, node: Sample) -> Information | None:
        if node.name not in self.found:
            self.found[node.name] = information(self.program, node)
        return self.found[node.name]


def _centring(noncentred: bool, words: str) -> Centring:
    return Centring(noncentred, f"{'non-centred' if noncentred else 'as written'}: {words}")


def _rows(program: Program, child: Node) -> int:
    """Elements of a reader of a latent."""
    return (
        math.prod(program.tape.avals[child.value].shape)
        if isinstance(child, Factor)
        else child.size
    )


def _counted(program: Program, child: Observe) -> float:
    """Trials of a binomial site, events of a Poisson one; 0 where they are not known.

    A binomial of n trials informs as n Bernoulli rows do, and a Poisson of mean n as n of mean one.
    """
    known, spec = program.tape.constants, child.distribution
    leaves = [known.get(v, program.tape.avals[v]) for v in spec.values]
    family, value = base_of(spec.unflatten(leaves)), known.get(child.value)
    if isinstance(family, _TRIALS) and isinstance(family.total_count, int | float | np.ndarray):
        return float(np.broadcast_to(family.total_count, child.shape).sum())
    if isinstance(family, dist.Poisson) and isinstance(value, np.ndarray):
        return float(value.sum())
    return 0.0


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
