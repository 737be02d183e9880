"""What the analysis makes of a program's sites before it judges them."""

from __future__ import annotations

from autmarg.analysis.admissible import facts_of
from autmarg.analysis.sites import normalise
from tests.support.compiled import traced


def test_folding_leaves_only_what_depends_on_latents():
    normalised = normalise(traced("radon"))
    tape = normalised.program.tape
    assert all(tape.dependencies(e.outputs) for e in tape.equations)
    assert facts_of(normalised).degrees
