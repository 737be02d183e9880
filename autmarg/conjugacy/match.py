"""Where a program has a conjugacy: one latent whose every reader is a child that a rule knows.

A child reads x only through the argument that the rule has it in, is observed, and counts once;
nothing else that has a density reads x. Whatever else there is may depend on other latents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autmarg.analysis.naming import a, located, uses
from autmarg.analysis.sites import Normalised
from autmarg.conjugacy.child import Match, fit
from autmarg.conjugacy.families import FAMILIES, Family
from autmarg.conjugacy.monomial import NoMatch
from autmarg.conjugacy.proof import prove
from autmarg.conjugacy.reading import BUILDERS, OFF_BY, READERS, arguments_of, class_of
from autmarg.conjugacy.registry import rules
from autmarg.conjugacy.shared import GaussianGroup, Shared, shared
from autmarg.conjugacy.statistics import update_of
from autmarg.conjugacy.unread import is_normalised, is_unread
from autmarg.conjugacy.update import ChildStatistics, ConjugateUpdate
from autmarg.errors import Refusal, named
from autmarg.ir.nodes import Deterministic, Factor, Node, Observe, Sample, of_sites
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape


@dataclass(frozen=True, eq=False)
class Conjugacy:
    """A latent with its observed children, and how these update its prior.

    Attributes:
        member: the latent.
        observed: its children, in program order, with those of Gaussian marginals that share it.
        update: by the rules; None for a member that nothing reads.
    """

    member: Sample
    observed: tuple[Observe, ...]
    update: ConjugateUpdate | None

    @property
    def groups(self) -> tuple[GaussianGroup, ...]:
        """The Gaussian marginals that share the member."""
        return tuple(each.group for each in self._shared_with)

    @property
    def _shared_with(self) -> tuple[Shared, ...]:
        return () if self.update is None else self.update.shared

    @property
    def name(self) -> str:
        """The name of the marginal node."""
        return of_sites("marginal", self.observed or (self.member,))

    @property
    def rule(self) -> str:
        """Which rules, and over how many rows, for the plan."""
        if self.update is None:
            return "drawn from its prior"
        found = [f"{s.rule.title} rule, {_pairs(s)}" for s in self.update.children]
        for each in self._shared_with:
            found.append(
                f"{each.rule.title} rule, {each.rows:,} rows shared with {', '.join(each.names)}"
            )
        return "; ".join(found)

    @property
    def why(self) -> str:
        """For the plan."""
        if self.update is None:
            return "no other density reads it"
        return f"conjugate to {', '.join(s.name for s in self.observed)}"


def _pairs(statistics: ChildStatistics) -> str:
    elements = len(np.unique(statistics.rows))
    rows = len(statistics.rows)
    return f"{rows:,} pairs" if rows == elements else f"{rows:,} rows of {elements:,}"


def conjugacies(
    normalised: Normalised, names: Collection[str], groups: Sequence[GaussianGroup]
) -> tuple[tuple[Conjugacy, ...], dict[str, Refusal]]:
    """Conjugacies among the latents ``names``, and why the others have none.

    Of two latents that share a child the larger one is taken. Latents whose prior no rule has are
    not spoken of.

    Args:
        normalised: the program.
        names: latents that may be integrated out.
        groups: Gaussian marginals, to which sites belong already.
    """
    program, found, refusals = normalised.program, [], {}
    left = {node.name: group for group in groups for node in group.sites}
    taken: dict[str, str] = {}  # relative clauses that say where a site's density went
    order = {n.name: k for k, n in enumerate(program.latents)}
    latents = [n for n in program.latents if n.name in names and not program.obstacles]
    for latent in sorted(latents, key=lambda n: (-n.size, order[n.name])):
        family = next(_prior_families(program, latent), None)
        unread = is_unread(program, latent) and is_normalised(program, latent)
        if family is None and not unread:
            continue
        try:
            conjugacy = _conjugacy(normalised, latent, family, taken, left)
        except _Refused as refused:
            refusals[latent.name] = refused.refusal
            continue
        found.append(conjugacy)
        taken[latent.name] = "which autmarg integrates out"
        words = f"from whose density autmarg integrates out '{latent.name}' already"
        taken |= {site.name: words for site in conjugacy.observed}
        for node in (n for group in conjugacy.groups for n in group.sites):
            taken[node.name] = words
            del left[node.name]
    return tuple(sorted(found, key=lambda c: order[c.member.name])), refusals


def _words(group: GaussianGroup) -> str:
    """A relative clause for a site whose density is part of a Gaussian marginal."""
    return f"from whose density autmarg integrates out {named([m.name for m in group.members])}"


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _prior_families(program: Program, latent: Sample) -> Iterator[Family]:
    """Families of the latent's prior that some rule has for its prior."""
    wanted = {rule.prior.family.name for rule in rules()}
    for name in sorted(wanted & set(READERS.get(class_of(program, latent), ())) & set(BUILDERS)):
        try:
            arguments_of(program.tape, latent, FAMILIES[name])
        except NoMatch:
            continue
        yield FAMILIES[name]


