"""How affine values pass through JAX primitives: one rule a group of primitives.

``RULES`` lists them all; :func:`rule_for` finds the one for an equation. A primitive without a
rule is nonlinear as far as the analysis knows (sound, incomplete).
"""

from __future__ import annotations

from autmarg.analysis.rules.arithmetic import ARITHMETIC
from autmarg.analysis.rules.base import Rule
from autmarg.analysis.rules.contraction import CONTRACTION
from autmarg.analysis.rules.structural import STRUCTURAL

RULES: tuple[Rule, ...] = (*STRUCTURAL, *ARITHMETIC, *CONTRACTION)

_BY_PRIMITIVE = {name: rule for rule in RULES for name in rule.primitives}


def rule_for(primitive: str) -> Rule | None:
    """The rule for a primitive's name, or None."""
    return _BY_PRIMITIVE.get(primitive)
