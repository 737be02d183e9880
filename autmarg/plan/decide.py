"""The decision in three steps: judge every latent, choose what pays, schedule what goes.

Each step takes the value that the one before it returns: a :class:`Draft`, a :class:`Chosen` draft,
and last the :class:`~autmarg.plan.plan.Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autmarg.analysis.admissible import Admissible, Facts, admissible
from autmarg.analysis.needed import complete
from autmarg.analysis.rules.base import NotWritten
from autmarg.conjugacy.search import conjugacies
from autmarg.errors import Refusal, RequestError
from autmarg.gaussian.flat import undetermined
from autmarg.ir.program import Program
from autmarg.plan.centring import Forms
from autmarg.plan.choose import Choice
from autmarg.plan.groups import Group, groups_of
from autmarg.plan.outlook import Outlook
from autmarg.plan.plan import Plan
from autmarg.plan.select import Request, Selection, select


@dataclass(frozen=True, eq=False)
class Draft:
    """What would be integrated out, before it has an order of elimination.

    Attributes:
        facts: what is known of the program.
        request: what the user asked for.
        linear: the request without the names that only a rule could integrate out.
        judged: which latents can be integrated out, and why others cannot.
        forms: the forms in which kept latents are best sampled.
        sampled: latents that could be integrated out and are better sampled → why.
        selection: the members, and why each other latent is sampled.
        groups: the members in connected sets, their means written out.
    """

    facts: Facts
    request: Request
    linear: Request
    judged: Admissible
    forms: Forms
    sampled: Mapping[str, Refusal] = field(default_factory=dict)
    selection: Selection = field(default_factory=lambda: Selection((), {}))
    groups: tuple[Group, ...] = ()

    @property
    def program(self) -> Program:
        """The program, normalised."""
        return self.facts.normalised.program


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is integrated out.

    Attributes:
        draft: without the members that are better sampled.
        outlook: what the program costs with and without them.
        choices: these members → the choice that says so.
    """

    draft: Draft
    outlook: Outlook
    choices: Mapping[str, Choice]


def judge(facts: Facts, request: Request) -> Draft:
    """The largest set of latents that can be integrated out, as far as it is asked for.

    Raises:
        RequestError: a request cannot be met.
        ModelError: the data contradict the model (an index out of range, NaN among the data).
    """
    judged = admissible(facts)
    forms = Forms(facts.normalised.program, request)
    return _settled(Draft(facts, request, _linear(request, judged), judged, forms))


def choose(draft: Draft) -> Chosen:
    """The draft without the members that, under "auto", cost more than they are worth.

    Raises:
        RequestError, ModelError: as for :func:`judge`.
    """
    outlook = Outlook.of(draft.facts, draft.request, draft.groups)
    choices = outlook.chosen() if draft.request.marginalize == "auto" else {}
    if choices:
        dear = {name: choice.refusal(name) for name, choice in choices.items()}
        draft = _settled(replace(draft, sampled={**draft.sampled, **dear}))
    return Chosen(draft, outlook, choices)


def schedule(chosen: Chosen) -> Plan:
    """The plan: each group with its order of elimination, then rules, and forms for the rest.

    Raises:
        RequestError: a group is beyond the budget of memory, or a request cannot be met.
    """
    draft, request, program = chosen.draft, chosen.draft.request, chosen.draft.program
    groups = tuple(group.scheduled(request.chains) for group in draft.groups)
    gone = {m.name for m in draft.selection.members}
    names = {n.name for n in program.latents} - gone - {*request.keep, *draft.sampled}
    if isinstance(request.marginalize, tuple):
        names &= set(request.marginalize)
    conjugate, reasons = conjugacies(draft.facts.normalised, names, groups)
    gone |= {c.member.name for c in conjugate}
    refused = {**draft.selection.refusals, **reasons}
    asked = request.nongaussian
    refusals = tuple(
        complete(refused[n.name], program, asked) for n in program.latents if n.name not in gone
    )
    _check_request(request, refusals)
    noncentred = {name: name not in c.as_written for name, c in chosen.choices.items()}
    centrings = draft.forms.centrings(gone, noncentred)
    predicted = chosen.outlook.predictions(chosen.choices, conjugate)
    return Plan(program, groups, conjugate, refusals, centrings, predicted)


def _settled(draft: Draft) -> Draft:
    """The draft with members whose means are written out and whose posterior is proper.

    Every turn but the last refuses latents, so that there is an end.
    """
    auto = draft.request.marginalize == "auto"
    while True:
        selection = select(draft.program, draft.judged, draft.linear, draft.sampled)
        if auto and (blocked := draft.forms.blocking(selection.members)):
            draft = replace(draft, sampled={**draft.sampled, **blocked})
            continue
        groups = groups_of(draft.facts, selection.members)
        if isinstance(groups, NotWritten):
            draft = replace(draft, judged=draft.judged.without(groups))
        elif free := frozenset().union(*(undetermined(group.system.form) for group in groups)):
            draft = replace(draft, judged=draft.judged.without_flat(free))
        else:
            return replace(draft, selection=selection, groups=groups)


def _linear(request: Request, judged: Admissible) -> Request:
    """The request without the names that only a rule could integrate out."""
    asked = request.marginalize
    if isinstance(asked, str):
        return request
    return replace(request, marginalize=tuple(n for n in asked if n not in judged.refusals))


def _check_request(request: Request, refusals: tuple[Refusal, ...]) -> None:
    asked = request.marginalize if isinstance(request.marginalize, tuple) else ()
    # A site without elements has nothing to integrate: what asks for it is met.
    failed = tuple(r for r in refusals if r.site in asked and r.rule != "empty site")
    if failed:
        raise RequestError(f"cannot integrate out {list(asked)}, as marginalize asks:", failed)


__all__ = ["Chosen", "Draft", "choose", "judge", "schedule"]
