"""Whether a chain is filtered one step after the other, or in blocks of steps side by side.

Blocks take two to three times the work, at a depth of √T instead of T. A step costs some 0.7 µs on
a processor besides its work (and more on an accelerator), its work some 25 ns a chain there: with
few chains, blocks win from some sixty steps on (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from dataclasses import replace

from autmarg.gaussian.affine import AffineForm
from autmarg.gaussian.chains.recurrence import Recurrence

CHAINS = ("auto", "sequential", "parallel")
_STEPS = 64  # from which blocks pay
_CHAINS = 16  # side by side anyway, from which they do not


def in_blocks(form: AffineForm, chains: str) -> AffineForm:
    """The form with its recurrences in blocks, by one of the words ``CHAINS``."""
    timed = tuple(replace(r, blocks=_blocks(r, chains)) for r in form.recurrences)
    return replace(form, recurrences=timed)


def _blocks(recurrence: Recurrence, chains: str) -> int:
    pays = recurrence.steps >= _STEPS and recurrence.chains < _CHAINS
    if chains == "parallel" or (chains == "auto" and pays):
        return math.isqrt(recurrence.steps)
    return 1
