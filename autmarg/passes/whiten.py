"""Put Gaussian stand-ins in the place of sites that are not Gaussian, their pseudo-data fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from autmarg.analysis.admissible import facts_of
from autmarg.analysis.sites import normalise
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import StandIn, of_sites
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import originals
from autmarg.plan.decide import choose, judge, schedule
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.select import Request
from autmarg.whitening.density import WhitenedMarginal
from autmarg.whitening.fit import Fit, is_known
from autmarg.whitening.predictors import Likelihood, likelihoods, whitenable
from autmarg.whitening.surrogate import with_stand_ins


def density_of(program: Program, group: ScheduledGroup) -> WhitenedMarginal:
    """The density of a group with stand-ins."""
    return WhitenedMarginal(
        program.tape, group.members, (*group.children, *originals(group.observed)),
        GaussianMarginal.of(group),
        of_sites("noise", group.members),
        tuple((n.original.name, n.predictor) for n in group.observed if isinstance(n, StandIn)),
    )  # fmt: skip


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
        if self.request.nongaussian == "off" or program.obstacles:
            return
        normalised = normalise(program)
        facts = facts_of(normalised)
        sites = likelihoods(facts, whitenable(facts))
        fit = self._fit(normalised.program, sites) if sites else None
        pseudo = fit.run() if fit is not None else None
        if fit is not None and pseudo is not None:
            yield with_stand_ins(normalised.program, fit.likelihoods, pseudo)

    def _fit(self, program: Program, sites: tuple[Likelihood, ...]) -> Fit | None:
        """The program with pseudo-data as inputs; None where nothing is left to whiten."""
        asked = self.request.marginalize
        request = replace(self.request, marginalize="all" if asked == "auto" else asked)
        draft = judge(facts_of(normalise(with_stand_ins(program, sites))), request)
        plan = schedule(choose(draft))
        found = [density_of(plan.program, g) for g in plan.groups]
        found = [each for each in found if each.keys and is_known(plan.program, each)]
        used = {name for each in found for name, _ in each.keys}
        stood_in = tuple(each for each in sites if each.site.name in used)
        return Fit(plan.program, stood_in, tuple(found)) if found else None
