"""Programs that nobody wrote: what should be integrated out is, and the identity holds.

2 programs in double and 2 in single precision by default, always the same. In the slow lane
(``pytest -m slow tests/programs/test_generated.py``) there are ``AUTMARG_TEST_PROGRAMS`` (200) from
a fresh seed, every tenth ten of them in single precision; pytest's summary says the seed, and
``AUTMARG_TEST_SEED`` takes it. A failure prints the least failing program as text: paste it into
test_regressions.py.
"""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

import autmarg
from tests.support.dense import marginal
from tests.support.generator.identity import identity
from tests.support.generator.program import Program
from tests.support.generator.strategies import programs
from tests.support.lanes import lanes

CHUNK = 5  # programs of one test, so that workers share them
TRIES = 4  # of each, since some are drawn twice

# The rules by which a latent of a generated program may stay.
RULES = {
    "non-Gaussian prior",
    "nonlinear mean",
    "latent in a scale",
    "latent in a covariance",
    "mask of a latent",
    "non-Gaussian child",
    "product of latents",
    "not conjugate",
}


def check(program: Program, number: int) -> None:
    """What can go goes, every latent that stays has a reason to, and nothing changed.

    (What nothing reads goes, too, as under a mask over all rows: the program does not know of it.)

    The first of a chunk is held against a dense Gaussian, too, the last one is verified.
    """
    marg = autmarg.transform(program.model, marginalize="all")
    plan = marg.plan()
    reasons = "\n".join(f"{r.site}: {r}" for r in plan.refusals)
    assert set(plan.integrated) >= program.integrated, reasons
    assert {r.site for r in plan.refusals} == set(plan.kept)
    assert {r.rule for r in plan.refusals} <= RULES, reasons
    found = identity(marg)
    assert np.abs(found.errors).max() <= found.tolerance
    if number == 0 and jax.config.values["jax_enable_x64"]:
        expected = marginal(program.model, plan.integrated, found.kept)
        np.testing.assert_allclose(found.density, expected, rtol=1e-9, atol=found.tolerance)
    if number == CHUNK - 1:
        autmarg.verify(marg, points=2, quiet=True)


def check_some(number: int, count: int = CHUNK) -> None:
    """Draw and check ``count`` different programs."""
    done: set[str] = set()

    @seed(number)
    @settings(
        max_examples=TRIES * CHUNK,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def every(program: Program) -> None:
        # (not assume: hypothesis may take the same choices twice, and wants the same result)
        if len(done) == count or str(program) in done:
            return
        check(program, len(done))
        done.add(str(program))

    every()
    assert len(done) == count


@pytest.mark.parametrize("number", lanes(range(2), quick=[0]))
def test_in_double_precision(number: int) -> None:
    check_some(number, 2)


@pytest.mark.parametrize("number", [10])
def test_in_single_precision(number: int) -> None:
    with jax.enable_x64(False):
        check_some(number, 2)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(int(os.environ.get("AUTMARG_TEST_PROGRAMS", 200)) // CHUNK))
def test_from_a_fresh_seed(chunk: int, fresh_seed: int) -> None:
    with jax.enable_x64(chunk % 10 != 9):
        check_some(fresh_seed + chunk)
