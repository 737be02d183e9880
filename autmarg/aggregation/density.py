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
from autmarg.ir.tape import Tape

LONG = 2_000  # rows from which a pass over them costs more than the rest of a small model's step
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


_FOUND = WeakKeyDictionary[Observe, AddedRows]()


def added_rows(tape: Tape, site: Observe) -> AddedRows:
    """The rows of a site added up, once for a site: several passes ask.

    Args:
        tape: of the site's expressions.
        site: whose density it is.
    """
    if site not in _FOUND:
        _FOUND[site] = _added(tape, site)
    return _FOUND[site]


def _added(tape: Tape, site: Observe) -> AddedRows:
    tape, terms = with_log_densities(tape, [site])
    tape, (total,) = tape.extend(lambda x: [jnp.sum(x)], terms)
    plain = AddedRows(tape, total)
    classes, number = by_classes(tape, total)
    classes = classes.folded([number])
    saved = plain.work.elements / max(tape_work(classes, [number]).elements, 1.0)
    return AddedRows(classes, number, saved) if saved > _WORTH else plain


__all__ = ["LONG", "AddedRows", "added_rows"]
