"""Put stand-ins in the place of data whose effects are integrated out numerically."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from autmarg.analysis.admissible import Facts, facts_of
from autmarg.analysis.needed import TOO_MANY_NODES, no_mode
from autmarg.analysis.sites import normalise
from autmarg.errors import InternalError
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import originals
from autmarg.passes.whiten import Whiten, density_of, planned
from autmarg.plan.groups import ScheduledGroup
from autmarg.plan.order import one_by_one
from autmarg.plan.select import Request, check_under
from autmarg.quadrature.accuracy import accuracy
from autmarg.quadrature.candidates import DEEPEST, Nest, nests_of
from autmarg.quadrature.density import QuadratureMarginal
from autmarg.quadrature.rule import Rule
from autmarg.quadrature.separable import layers_of
from autmarg.whitening.fit import Fit, is_known
from autmarg.whitening.predictors import under_traced_data
from autmarg.whitening.surrogate import with_stand_ins


def quadrature_of(program: Program, group: ScheduledGroup) -> QuadratureMarginal:
    """The density of a group whose members are integrated out numerically."""
    stand_ins = group.stand_ins
    by_name = {m.name: m for m in group.members}
    members = tuple(by_name[name] for name in stand_ins[0].integrated)
    others = (*group.children, *originals(group.observed))
    layers = layers_of(program.tape, members, others)
    if layers is None or len(members) != len(group.members):
        raise InternalError(f"'{group.name}' was taken for independent levels, and is not")
    rule = Rule(max(1, stand_ins[0].nodes))
    names = [m.name for m in members]
    order = one_by_one(group.system.form, group.assembly, names)
    surrogate = GaussianMarginal(group.system, order, group.variances)
    return QuadratureMarginal(members, others, surrogate, layers, rule)


@dataclass(frozen=True)
class Quadrature:
    """Write stand-ins for the data that effects with independent levels are read by.

    'detect' then integrates these effects, and no other latents, out of the program with stand-ins,
    which says where their posterior is, and 'marginalise' puts sums over nodes in its place.
    """

    request: Request = field(default_factory=Request)
    name = "quadrature"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program with stand-ins, if there is anything to stand in for."""
        if not self.is_asked or program.obstacles:
            return
        check_under(program, self.request)
        facts, unmet = facts_of(normalise(program)), dict[str, str]()
        for deepest in range(DEEPEST, 0, -1):  # nested integrals may take too many nodes
            nests = self._possible(facts, self._asked(facts, deepest))
            if all(len(nest.members) < deepest for nest in nests):
                continue  # the next turn finds the same ones
            found = self._stood_in(facts, nests)
            if isinstance(found, Program):
                yield found
                return
            unmet |= {m.name: found for nest in nests for m in nest.members if found}
        if unmet:
            yield replace(program, unmet=unmet)

    @property
    def is_asked(self) -> bool:
        """Whether latents are to be integrated out numerically."""
        return self.request.nongaussian == "quadrature"

    def _stood_in(self, facts: Facts, nests: Sequence[Nest]) -> Program | str:
        """The program with stand-ins, or what it would have needed ("" where that is usual)."""
        program = facts.normalised.program
        sites = tuple(each for nest in nests for each in nest.likelihoods)
        plan = planned(with_stand_ins(program, sites), self.request)
        groups = [g for g in plan.groups if g.is_by_quadrature]
        found = tuple(density_of(plan.program, g) for g in groups)
        if not all(is_known(plan.program, each) for each in found):
            return ""
        fit = Fit(plan.program, sites, found)
        mode = fit.run()
        if mode is None:
            return no_mode("quadrature")
        densities = [quadrature_of(plan.program, g) for g in groups]
        enough = accuracy(fit, mode, densities, sum(each.site.size for each in sites))
        if enough is None:
            return TOO_MANY_NODES
        return with_stand_ins(program, sites, enough.mode.pseudo, enough.nodes, enough.error)

    def _asked(self, facts: Facts, deepest: int) -> tuple[Nest, ...]:
        """Nests of latents that may be integrated out."""
        asked, keep = self.request.marginalize, set(self.request.keep)
        if not isinstance(asked, str):
            keep |= {n.name for n in facts.normalised.program.latents} - set(asked)
        found = (n for n in nests_of(facts, deepest) if not keep & {m.name for m in n.members})
        under = self.request.is_under
        return tuple(n for n in found if all(under(each.site.name) for each in n.likelihoods))

    def _possible(self, facts: Facts, nests: Sequence[Nest]) -> tuple[Nest, ...]:
        """Those whose latents are integrated out with no others."""
        if not nests:
            return ()
        sites = tuple(each for nest in nests for each in nest.likelihoods)
        plan = planned(with_stand_ins(facts.normalised.program, sites), self.request)
        together = {frozenset(m.name for m in g.members) for g in plan.groups}
        return tuple(n for n in nests if frozenset(m.name for m in n.members) in together)


def left_for_traced_data(passes: Iterable[object], program: Program) -> frozenset[str]:
    """Latents that such passes, or those that whiten, leave sampled since JAX traces their data."""
    asked = [each for each in passes if isinstance(each, Whiten | Quadrature) and each.is_asked]
    if program.obstacles or not asked:
        return frozenset()
    facts = facts_of(normalise(program))
    for each in asked:
        if isinstance(each, Whiten) and (tuned := each.with_tuned(facts)) is not None:
            facts = facts_of(normalise(tuned))
    return under_traced_data(facts)


__all__ = ["Quadrature", "left_for_traced_data", "quadrature_of"]
