"""In what way every value depends on every latent: not at all, affinely, or nonlinearly.

One pass over the tape with the same rule table that extraction uses, before anything is extracted.
A product of two latents is not nonlinear: it is a *clash* between the two, and the planner chooses
which of them stays sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from autmarg.analysis.rules import call_for, rule_for
from autmarg.analysis.rules.base import Operand
from autmarg.analysis.rules.finite import settled
from autmarg.compat.jaxprs import ClosedJaxpr
from autmarg.ir.tape import Equation, Tape, body_tape, run_body
from autmarg.ir.walk import walk


@dataclass(frozen=True, eq=False)
class Degree:
    """How one value depends on the latents.

    Attributes:
        affine: latents on which it depends affinely.
        nonlinear: latents on which it depends otherwise, with the first equation that made it so.
        clashes: pairs of latents that are multiplied together, with the equation that does it.
        known: it is a concrete array, ``value`` where that has been computed.
    """

    affine: frozenset[str] = frozenset()
    nonlinear: Mapping[str, Equation] = field(default_factory=dict)
    clashes: Mapping[frozenset[str], Equation] = field(default_factory=dict)
    known: bool = False
    value: Any = None

    @property
    def latent(self) -> bool:
        """Whether it depends on a latent at all."""
        return bool(self.affine or self.nonlinear)

    def entry(self) -> Degree:
        """The degree of an entry of it, whichever."""
        return replace(self, value=None)

    def join(self, other: Degree) -> Degree:
        """What holds of both."""
        nonlinear = {**self.nonlinear, **other.nonlinear}
        return Degree(
            (self.affine | other.affine) - set(nonlinear),
            nonlinear,
            {**self.clashes, **other.clashes},
            self.known and other.known,
        )

    def same(self, other: Degree) -> bool:
        """Whether they say the same of the same latents."""
        return (
            self.affine == other.affine
            and self.nonlinear.keys() == other.nonlinear.keys()
            and self.clashes.keys() == other.clashes.keys()
            and self.known == other.known
        )

    def at(self, call: Equation) -> Degree:
        """The same, where equations of a body that do not know the user's line have the call's."""

        def placed(equation: Equation) -> Equation:
            return equation if equation.place else replace(equation, place=call.place)

        nonlinear = {name: placed(e) for name, e in self.nonlinear.items()}
        clashes = {pair: placed(e) for pair, e in self.clashes.items()}
        return replace(self, nonlinear=nonlinear, clashes=clashes)

    def indexed_by(self, which: Degree, equation: Equation) -> Degree:
        """The degree of what ``which`` picks: nonlinear in whatever that depends on."""
        picking = {**dict.fromkeys(which.affine, equation), **which.nonlinear}
        return self.join(Degree(frozenset(), picking, which.clashes, which.known))


_NONE = Degree()
_KNOWN = Degree(known=True)


def degrees(tape: Tape, latents: Iterable[str]) -> dict[int, Degree]:
    """The degree of every value of a folded tape in every latent."""
    latents = set(latents)
    found = {v: Degree(frozenset({n})) if n in latents else _NONE for n, v in tape.inputs.items()}
    found |= {v: _constant(c) for v, c in tape.constants.items()}
    walk(tape.equations, found, partial(_outputs, tape))
    return found


def _constant(value: Any) -> Degree:
    return Degree(known=True, value=value)


def _outputs(tape: Tape, equation: Equation, operands: list[Degree]) -> list[Degree]:
    if all(o.known for o in operands):
        return [_KNOWN] * len(equation.outputs)
    if not any(o.latent for o in operands):
        return [_NONE] * len(equation.outputs)
    if _is_settled(equation, operands):
        nonlinear = {name: e for o in operands for name, e in o.nonlinear.items()}
        clashes = {pair: e for o in operands for pair, e in o.clashes.items()}
        return [Degree(frozenset(), nonlinear, clashes, not nonlinear)] * len(equation.outputs)
    call = call_for(equation.op)
    if call is not None:
        return [d.at(equation) for d in call.degrees(equation, operands, _run)]
    return [_step(tape, equation, operands)] * len(equation.outputs)


def _is_settled(equation: Equation, operands: list[Degree]) -> bool:
    """Whether what is asked of a value, affine in latents, has one answer for all finite ones."""
    affine = all(o.affine for o in operands if not o.known)
    return affine and settled(equation, [o.value for o in operands if o.known])


def _run(closed: ClosedJaxpr, operands: list[Degree]) -> list[Degree]:
    """The degrees of a body's outputs, given those of its operands."""
    return run_body(closed, operands, partial(_outputs, body_tape(closed)[0]), _constant)


def _step(tape: Tape, equation: Equation, operands: list[Degree]) -> Degree:
    rule = rule_for(equation.op)
    avals = [tape.avals[v] for v in equation.inputs]
    described = [
        Operand(a.shape, a.dtype, o.known, not o.known and not o.latent, o.value)
        for a, o in zip(avals, operands, strict=True)
    ]
    linear = rule.linear(equation, described) if rule else ()
    nonlinear: dict[str, Equation] = {}
    clashes: dict[frozenset[str], Equation] = {}
    for i, operand in enumerate(operands):
        clashes.update(operand.clashes)
        nonlinear.update(operand.nonlinear)
        if i not in linear:
            nonlinear.update(dict.fromkeys(operand.affine, equation))
    affine = frozenset().union(*(operands[i].affine for i in linear))
    if rule and rule.bilinear:
        left, right = (operands[i].affine - set(nonlinear) for i in rule.bilinear)
        nonlinear.update(dict.fromkeys(left & right, equation))
        pairs = ((a, b) for a in left for b in right if a != b)
        clashes.update({frozenset(pair): equation for pair in pairs})
    return Degree(affine - set(nonlinear), nonlinear, clashes)
