"""Effective sizes of one chain: of independent, swinging, shifted, constant and stuck draws."""

from __future__ import annotations

import numpy as np
import pytest

from autmarg.pilot.ess import bulk_ess, sizes_by_site, smallest


def test_bulk_ess_counts_independent_draws_as_what_they_are():
    draws = np.random.default_rng(0).standard_cauchy(size=(2000, 3))
    assert bulk_ess(draws) == pytest.approx(2000, rel=0.15)


def test_bulk_ess_of_draws_that_swing_is_large_and_not_negative():
    noise = np.random.default_rng(0).normal(size=(101, 1))
    assert bulk_ess(noise[1:] - noise[:-1]) == pytest.approx(100 * np.log10(100))


def test_bulk_ess_sees_a_shift_between_the_halves():
    draws = np.random.default_rng(0).normal(size=(2000, 1))
    draws[1000:] += 5
    assert bulk_ess(draws)[0] < 10


def test_the_smallest_ess_leaves_constants_out_and_counts_a_stuck_element_as_zero():
    generator = np.random.default_rng(0)
    moving = {"x": generator.normal(size=(500, 2)), "chol": np.ones((500, 2, 2))}
    stuck = {**moving, "x": moving["x"] * [1.0, 0.0]}
    alive, dead = (smallest(sizes)[0] for sizes in sizes_by_site([moving, stuck], [*moving]))
    assert alive > 300
    assert dead == 0
