"""A family, an elimination stage, a term of the energy and a rule; the pass is in ``passes``."""

from __future__ import annotations

import autmarg
from autmarg_example.families import Shifted
from autmarg_example.stages import OneColumn
from autmarg_example.terms import FewRows

SUM_OF_SQUARES = """
  rule variance_sum_of_squares
    prior  x ~ InverseGamma(a, b)
    child  y ~ Gamma(k, e / x) given e > 0
    update a -> a + sum(k), b -> b + sum(e * y)
"""


def register() -> None:
    """What autmarg calls when it meets its first model."""
    autmarg.register_gaussian(Shifted, lambda d: autmarg.Gaussian(d.loc + 1.0, scale=d.scale))
    autmarg.register_stage(OneColumn)
    autmarg.register_term(FewRows)
    autmarg.register_rule(SUM_OF_SQUARES)
