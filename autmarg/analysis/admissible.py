"""Which latents may be integrated out, and why the others may not.

The largest set U of latents such that, given everything else, U and its children are jointly
Gaussian: each member is Gaussian, each child is Gaussian or a known bijection of one, means are
jointly affine in U, scales are free of U, nothing else reads a member.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from autmarg.analysis import nonlinear
from autmarg.analysis.degrees import Degree, degrees
from autmarg.analysis.flat import flat_elements, has_no_density
from autmarg.analysis.naming import located, uses
from autmarg.analysis.rules import rule_for
from autmarg.analysis.rules.base import NotWritten
from autmarg.analysis.sites import GaussianSite, Normalised
from autmarg.errors import InternalError, Refusal, RequestError, named
from autmarg.ir.nodes import Deterministic, Factor, Node, Observe, Sample, StandIn
from autmarg.ir.program import Program
from autmarg.ir.tape import Equation

_NONE = Degree()


@dataclass(frozen=True, eq=False)
class Admissible:
    """Latents that may each be integrated out, clashes between them, and refusals of the rest.

    Attributes:
        candidates: admissible latents in program order.
        clashes: pairs that are multiplied together: at most one of the two may go.
        refusals: latent → the first precondition that fails.
    """

    candidates: tuple[Sample, ...]
    clashes: dict[frozenset[str], Refusal]
    refusals: dict[str, Refusal]

    def without_flat(self, names: Collection[str]) -> Admissible:
        """The same, with latents refused whose flat prior the data leave improper."""
        gone = [c for c in self.candidates if c.name in names]
        words = "'{}' has a flat prior, and the data do not determine it"
        refusals = {
            c.name: Refusal(c.name, "improper posterior", words.format(c.name), c.place)
            for c in gone
        }
        candidates = tuple(c for c in self.candidates if c not in gone)
        return replace(self, candidates=candidates, refusals={**self.refusals, **refusals})

    def without(self, failure: NotWritten) -> Admissible:
        """The same, with the latents refused that enter a mean which is not written out."""
        gone = [c for c in self.candidates if c.name in failure.sites]
        if not gone or failure.equation is None:
            raise InternalError(f"nothing to refuse: {failure}")
        refusals = {
            c.name: Refusal(
                c.name,
                "not written out",
                f"'{c.name}' enters the mean of '{failure.child}' linearly, but {failure.reason}",
                failure.equation.place,
                failure.remedy,
                culprit=failure.equation.name,
            )
            for c in gone
        }
        candidates = tuple(c for c in self.candidates if c not in gone)
        return replace(self, candidates=candidates, refusals={**self.refusals, **refusals})


@dataclass(frozen=True, eq=False)
class Facts:
    """A normalised program with the degree of every value."""

    normalised: Normalised
    degrees: dict[int, Degree]

    def degree(self, number: int) -> Degree:
        """The degree of a numbered value; none where nothing is known of it."""
        return self.degrees.get(number, _NONE)


def facts_of(normalised: Normalised) -> Facts:
    """Degrees of all values in all latents."""
    program = normalised.program
    return Facts(normalised, degrees(program.tape, [n.name for n in program.latents]))


def admissible(facts: Facts) -> Admissible:
    """Judge every latent of the program."""
    program = facts.normalised.program
    refusals: dict[str, Refusal] = {}
    candidates = []
    for latent in program.latents:
        refusal = next(_refusals(facts, latent), None)
        if refusal is None:
            candidates.append(latent)
        else:
            refusals[latent.name] = refusal
    names = {c.name for c in candidates}
    clashes: dict[frozenset[str], Refusal] = {}
    for site in facts.normalised.gaussian.values():
        for number, what in ((site.loc, "mean"), (site.value, "observed value")):
            for pair, equation in facts.degree(number).clashes.items():
                if pair <= names and pair not in clashes:
                    clashes[pair] = _clash(pair, program[site.name], what, equation)
    return Admissible(tuple(candidates), clashes, refusals)


def _clash(pair: frozenset[str], child: Node, what: str, equation: Equation) -> Refusal:
    """The refusal to integrate out both of a pair; the planner replaces it by one of a site."""
    one, other = sorted(pair)
    return Refusal(
        f"{one}, {other}",
        "product of latents",
        f"'{one}' and '{other}' are multiplied in the {what} of {located(child)}, so only one of "
        "them can be integrated out",
        equation.place,
        culprit=equation.name,
    )


def _refusals(facts: Facts, latent: Sample) -> Iterator[Refusal]:
    """Reasons why a latent cannot be integrated out, nearest first."""
    program, name = facts.normalised.program, latent.name
    for obstacle in program.obstacles:
        yield replace(obstacle, site=name)
    site = facts.normalised.gaussian.get(name)
    if site is None or site.bijection:
        what = facts.normalised.otherwise.get(name)
        if site is not None:
            what = f"a Gaussian through {site.bijection}, not Gaussian itself"
        use = uses(facts.normalised, name)
        yield Refusal(name, "non-Gaussian prior", f"'{name}' is {what}", latent.place, use=use)
        return
    if latent.scale is not None and site.power is None:
        words = f"'{name}' is under {_unknown_scale(facts, latent)}, so it must be sampled"
        yield Refusal(name, "scale handler", words, latent.place)
    if site.mask is not None and site.mask not in program.tape.constants:
        words = f"'{name}' is under a mask that is traced or depends on a latent"
        yield Refusal(name, "masked latent", words, latent.place)
    if depends := _basis_depends(facts, site):
        words = f"'{name}' has a covariance whose structure depends on {depends}"
        yield Refusal(name, "unknown basis", words, latent.place)
    if 0 in latent.shape:
        yield Refusal(name, "empty site", f"'{name}' has no elements", latent.place)
    if site.singular and name in latent.parents:
        words = f"'{name}' has a singular covariance and reads its own past"
        yield Refusal(name, "singular chain", words, latent.place)
    for child in program.children(name):
        yield from _child_refusals(facts, name, child)
    if site.mask is not None:
        yield from _flat_refusals(facts, latent, site)


def _flat_refusals(facts: Facts, latent: Sample, site: GaussianSite) -> Iterator[Refusal]:
    """Flat priors of elements of a larger whole, which the elimination does not know."""
    name, flat = latent.name, flat_elements(facts.normalised, latent)
    if flat is None:
        return
    if site.singular:
        reason = f"'{name}' is masked, and its covariance is singular"
        yield Refusal(name, "masked latent", reason, latent.place)
    own_past = name in facts.normalised.program.tape.dependencies([site.loc])
    if own_past and not flat.all():
        reason = f"'{name}' is masked in part, and it reads its own past"
        yield Refusal(name, "masked latent", reason, latent.place)


def _child_refusals(facts: Facts, name: str, child: Node) -> Iterator[Refusal]:
    if isinstance(child, Deterministic):
        return
    if isinstance(child, Factor):
        words = f"'{name}' enters numpyro.factor {located(child)}, so it must be sampled"
        yield Refusal(name, "factor", words, child.place)
        return
    assert isinstance(child, Sample)
    site = facts.normalised.gaussian.get(child.name)
    if _is_not_met(facts.normalised, child):
        return
    read_by = f"'{name}' is read by {located(child)}"
    over = _integrated_with(facts.normalised.program, child)
    if over and name not in over:
        which = f"from which {named(over)} {'are' if over[1:] else 'is'}"
        which = "which is" if child.name in over else which
        by = f"{which} integrated out by quadrature, so it must be sampled"
        yield Refusal(name, "beside quadrature", f"{read_by}, {by}", child.place)
        return
    if site is None:
        words = f"{read_by}, {facts.normalised.otherwise[child.name]}, so it must be sampled"
        yield Refusal(name, "non-Gaussian child", words, child.place)
        return
    if child.scale is not None and site.power is None:
        words = f"{read_by}, which is under {_unknown_scale(facts, child)}, so it must be sampled"
        yield Refusal(name, "scale handler", words, child.place)
    if site.singular:
        words = f"{read_by}, whose covariance is singular, so it must be sampled"
        yield Refusal(name, "singular child", words, child.place)
    if depends := _basis_depends(facts, site):
        words = f"{read_by}, whose covariance has a structure that depends on {depends}"
        yield Refusal(name, "unknown basis", words, child.place)
    yield from _affine_refusals(facts, name, child, site.loc, "mean")
    if isinstance(child, Observe):
        # log N(v; m, s) reads v - m alone, so a value may be affine in a latent as a mean may.
        yield from _affine_refusals(facts, name, child, site.value, "observed value")
    tape = facts.normalised.program.tape
    for part, words in (
        ("scale", "scale"),
        ("scale_tril", "covariance"),
        ("mask", "mask"),
        ("log_jacobian", "transform"),
        ("value", "transform"),  # a bijection, through whose inverse a kept latent is seen
    ):
        number = getattr(site, part)
        if number is None or (
            part == "value" and (isinstance(child, Observe) or child.name == name)
        ):
            continue
        if name in tape.dependencies([number]):
            yield Refusal(
                name,
                f"latent in a {words}",
                f"'{name}' enters the {words} of {located(child)}, so it must be sampled",
                child.place,
            )
    others = [] if site.mask is None else sorted(tape.dependencies([site.mask]) - {name})
    if latents := [f"'{n}'" for n in others if not n.startswith("@")]:
        words = f"{read_by}, whose mask depends on {', '.join(latents)}, so it must be sampled"
        yield Refusal(name, "mask of a latent", words, child.place)


def _integrated_with(program: Program, child: Sample) -> tuple[str, ...]:
    """Latents that go by quadrature, if a site is one of them or stands in for data of theirs."""
    nests = (n.integrated for n in program.observed if isinstance(n, StandIn))
    own = child.integrated if isinstance(child, StandIn) else ()
    return own or next((names for names in nests if child.name in names), ())


def _is_not_met(normalised: Normalised, child: Sample) -> bool:
    """Whether the distribution of a site is not used at all.

    Data under a mask over all are not. A masked latent is not, where all of its elements have a
    flat prior; those that nothing reads are drawn from their own distribution.
    """
    if not has_no_density(normalised, child.name):
        return False
    if isinstance(child, Observe):
        return True
    flat = flat_elements(normalised, child)
    return flat is not None and bool(flat.all())


def _unknown_scale(facts: Facts, node: Sample) -> str:
    """The handlers.scale over a site, in words that say why it is no known power of the density."""
    assert node.scale is not None
    program = facts.normalised.program
    reads = sorted(program.tape.dependencies([node.scale]))
    if reads:
        names = ["a traced argument" if n.startswith("@") else f"'{n}'" for n in reads]
        return f"handlers.scale with a factor that depends on {', '.join(names)}"
    factor = np.asarray(program.tape.constants[node.scale])
    if not np.isfinite(factor).all() or factor.min(initial=0) < 0:
        return "handlers.scale with a factor that is negative or not finite"
    if (factor == 0).any():
        return "handlers.scale with a factor of zero"
    return f"handlers.scale with a factor of shape {factor.shape}, which repeats the log-density,"


def _basis_depends(facts: Facts, site: GaussianSite) -> str:
    """In words, what the basis of a site's covariance depends on; empty where it is known."""
    reads = facts.normalised.program.tape.dependencies([] if site.basis is None else [site.basis])
    return ", ".join("a traced argument" if n.startswith("@") else f"'{n}'" for n in sorted(reads))


