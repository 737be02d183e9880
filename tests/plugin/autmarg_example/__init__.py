"""A family and an elimination stage; the pass is in ``passes``."""

from __future__ import annotations

import autmarg
from autmarg_example.families import Shifted
from autmarg_example.stages import OneColumn


def register() -> None:
    """What autmarg calls when it meets its first model."""
    autmarg.register_gaussian(Shifted, lambda d: autmarg.Gaussian(d.loc + 1.0, scale=d.scale))
    autmarg.register_stage(OneColumn)
