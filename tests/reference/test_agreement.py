"""Posteriors of transformed models against long runs of their sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples.agreement import CASES, agreement
from examples.benchmarks.agreement import BOUND
from examples.benchmarks.agreement import agreement as of_sample
from examples.benchmarks.sets import NAMES, load_set
from examples.models import REFERENCE
from examples.models.reference import Reference

Arguments = Callable[[Reference], tuple[Any, ...]]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_posterior_of_all_latents(name: str, arguments: Arguments) -> None:
    """Means and sds, recovered latents included, agree within four Monte-Carlo standard errors."""
    arguments(CASES[name][0])  # skips where the data are absent
    found = agreement(name)
    print(found)
    assert all(run.min_ess >= 1000 for run in found.runs.values())
    assert found.worst("mean")[0] < 4
    assert found.worst("sd")[0] < 4


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in NAMES if n != "insteval"])  # hours of NUTS
def test_posterior_of_sample(name: str, arguments: Arguments) -> None:
    """Means and log sds of what ``marg.sample`` samples agree with those of NumPyro's NUTS."""
    arguments(REFERENCE[name])
    found = of_sample(load_set(name), 0, 1000, 2500)
    print(found)
    assert max(found["mean"], found["log_sd"]) < BOUND
