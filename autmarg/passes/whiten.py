"""Put Gaussian stand-ins in the place of sites that are not Gaussian, their pseudo-data fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autmarg.analysis.admissible import Facts, facts_of
from autmarg.analysis.needed import no_mode
from autmarg.analysis.sites import normalise
from autmarg.errors import RequestError
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import StandIn, of_sites
from autmarg.ir.program import Program
from autmarg.ir.stand_ins import originals
from autmarg.plan.centring import Forms
from autmarg.plan.decide import choose, judge, schedule
from autmarg.plan.groups import ScheduledGroup, connected
from autmarg.plan.order import SMALL_ROOT
from autmarg.plan.outlook import Outlook
from autmarg.plan.plan import Plan
from autmarg.plan.prediction import UNWHITENED
from autmarg.plan.select import Request, check_under
from autmarg.plan.whitened import in_pieces, takes_long, takes_whitened
from autmarg.whitening.density import WhitenedMarginal
from autmarg.whitening.fit import Fit, Mode, faint, is_known
from autmarg.whitening.joint import Joint
from autmarg.whitening.predictors import Likelihood, likelihoods, whitenable
from autmarg.whitening.surrogate import Pieces, with_stand_ins
from autmarg.whitening.tuned import Tuned, averaged
from autmarg.whitening.turn import Turn

Array = np.ndarray


def density_of(program: Program, group: ScheduledGroup) -> WhitenedMarginal:
    """The density of a group with stand-ins."""
    return WhitenedMarginal(
        program.tape, group.members, (*group.children, *originals(group.observed)),
        GaussianMarginal.of(group),
        of_sites("noise", group.members),
        tuple(dict.fromkeys((n.original.name, n.predictor) for n in group.stand_ins)),
        _turn_of(group),
    )  # fmt: skip


def _turn_of(group: ScheduledGroup) -> Turn | None:
    """What the pieces of a group have to do with one another, if it has some."""
    matrices = [n.turn for n in group.stand_ins if n.turn is not None]
    if not matrices:
        return None
    matrix, second = matrices[0], group.outside_largest
    if matrix.shape != (len(second), second.sum()):
        raise RequestError(
            f"a pass between 'whiten' and 'detect' changed what is whitened under '{group.name}': "
            "expected that pass before 'whiten'"
        )
    return Turn(second, matrix)


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
    tuned: Tuned | None = field(default=None, repr=False)
    name = "whiten"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program with stand-ins, if there is anything to stand in for."""
        if not self.is_asked or program.obstacles:
            return
        check_under(program, self.request)
        facts = facts_of(normalise(program))
        if (tuned := self.with_tuned(facts)) is not None:
            yield tuned
            return
        fitted = self._fit(facts)
        if fitted is None:
            return
        fit, plan = fitted
        mode = fit.run()
        if mode is None:
            yield replace(program, unmet=dict.fromkeys(fit.members, no_mode("whiten")))
            return
        program = facts.normalised.program
        pieces = self._taken_apart(program, plan, fit, mode)
        yield with_stand_ins(program, fit.likelihoods, mode.pseudo, pieces=pieces)

    def with_tuned(self, facts: Facts) -> Program | None:
        """The program with stand-ins that :meth:`from_draws` found, whatever the data are.

        None where there are none, or the program's sites or latents have other shapes.
        """
        if self.tuned is None:
            return None
        sites = self._likelihoods(facts, any_data=True)
        return self.tuned.written(facts.normalised.program, sites)

    def from_draws(self, program: Program, draws: Mapping[str, Any]) -> Whiten:
        """The pass with stand-ins from draws of all latents; it then does not look at the data.

        Raises:
            RequestError: there is nothing that this pass whitens, or no draw has finite slopes.
        """
        facts, fitted = facts_of(normalise(program)), None
        if self.is_asked and not program.obstacles:
            check_under(program, self.request)
            fitted = self._fit(facts)
        if fitted is None:
            raise RequestError(
                f"nothing of '{program.name}' is whitened with these arguments, so that there are "
                "no stand-ins to tune: see marg.plan(…), and ask for it by "
                "autmarg.transform(model, nongaussian='whiten')"
            )
        fit, plan = fitted
        mode = averaged(fit, draws)
        if mode is None:
            sites = sorted({each.site.name for each in fit.likelihoods})
            raise RequestError(
                f"the log-density of {sites} has no finite slopes at any of these draws: expected "
                "draws from the posterior of these arguments"
            )
        pieces = self._taken_apart(facts.normalised.program, plan, fit, mode)
        return replace(self, tuned=Tuned.of(fit, mode, pieces))

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

    def _fit(self, facts: Facts) -> tuple[Fit, Plan] | None:
        """The program with pseudo-data as inputs, and its plan; None where nothing is whitened."""
        program, sites = facts.normalised.program, self._likelihoods(facts)
        unasked = self.request.nongaussian == "auto"
        if not sites or (unasked and not self._pays(facts, sites)):
            return None
        plan = planned(with_stand_ins(program, sites), self.request)
        found = [density_of(plan.program, g) for g in plan.groups]
        found = [each for each in found if each.keys and is_known(plan.program, each)]
        used = {name for each in found for name, _ in each.keys}
        stood_in = tuple(each for each in sites if each.site.name in used)
        return (Fit(plan.program, stood_in, tuple(found)), plan) if found else None

    def _taken_apart(
        self, program: Program, plan: Plan, fit: Fit, mode: Mode
    ) -> tuple[Pieces, ...]:
        """Sets of latents whose pieces are better whitened apart, with what that leaves out."""
        centre = fit.at(mode.theta, mode.pseudo).members
        apart = _apart(plan, centre)
        if not apart:
            return ()
        pieces = [each for _, each in apart]
        by_pieces = planned(
            with_stand_ins(program, fit.likelihoods, mode.pseudo, pieces=pieces), self.request
        )
        if not _quicker(by_pieces, plan):
            return ()
        found, lag = [], 0.0
        for group, each in apart:
            own = next(g for g in by_pieces.groups if g.members[0].name == group.members[0].name)
            density = GaussianMarginal.of(own)
            joint = Joint(fit, mode, group.sites, density, own.outside_largest)
            turn = joint.turn()
            lag = max(lag, joint.lag(turn))
            found.append(replace(each, turn=turn.matrix))
        return tuple(found) if _quicker(by_pieces, plan, lag) else ()

    def _pays(self, facts: Facts, sites: tuple[Likelihood, ...]) -> bool:
        """Whether draws of whitened latents are predicted to be worth the planning."""
        left, _ = Outlook.of(facts, self.request, ()).predictions((), ())
        if not takes_long(left):
            return False
        plan = self._sketched(facts, sites)
        if plan.predicted is None:
            return False
        whitened, source = plan.predicted
        gradient = min(source.gradient, left.gradient)  # of rows added up, too
        weak = self._is_weak(facts, plan)
        source = replace(
            source, gradient=gradient, steps=source.steps / (UNWHITENED if weak else 1.0)
        )
        if takes_whitened(source, whitened):
            return True
        groups = [g for g in plan.groups if g.stand_ins]
        zeros = {m.name: np.zeros(m.shape, m.dtype) for g in groups for m in g.members}
        pieces = [each for _, each in _apart(plan, zeros)]
        if not pieces:
            return False
        by_pieces = self._sketched(facts, sites, pieces).predicted
        return by_pieces is not None and takes_whitened(source, in_pieces(by_pieces[0]))

    def _is_weak(self, facts: Facts, plan: Plan) -> bool:
        """Whether the data say so little of all effects that their non-centred form does as well.

        (48 in 1,000 gradients instead of 22, each 2.5 times as dear, with 5,000 binary rows in
        400 x 300 levels; 48 instead of 0.1 with counts.)
        """
        groups = [g for g in plan.groups if g.stand_ins]
        large = [m.name for g in groups for m in g.members if m.size > SMALL_ROOT]
        forms = Forms(facts.normalised.program, self.request).centrings((), {})
        return bool(large) and all(name in forms and forms[name].noncentred for name in large)

    def _sketched(
        self, facts: Facts, sites: tuple[Likelihood, ...], pieces: Sequence[Pieces] = ()
    ) -> Plan:
        """The plan with stand-ins for these sites, whatever their pseudo-data will be."""
        program, own = facts.normalised.program, faint(facts.normalised.program, sites)
        return planned(with_stand_ins(program, sites, own, pieces=pieces), self.request)


def _apart(plan: Plan, centre: Mapping[str, Array]) -> list[tuple[ScheduledGroup, Pieces]]:
    """Groups of which two pieces, connected without stand-ins, are large, with all of theirs.

    Those whose members have a value at the mode (``centre``).
    """
    sites = [n for n in plan.program.nodes if not isinstance(n, StandIn)]
    without, found = plan.program.replace_nodes(sites), []
    for group in plan.groups:
        pieces = connected(without, group.members)
        large = sum(sum(m.size for m in each) > SMALL_ROOT for each in pieces)
        if large > 1 and centre.keys() >= {m.name for m in group.members}:
            names = tuple(tuple(m.name for m in each) for each in pieces)
            found.append((group, Pieces(names, {m.name: centre[m.name] for m in group.members})))
    return found


def _quicker(by_pieces: Plan, whole: Plan, lag: float = 0.0) -> bool:
    """Whether a draw of latents in pieces is predicted to take less time."""
    if by_pieces.predicted is None or whole.predicted is None:
        return False
    return in_pieces(by_pieces.predicted[0], lag).draw < whole.predicted[0].draw
