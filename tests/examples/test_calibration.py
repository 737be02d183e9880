"""The statistic of examples/calibration.py: right posteriors pass it, wrong ones do not.

A conjugate model: x ~ N(0, 1), y ~ N(x, 1), so x | y ~ N(y/2, 1/2). Fixed seed; p-values are of χ²
with 9 degrees of freedom, so that a right posterior is flagged with probability 10⁻³.
"""

from __future__ import annotations

import numpy as np
import pytest

from examples.calibration import BINS, DRAWS, ranks_of, scalars, uniformity

RNG = np.random.default_rng(11)
X = RNG.normal(size=400)
Y = X + RNG.normal(size=400)
DEVIATIONS = RNG.normal(size=(400, DRAWS)) / np.sqrt(2)


def p_of(draws):
    return uniformity(ranks_of(X, draws))[1]


def test_exact_draws_are_uniform():
    assert p_of(Y[:, None] / 2 + DEVIATIONS) > 1e-3


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 0.6), (0.0, 1.6), (0.4, 1.0)])
def test_wrong_posteriors_are_flagged(shift, scale):
    assert p_of(Y[:, None] / 2 + shift + scale * DEVIATIONS) < 1e-6


def test_the_prior_is_calibrated_but_its_joint_density_is_not():
    """Draws that ignore the data: only a statistic that reads the data can tell."""
    draws = np.sqrt(2) * DEVIATIONS
    assert p_of(draws) > 1e-3

    def joint(x, y):
        return -(x**2) / 2 - (y - x) ** 2 / 2

    assert uniformity(ranks_of(joint(X, Y), joint(draws, Y[:, None])))[1] < 1e-6


def test_every_scalar_is_ranked_and_every_rank_has_a_bin():
    found = scalars({"u": np.zeros((3, 2)), "L": np.ones((3, 2, 2)), "s": np.zeros(3)}, lead=1)
    assert list(found) == ["L[1, 0]", "s", "u[0]", "u[1]"]
    assert uniformity(np.arange(DRAWS + 1)) == (0.0, 1.0) and (DRAWS + 1) % BINS == 0