def _affine_refusals(
    facts: Facts, name: str, child: Node, number: int, what: str
) -> Iterator[Refusal]:
    """Why a child's mean or observed value is not affine in a latent."""
    equation = facts.degree(number).nonlinear.get(name)
    if equation is not None:
        _check_known_index(facts, name, equation)
        tape = facts.normalised.program.tape
        yield nonlinear.refusal(tape, name, child, number, equation, what)


def _check_known_index(facts: Facts, name: str, equation: Equation) -> None:
    """An index array that an outer jit or vmap traces hides the structure: say so."""
    tape, rule = facts.normalised.program.tape, rule_for(equation.op)
    if not any(e is equation for e in tape.slice(equation.outputs)):
        return  # it stands in the body of a loop or branch, whose values have numbers of their own
    others = [v for v in equation.inputs if name not in tape.dependencies([v])]
    traced = any(n.startswith("@") for n in tape.dependencies(others))
    if rule is not None and rule.lazy and traced:
        where = f" at {equation.place}" if equation.place else ""
        raise RequestError(
            f"the index array or condition that picks elements of '{name}'{where} is traced by an "
            "outer jit or vmap, but the plan depends on its values. Expected a known array: close "
            "over it instead of passing it as an argument (observed values and covariates may be "
            "traced)"
        )
