"""How affine values pass through JAX primitives: one rule a group of primitives.

``RULES`` and ``CALLS`` list them all; :func:`rule_for` and :func:`call_for` find the one for a
primitive. A primitive without a rule is nonlinear as far as the analysis knows (sound, incomplete).
"""

from __future__ import annotations

from autmarg.analysis.rules.arithmetic import ARITHMETIC
from autmarg.analysis.rules.base import AffineRule
from autmarg.analysis.rules.calls import CALLS, Call
from autmarg.analysis.rules.contraction import CONTRACTION
from autmarg.analysis.rules.matrix import MATRIX
from autmarg.analysis.rules.scatter import SCATTER
from autmarg.analysis.rules.structural import STRUCTURAL
from autmarg.compat.jaxprs import Op

RULES: tuple[AffineRule, ...] = (*STRUCTURAL, *ARITHMETIC, *CONTRACTION, *SCATTER, *MATRIX)

_RULES = {op: rule for rule in RULES for op in rule.ops}
_CALLS = {op: call for call in CALLS for op in call.ops}


def rule_for(op: Op) -> AffineRule | None:
    """The rule for a primitive, or None."""
    return _RULES.get(op)


def call_for(op: Op) -> Call | None:
    """How a primitive that holds programs is run, or None where it is no such primitive."""
    return _CALLS.get(op)
