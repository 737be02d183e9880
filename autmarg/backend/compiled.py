"""Compiled programs: a program through the passes, checked, and those that a model keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from autmarg.analysis.families import FAMILIES
from autmarg.analysis.naming import located
from autmarg.backend.recovery import Recovery
from autmarg.backend.support import check_support
from autmarg.conjugacy.registry import added
from autmarg.errors import WHOLE_MODEL, Refusal
from autmarg.gaussian.stages import REGISTERED
from autmarg.gaussian.terms import REGISTERED_TERMS
from autmarg.ir.bounds import check_indices
from autmarg.ir.nodes import Factor
from autmarg.ir.program import Program
from autmarg.ir.widths import check_widths
from autmarg.passes.detect import Detect
from autmarg.passes.pipeline import Passes, Step
from autmarg.passes.quadrature import left_for_traced_data
from autmarg.passes.whiten import Whiten
from autmarg.plan.plan import Plan
from autmarg.progress import working

_OWNING: WeakKeyDictionary[Program, Program] = WeakKeyDictionary()
_CACHED = 16  # compiled programs that one transformed model keeps


@dataclass(frozen=True, eq=False)
class Compiled:
    """One plan with the program rewritten by it."""

    plan: Plan
    program: Program
    recovery: Recovery

    @property
    def rewritten(self) -> bool:
        """Whether a pass changed a site: a program that none did runs as its user wrote it."""
        return any(step.sites for step in self.plan.history)


def compile_program(
    program: Program, passes: Passes, after: Callable[[Step], None] | None = None
) -> Compiled:
    """Run a traced program through the passes; ``after`` is called with every rewrite."""
    history: list[Step] = []

    def log(step: Step) -> None:
        history.append(step)
        if after is not None:
            after(step)

    rewritten = passes.run(program, log)
    plan = (rewritten.plan or Plan(program)).after(rewritten, tuple(history))
    return Compiled(plan, rewritten, Recovery(rewritten))


class Programs:
    """The compiled programs of one transformed model, by what they were compiled from.

    Attributes:
        passes: what compiles them.
        integrated: names of the sites that are not sampled in any of them.
    """

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.integrated: set[str] = set()
        self._compiled: dict[tuple[Any, ...], Compiled] = {}
        self._checked: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def of(self, program: Program, name: str) -> Compiled:
        """The compiled form of a traced program; ``name`` is that of its model.

        Raises:
            RequestError: the plan cannot be as it was asked for.
            ModelError: the model or the data are wrong.
        """
        if not program.observed:
            program = _left(program)
        # Traced constants make no difference to the structure: it is hashed without their values.
        # What is registered decides on a plan, too.
        key = (program.fingerprint, *FAMILIES.items(), *REGISTERED, *REGISTERED_TERMS, *added())
        if (known := self._compiled.get(key)) is not None:
            return known
        check_widths(program)
        with working(f"planning '{name}'"):
            compiled = compile_program(_owning(program), self.passes)
        check_indices(program, one_by_one=True)
        check_indices(compiled.plan.program)
        check_support(compiled.plan.program)
        self.integrated |= set(compiled.plan.recovered)
        if program.comparable:
            _remember(self._compiled, key, compiled)
        return compiled

    def check(self, program: Program) -> None:
        """Raise where latents of a program that is not compiled are read at indices out of range.

        Raises:
            ModelError: they are; asked once for each program.
        """
        key = program.fingerprint
        if key in self._checked:
            return
        check_widths(program)
        check_indices(program)
        check_indices(program, one_by_one=True)
        _remember(self._checked, key, None)

    def would_integrate(self, program: Program) -> set[str]:
        """Sites integrated out in earlier calls, or by a plan with childless sites as data."""
        names = {n.name for n in program.latents}
        if self.integrated:
            return self.integrated & names
        leaves = _leaves(program)
        found: set[str] = set()
        for detect in self.passes:
            if isinstance(detect, Detect):
                found |= set(detect.sampling(leaves).apply(program.given(leaves)).plan.recovered)
        return found

    def left(self, program: Program) -> frozenset[str]:
        """Latents that passes leave sampled because JAX traces some of their data."""
        return left_for_traced_data(self.passes, program)

    def would_whiten(self, program: Program) -> dict[str, tuple[str, ...]]:
        """Sites of noise → latents that they would make, with childless sites as data."""
        found: dict[str, tuple[str, ...]] = {}
        for whiten in self.passes:
            if isinstance(whiten, Whiten):
                found |= whiten.names(program.given(_leaves(program)))
        return found


def _owning(program: Program) -> Program:
    """The program with its own arrays: one for all models that compile it."""
    if program not in _OWNING:
        _OWNING[program] = program.owning()
    return _OWNING[program]


def _left(program: Program) -> Program:
    """A program without data, with that as the reason for leaving it as it is."""
    factors = [n for n in program.nodes if isinstance(n, Factor) and n.parents]
    if factors:
        reason = (
            "the model is left as the source: it has no observed site, and what the numpyro.factor "
            f"{located(factors[0])} says of data is not read. Write it as numpyro.sample(…, obs=…)"
        )
    else:
        reason = "the model is left as the source: it has no observed site with these arguments"
    return replace(program, obstacles=(*program.obstacles, Refusal("", WHOLE_MODEL, reason)))


def _leaves(program: Program) -> set[str]:
    """Latents that nothing reads: the data of a program that was called without them."""
    return {n.name for n in program.latents if not program.children(n.name)}


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep a value by its key, and forget the oldest ones."""
    while len(known) >= _CACHED:
        known.pop(next(iter(known)))
    known[key] = value


__all__ = ["Compiled", "Programs", "compile_program"]
