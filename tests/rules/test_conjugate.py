"""Conjugacies in programs: every rule is found and exact, in several spellings; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import autmarg
from autmarg.rules.registry import SHIPPED, shipped
from tests.generator.identity import identity
from tests.rules import models

RULES = dict(zip(SHIPPED, shipped(), strict=True))
PROGRAMS = (*models.FIRST, *models.SECOND)


@pytest.mark.parametrize("model", PROGRAMS, ids=lambda m: m.__name__)
def test_found_and_exact(model, quick_compilation):
    marg = autmarg.transform(model)
    plan = marg.plan()
    assert set(plan.integrated) == {n.name for n in plan.program.latents} & models.PARENTS
    rule = RULES[next(name for name in SHIPPED if model.__name__.startswith(name))]
    assert f"{rule.title} rule, " in str(plan).replace("\n", "")
    found = identity(marg, values=models.values_of(plan.program.latents))
    assert np.isfinite(found.errors).all()
    assert np.abs(found.errors).max() < min(found.tolerance, 1e-9)
