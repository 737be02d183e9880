"""The log-density of an observed site, each class of equal elements evaluated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import jax.numpy as jnp

from autmarg.aggregation.rewrite import by_classes
from autmarg.analysis.work import Work, tape_work
from autmarg.compat.jaxprs import as_data
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


_FOUND = WeakKeyDictionary[Observe, tuple[Tape, AddedRows | None]]()


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
        try:
            found = _added(tape, site)
        except NotImplementedError:
            found = None
        known = _FOUND[site] = tape, found
    return known[1]


def _added(tape: Tape, site: Observe) -> AddedRows:
    tape, total = _written(tape, site)
    tape = tape.folded([total])
    plain = AddedRows(tape, total)
    classes, number = by_classes(tape, total)
    classes = classes.folded([number])
    saved = plain.work.elements / max(tape_work(classes, [number]).elements, 1.0)
    return AddedRows(classes, number, saved) if saved > _WORTH else plain


def _written(tape: Tape, site: Observe) -> tuple[Tape, int]:
    """A tape with the log-density of a site, and its number.

    What is known stays so for the distribution: its author may have looked at numbers.
    """
    scale = [] if site.scale is None else [site.scale]
    numbers = [*site.distribution.values, site.value, *scale]
    known = {v: tape.constants[v] for v in numbers if v in tape.constants}
    known |= tape.known(v for v in numbers if v not in known and not tape.dependencies([v]))
    known = {v: as_data(x) for v, x in known.items()}
    open_numbers = [v for v in numbers if v not in known]

    def log_density(*arrays: Any) -> list[Any]:
        values = {**known, **dict(zip(open_numbers, arrays, strict=True))}
        fn = site.distribution.unflatten([values[v] for v in site.distribution.values])
        terms = fn.log_prob(values[site.value])
        return [jnp.sum(terms * values[scale[0]] if scale else terms)]

    tape, (number,) = tape.extend(log_density, open_numbers)
    return tape, number


__all__ = ["LONG", "AddedRows", "added_rows"]
