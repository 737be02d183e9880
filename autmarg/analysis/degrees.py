"""In what way every value depends on every latent: not at all, affinely, or nonlinearly.

One pass over the tape with the same rule table that extraction uses, before anything is extracted.
A product of two latents is not nonlinear: it is a *clash* between the two, and the planner chooses
which of them stays sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autmarg.analysis.rules import rule_for
from autmarg.ir.tape import Equation, Tape


@dataclass(frozen=True, eq=False)
class Degree:
    """How one value depends on the latents.

    Attributes:
        affine: latents on which it depends affinely.
        nonlinear: latents on which it depends otherwise, with the first equation that made it so.
        clashes: pairs of latents that are multiplied together, with the equation that does it.
    """

    affine: frozenset[str] = frozenset()
    nonlinear: Mapping[str, Equation] = field(default_factory=dict)
    clashes: Mapping[frozenset[str], Equation] = field(default_factory=dict)


_NONE = Degree()


def degrees(tape: Tape, latents: Iterable[str]) -> dict[int, Degree]:
    """The degree of every value of a folded tape in every latent."""
    latents = set(latents)
    found = {v: Degree(frozenset({n})) for n, v in tape.inputs.items() if n in latents}
    for equation in tape.equations:
        operands = [found.get(v, _NONE) for v in equation.inputs]
        if any(o.affine or o.nonlinear for o in operands):
            known = [v in tape.constants for v in equation.inputs]
            found.update(dict.fromkeys(equation.outputs, _step(equation, operands, known)))
    return found


def _step(equation: Equation, operands: list[Degree], known: list[bool]) -> Degree:
    rule = rule_for(equation.primitive.name)
    linear = rule.linear(equation, known) if rule else ()
    nonlinear: dict[str, Equation] = {}
    clashes: dict[frozenset[str], Equation] = {}
    for i, operand in enumerate(operands):
        clashes.update(operand.clashes)
        nonlinear.update(operand.nonlinear)
        if i not in linear:
            nonlinear.update(dict.fromkeys(operand.affine, equation))
    affine = frozenset().union(*(operands[i].affine for i in linear))
    if rule and rule.bilinear:
        left, right = (operands[i].affine - set(nonlinear) for i in (0, 1))
        nonlinear.update(dict.fromkeys(left & right, equation))
        pairs = ((a, b) for a in left for b in right if a != b)
        clashes.update({frozenset(pair): equation for pair in pairs})
    return Degree(affine - set(nonlinear), nonlinear, clashes)
