"""Add up the rows of a site once: cross-products where it is Gaussian, equal rows elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autmarg.aggregation.density import AddedRows, added_rows, long_sites
from autmarg.analysis.admissible import Facts, facts_of
from autmarg.analysis.extract import extract
from autmarg.analysis.rules.base import NotWritten
from autmarg.analysis.sites import normalise
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Marginal, Observe, of_sites
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape
from autmarg.plan.order import assemble, schedule

_SAVING = 4  # rows for each cross-product
_LESS = 2.0  # times as much work, by rows, as that of equal rows once


@dataclass(frozen=True)
class Hoist:
    """Replace N rows by their sums where none of the latents that they read was integrated out.

    The density of an observed Gaussian site, or of a known bijection of one, whose mean is affine
    in sampled latents with known coefficients, is a quadratic form in them whose entries are
    computed here, so that a step does not walk the rows: the marginal of a system without members.
    Of any other site, elements that are equal whatever the latents are get evaluated once
    (:mod:`autmarg.aggregation`), if that saves most of its work.
    """

    name = "hoist"
    rule = "rows added up"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program after each site."""
        long = long_sites(program)
        if program.obstacles or not long:
            return
        facts = facts_of(normalise(program))
        for site in long:
            hoisted = _hoisted(facts, site) or _aggregated(facts.normalised.program.tape, site)
            if hoisted is not None:  # the site stays as it is otherwise, which is no less exact
                program = program.replace_nodes(hoisted if n is site else n for n in program.nodes)
                yield program


def _is_affine(facts: Facts, site: Observe) -> bool:
    """Whether the site is Gaussian with a mean affine in some latent and nonlinear in none."""
    gaussian = facts.normalised.gaussian.get(site.name)
    if gaussian is None or gaussian.scale is None:
        return False
    loc = facts.degree(gaussian.loc)
    known_mask = gaussian.mask is None or gaussian.mask in facts.normalised.program.tape.constants
    return bool(loc.affine) and not loc.nonlinear and known_mask


def _hoisted(facts: Facts, node: Observe) -> Marginal | None:
    """A Gaussian site's cross-products, or None where they are about as many numbers as rows."""
    if node.scale is not None or not _is_affine(facts, node):
        return None
    system = extract(facts, (), (node,))
    if isinstance(system, NotWritten):
        return None
    assembly = assemble(system.form)
    if len(assembly.summed.stats.total) * _SAVING > node.size:
        return None
    planned = schedule(system.form, assembly)
    density = GaussianMarginal(system, planned, lambda: planned)
    return _marginal(node, density, density.inputs)


def _aggregated(tape: Tape, node: Observe) -> Marginal | None:
    """A site's density by classes of equal elements, or None where that saves little."""
    density = added_rows(tape, node)
    if density is None or density.saved < _LESS:
        return None
    return _marginal(node, density, density.inputs)


def _marginal(
    node: Observe, density: GaussianMarginal | AddedRows, reads: frozenset[str]
) -> Marginal:
    return Marginal(
        of_sites("marginal", (node,)), reads, node.place, observed=(node,), children=(),
        density=density,
    )  # fmt: skip
