"""The log-density of an observed site, each class of equal elements evaluated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import jax.numpy as jnp

from autmarg.aggregation.rewrite import by_classes
from autmarg.analysis.log_densities import with_log_densities
from autmarg.analysis.work import Work, tape_work
from autmarg.ir.nodes import Observe
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape

_LONG = 2_000  # rows from which a pass over them costs more than the rest of a small model's step
_WORTH = 1.25  # times as much work by rows, from which classes are evaluated instead


@dataclass(frozen=True, eq=False)
class AddedRows:
    """Σ log p(y | …) over the rows of an observed site.

    Attributes:
        tape: with all that is known folded.
        number: of the sum.
        saved: how many times as much work the sum by rows is.
    """

    tape: Tape
    number: int
    saved: float = 1.0

    @cached_property
    def work(self) -> Work:
        """Of a value and gradient."""
        return tape_work(self.tape, [self.number])

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of what it reads: latents, and constants that are traced."""
        return self.tape.dependencies([self.number])

    def log_density(self, values: Mapping[str, Any]) -> Any:
        """The sum, a scalar."""
        return self.tape.evaluate([self.number], values)[0]


_FOUND = WeakKeyDictionary[Observe, tuple[Tape, AddedRows | None]]()


def long_sites(program: Program) -> list[Observe]:
    """Observed sites whose rows are worth adding up where no latent of theirs is integrated out.

    What reads a discrete latent may be asked for its density at all values of that at once.
    """
    discrete = {n.name for n in program.latents if not jnp.issubdtype(n.dtype, jnp.inexact)}
    long = (n for n in program.observed if n.size >= _LONG and n.parents and not n.scanned)
    return [n for n in long if not n.parents & discrete]


def added_rows(tape: Tape, site: Observe) -> AddedRows | None:
    """The rows of a site added up, once for a site: several passes ask.

    Args:
        tape: of the site's expressions.
        site: whose density it is.

    Returns:
        None where NumPyro has no log-density for it.
    """
    known = _FOUND.get(site)
    if known is None or not (known[0] is tape or known[0].agrees(tape, site.numbers)):
        known = _FOUND[site] = tape, _added(tape, site)
    return known[1]


def _added(tape: Tape, site: Observe) -> AddedRows | None:
    try:
        tape, terms = with_log_densities(tape, [site])
    except NotImplementedError:  # a transform without a Jacobian
        return None
    tape, (total,) = tape.extend(lambda x: [jnp.sum(x)], terms)
    tape = tape.folded([total])
    plain = AddedRows(tape, total)
    classes, number = by_classes(tape, total)
    classes = classes.folded([number])
    saved = plain.work.elements / max(tape_work(classes, [number]).elements, 1.0)
    return AddedRows(classes, number, saved) if saved > _WORTH else plain


__all__ = ["AddedRows", "added_rows", "long_sites"]
