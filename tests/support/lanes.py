"""Test parameters in two lanes: some cases by default, the others with ``pytest -m slow``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def _name(case: Any) -> str:
    return getattr(case, "__name__", str(case))


def lanes(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Every case as a test parameter; those that are not in ``quick`` are marked slow.

    Args:
        cases: names, functions, or tuples of several parameters.
        quick: the cases of the default lane: one spelling of each structure.

    Raises:
        ValueError: ``quick`` has something that is no case.
    """
    cases = list(cases)
    if unknown := [case for case in quick if case not in cases]:
        raise ValueError(f"expected some of {cases}, found {unknown}")
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in quick else pytest.mark.slow,
            id="-".join(map(_name, case)) if isinstance(case, tuple) else _name(case),
        )
        for case in cases
    ]
