"""Posteriors of transformed models against long runs of their sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples.agreement import CASES, agreement
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
