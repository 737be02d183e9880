"""Put Gaussian stand-ins in the place of sites that are not Gaussian, their pseudo-data fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from autmarg.analysis.admissible import Facts, facts_of
from autmarg.analysis.needed import no_mode
from autmarg.analysis.sites import normalise
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import of_sites
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import originals
from autmarg.plan.choose import takes_long, takes_whitened
from autmarg.plan.decide import choose, judge, schedule
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.outlook import Outlook
from autmarg.plan.plan import Plan
from autmarg.plan.select import Request, check_under
from autmarg.whitening.density import WhitenedMarginal
from autmarg.whitening.fit import Fit, faint, is_known
from autmarg.whitening.predictors import Likelihood, likelihoods, whitenable
from autmarg.whitening.surrogate import with_stand_ins


def density_of(program: Program, group: ScheduledGroup) -> WhitenedMarginal:
    """The density of a group with stand-ins."""
    return WhitenedMarginal(
        program.tape, group.members, (*group.children, *originals(group.observed)),
        GaussianMarginal.of(group),
        of_sites("noise", group.members),
        tuple((n.original.name, n.predictor) for n in group.stand_ins),
    )  # fmt: skip


def planned(program: Program, request: Request) -> Plan:
    """The plan of a program with stand-ins: all of what can be integrated out of it."""
    asked = request.marginalize
    request = replace(request, marginalize="all" if asked == "auto" else asked)
    return schedule(choose(judge(facts_of(normalise(program)), request)))


@dataclass(frozen=True)
class Whiten:
    """Write a stand-in for each observed site that is not Gaussian but reads Gaussian latents.

    'detect' then finds what can be integrated out of the program with stand-ins, and 'marginalise'
    puts standard noise in its place.
    """

    request: Request = field(default_factory=Request)
    name = "whiten"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program with stand-ins, if there is anything to stand in for."""
        if not self.is_asked or program.obstacles:
            return
        check_under(program, self.request)
        normalised = normalise(program)
        facts = facts_of(normalised)
        sites = self._likelihoods(facts)
        fit = self._fit(facts, sites) if sites else None
        mode = fit.run() if fit is not None else None
        if fit is not None and mode is not None:
            yield with_stand_ins(normalised.program, fit.likelihoods, mode.pseudo)
        elif fit is not None:
            members = {m.name for each in fit.densities for m in each.members}
            yield replace(program, unmet=dict.fromkeys(members, no_mode("whiten")))

    def names(self, program: Program) -> dict[str, tuple[str, ...]]:
        """Sites of noise → what would be functions of each, were its latents whitened.

        Args:
            program: its data need not be known.
        """
        if not self.is_asked or program.obstacles:
            return {}
        facts = facts_of(normalise(program))
        plan = self._sketched(facts, self._likelihoods(facts, any_data=True))
        groups = (g for g in plan.groups if g.stand_ins)
        return {of_sites("noise", g.members): tuple(m.name for m in g.members) for g in groups}

    @property
    def is_asked(self) -> bool:
        """Whether latents are to be whitened, at least where it pays."""
        request = self.request
        if request.nongaussian == "auto":
            return request.marginalize in ("auto", "all") and request.reparameterize == "auto"
        return request.nongaussian == "whiten"

    def _likelihoods(self, facts: Facts, any_data: bool = False) -> tuple[Likelihood, ...]:
        """What there is to stand in for."""
        asked = self.request.nongaussian == "whiten"
        found = likelihoods(facts, whitenable(facts), any_data, spread=asked)
        return tuple(each for each in found if self.request.is_under(each.site.name))

    def _fit(self, facts: Facts, sites: tuple[Likelihood, ...]) -> Fit | None:
        """The program with pseudo-data as inputs; None where nothing is whitened."""
        program = facts.normalised.program
        if self.request.nongaussian == "auto" and not self._pays(facts, sites):
            return None
        plan = planned(with_stand_ins(program, sites), self.request)
        found = [density_of(plan.program, g) for g in plan.groups]
        found = [each for each in found if each.keys and is_known(plan.program, each)]
        used = {name for each in found for name, _ in each.keys}
        stood_in = tuple(each for each in sites if each.site.name in used)
        return Fit(plan.program, stood_in, tuple(found)) if found else None

    def _pays(self, facts: Facts, sites: tuple[Likelihood, ...]) -> bool:
        """Whether draws of whitened latents are predicted to be worth the planning."""
        left, _ = Outlook.of(facts, self.request, ()).predictions((), ())
        if not takes_long(left):
            return False
        predicted = self._sketched(facts, sites).predicted
        if predicted is None:
            return False
        whitened, source = predicted
        gradient = min(source.gradient, left.gradient)  # of rows added up, too
        return takes_whitened(replace(source, gradient=gradient), whitened)

    def _sketched(self, facts: Facts, sites: tuple[Likelihood, ...]) -> Plan:
        """The plan with stand-ins for these sites, whatever their pseudo-data will be."""
        program = facts.normalised.program
        return planned(with_stand_ins(program, sites, faint(program, sites)), self.request)
