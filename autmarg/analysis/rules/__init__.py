"""How affine values pass through JAX primitives: one rule a group of primitives.

``RULES`` and ``CALLS`` list them all; :func:`rule_for` and :func:`call_for` find the one for a
primitive. A primitive without a rule is nonlinear as far as the analysis knows (sound, incomplete).
"""

from __future__ import annotations

from autmarg.analysis.rules.arithmetic import ARITHMETIC
from autmarg.analysis.rules.base import Rule
from autmarg.analysis.rules.calls import CALLS, Call
from autmarg.analysis.rules.contraction import CONTRACTION
from autmarg.analysis.rules.matrix import MATRIX
from autmarg.analysis.rules.scatter import SCATTER
from autmarg.analysis.rules.structural import STRUCTURAL

RULES: tuple[Rule, ...] = (*STRUCTURAL, *ARITHMETIC, *CONTRACTION, *SCATTER, *MATRIX)

_BY_PRIMITIVE = {name: rule for rule in RULES for name in rule.primitives}
_CALLS = {name: call for call in CALLS for name in call.primitives}


def rule_for(primitive: str) -> Rule | None:
    """The rule for a primitive's name, or None."""
    return _BY_PRIMITIVE.get(primitive)


def call_for(primitive: str) -> Call | None:
    """How a primitive that holds programs is run, or None where it is no such primitive."""
    return _CALLS.get(primitive)
