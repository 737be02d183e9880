"""Add up the rows of a site whose mean is affine in sampled latents, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autmarg.analysis.admissible import Facts, facts_of
from autmarg.analysis.extract import LinearSystem, extract
from autmarg.analysis.rules.base import NotWritten
from autmarg.analysis.sites import normalise
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Marginal, Observe, of_sites
from autmarg.ir.program import Program
from autmarg.plan.order import assemble, schedule

_ROWS = 2_000  # from which a pass over them costs more than the rest of a small model's step
_SAVING = 4  # rows for each cross-product


@dataclass(frozen=True)
class Hoist:
    """Replace N rows by their cross-products where no latent of their mean was integrated out.

    The density of an observed Gaussian site, or of a known bijection of one, whose mean is affine
    in sampled latents with known coefficients, is a quadratic form in them whose entries are
    computed here, so that a step does not walk the rows: the marginal of a system without members.
    """

    name = "hoist"
    rule = "cross-products"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program after each site."""
        long = [n for n in program.observed if n.size >= _ROWS and n.scale is None]
        if program.obstacles or not any(n.parents for n in long):
            return
        facts = facts_of(normalise(program))
        for site in long:
            system = extract(facts, (), (site,)) if _is_affine(facts, site) else None
            if system is None or isinstance(system, NotWritten):
                continue  # the site stays as it is, which is no less exact
            hoisted = _hoisted(site, system)
            if hoisted is not None:
                program = program.replace_nodes(hoisted if n is site else n for n in program.nodes)
                yield program


def _is_affine(facts: Facts, site: Observe) -> bool:
    """Whether the site is Gaussian with a mean affine in some latent and nonlinear in none."""
    gaussian = facts.normalised.gaussian.get(site.name)
    if gaussian is None or site.scanned or gaussian.scale is None:
        return False
    loc = facts.degree(gaussian.loc)
    known_mask = gaussian.mask is None or gaussian.mask in facts.normalised.program.tape.constants
    return bool(loc.affine) and not loc.nonlinear and known_mask


def _hoisted(node: Observe, system: LinearSystem) -> Marginal | None:
    """The node in the site's place, or None where its rows add up to about as many numbers."""
    assembly = assemble(system.form)
    if len(assembly.summed.stats.total) * _SAVING > node.size:
        return None
    planned = schedule(system.form, assembly)
    density = GaussianMarginal(system, planned, lambda: planned)
    return Marginal(
        of_sites("marginal", (node,)), frozenset(system.inputs), node.place,
        observed=(node,), children=(), density=density,
    )  # fmt: skip
