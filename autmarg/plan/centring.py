"""Which kept location-scale latents are met through standard noise, and why.

Where few data inform an element, its posterior is as narrow as its prior's scale lets it be, and
the two make a funnel: the non-centred form is the better one. Where many do, the data fix the
element and the non-centred form is the one with the ridge (Papaspiliopoulos, Roberts & Sköld
2007; Betancourt & Girolami 2015).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from autmarg.analysis.informed import Information, information
from autmarg.analysis.noncentring import ANCESTRAL, counted, refusals, rows_of
from autmarg.errors import Refusal, RequestError, did_you_mean
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.plan.select import Request

INFORMED = 150  # rows for each element from which the form as written is kept; see docs/design.md


@dataclass(frozen=True)
class Centring:
    """Whether a kept location-scale latent is non-centred or stays as written, and why."""

    noncentred: bool
    why: str


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms in which the latents of a program are best sampled.

    ``informed`` holds what has been asked of their data so far.
    """

    program: Program
    request: Request
    informed: dict[str, Information | None] = field(default_factory=dict)

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
        found = {n.name: next(refusals(program, n, integrated), None) for n in program.latents}
        if isinstance(asked, tuple):
            _check_request(program, found, asked)
        choices = {}
        for node in program.latents:
            refusal = found[node.name]
            if refusal is None and asked == "auto" and node.name in sampled:
                noncentred = sampled[node.name]
                why = "non-centred" if noncentred else "as written: the data know its elements well"
                choices[node.name] = Centring(noncentred, why)
            elif refusal is None:
                choices[node.name] = self._decide(node)
            elif refusal.rule == ANCESTRAL:
                choice = self._decide(node)
                why = f"as written: {refusal}" if choice.noncentred else choice.why
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
            if next(refusals(self.program, node, ()), None) is not None:
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
        rows = sum(rows_of(self.program, child) for child in children) / node.size
        words = f"{rows:,.3g} row{'s' if rows != 1 else ''} for each element"
        if rows < INFORMED and (known := self._information(node)) is not None:
            differ = "differ" if known.plain else "hardly differ"
            return _centring(
                not known.plain, f"{words}, which {differ} in the data (F = {known.ratio:.3g})"
            )
        observed = (child for child in children if isinstance(child, Observe))
        events = sum(counted(self.program, child) for child in observed) / node.size
        if rows < INFORMED <= events:
            words = f"{events:,.3g} trials or events for each element"
        return _centring(max(rows, events) < INFORMED, words)

    def _information(self, node: Sample) -> Information | None:
        if node.name not in self.informed:
            self.informed[node.name] = information(self.program, node)
        return self.informed[node.name]


def _centring(noncentred: bool, words: str) -> Centring:
    return Centring(noncentred, f"{'non-centred' if noncentred else 'as written'}: {words}")


def _check_request(
    program: Program, refusals: dict[str, Refusal | None], names: tuple[str, ...]
) -> None:
    for name in names:
        if name not in refusals:
            raise RequestError(
                f"'{name}' is not a latent site of model '{program.name}'"
                f"{did_you_mean(name, refusals)}; expected one of {', '.join(refusals)}"
            )
    failed = tuple(r for n in names if (r := refusals[n]) is not None)
    if failed:
        raise RequestError(f"cannot non-centre {list(names)}, as reparameterize asks:", failed)