def _conjugacy(
    normalised: Normalised,
    latent: Sample,
    family: Family | None,
    taken: Mapping[str, str],
    left: Mapping[str, GaussianGroup],
) -> Conjugacy:
    """The conjugacy of one latent; ``left`` are sites of Gaussian marginals that it may share.

    ``family`` is that of its prior, or None where no rule has it and nothing reads the latent.

    Raises:
        _Refused: there is none.
    """
    program, name, place = normalised.program, latent.name, latent.place

    def refused(
        reason: str,
        at: Any = place,
        nearest: str = "conjugacy",
        culprit: str = "",
    ) -> _Refused:
        kind = a(latent.distribution.kind)
        words, use = f"'{name}' is {kind}, not Gaussian", ""
        if reason.startswith("it "):
            use = reason.removeprefix("it ")
        else:
            words = f"{words}, and {reason}, so it is sampled"
        return _Refused(
            Refusal(name, "not conjugate", words, at, "", nearest, culprit=culprit, use=use)
        )

    for condition, reason in (
        (latent.scale is not None, "it is under handlers.scale"),
        (latent.scanned, "it is sampled in a scan"),
        (latent.size == 0, "it has no elements"),
        (name in latent.parents, "it reads its own past"),
    ):
        if condition:
            raise refused(reason)
    others = {**{n: _words(group) for n, group in left.items()}, **taken}
    others |= {m.name: "which autmarg integrates out" for b in left.values() for m in b.members}
    if above := sorted(latent.parents & set(others)):
        raise refused(f"its prior reads '{above[0]}', {others[above[0]]}")
    readers = [c for c in program.children(name) if not isinstance(c, Deterministic)]
    if not readers and is_normalised(program, latent):
        return Conjugacy(latent, (), None)
    if not readers or family is None:
        raise refused("no site with a density reads it")
    groups = tuple(dict.fromkeys(left[c.name] for c in readers if c.name in left))
    readers = [c for c in readers if c.name not in left]
    for child in readers:
        if reason := _reason_against(program, name, child, others):
            raise refused(reason, child.place)
    try:
        tape, parameters, masks = arguments_of(program.tape, latent, family)
        if masks:
            raise NoMatch("it is under a mask")
    except NoMatch as mismatch:
        raise refused(str(mismatch)) from mismatch
    matches = []
    for child in readers:
        assert isinstance(child, Observe)
        tape, match = _child(normalised, tape, latent, family, child, refused)
        matches.append(match)
    joined = tuple(_shared(normalised, latent, family, group, refused) for group in groups)
    update = replace(update_of(tape, latent, family, parameters, matches), shared=joined)
    names = {m.site.name for m in matches} | {n.name for g in groups for n in g.observed}
    return Conjugacy(latent, tuple(n for n in program.observed if n.name in names), update)


def _shared(
    normalised: Normalised, latent: Sample, family: Family, group: GaussianGroup, refused: Any
) -> Shared:
    """The first rule by which a Gaussian marginal shares the latent."""
    words, at, nearest = f"it {uses(normalised, latent.name)}", latent.place, "conjugacy"
    for rule in rules():
        if rule.prior.family != family:
            continue
        try:
            found = shared(normalised.program.tape, latent, group, normalised.gaussian, rule)
        except NoMatch as mismatch:
            if mismatch.near:
                words, at = f"{words}, but {mismatch}", mismatch.place or latent.place
                nearest = f"{rule.title}, shared by a Gaussian marginal"
            continue
        prove(rule)
        return found
    raise refused(words, at, nearest)


def _reason_against(program: Program, name: str, child: Node, taken: Mapping[str, str]) -> str:
    """Why a rule cannot have a reader of a latent for its child, or ""."""
    read_by = f"it is read by {located(child)}"
    if isinstance(child, Factor):
        return f"it enters numpyro.factor {located(child)}"
    if not isinstance(child, Observe):
        return f"{read_by}, which is not observed"
    if child.name in taken:
        return f"{read_by}, {taken[child.name]}"
    if child.scale is not None:
        return f"{read_by}, which is under handlers.scale"
    latents = {n.name for n in program.latents}
    if program.tape.dependencies([child.value]) & latents:
        return f"{read_by}, whose observed value depends on a latent"
    if above := sorted(child.parents & set(taken)):
        return f"{read_by}, which also reads '{above[0]}', {taken[above[0]]}"
    return ""


def _child(
    normalised: Normalised,
    tape: Tape,
    latent: Sample,
    family: Family,
    child: Observe,
    refused: Any,
) -> tuple[Tape, Match]:
    """The first rule that fits."""
    kind, at = class_of(normalised.program, child), child.place
    words, nearest, culprit = f"it {uses(normalised, latent.name)}", "conjugacy", ""
    gaussian = child.name in normalised.gaussian
    if not gaussian:
        words = f"no rule integrates it out of {located(child)}, {a(child.distribution.kind)}"
    for rule in rules():
        if rule.prior.family != family or rule.child.family.name not in READERS.get(kind, ()):
            continue
        try:
            found = fit(tape, latent, child, rule, OFF_BY.get(kind))
        except NoMatch as mismatch:
            if gaussian and not mismatch.near:  # of a standard deviation no rule speaks
                continue
            words = f"the {rule.title} rule does not fit {located(child)}: {mismatch}"
            at, nearest = mismatch.place or child.place, rule.title
            culprit = "" if mismatch.equation is None else mismatch.equation.name
            continue
        prove(rule)
        return found
    raise refused(words, at, nearest, culprit=culprit)
