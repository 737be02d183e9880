"""Texts that are no programs: each file of invalid/ has one, and the error that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

import autmarg
from autmarg.ir.store import Store, read_program
from tests.support import golden
from tests.support.compiled import traced

FILES = sorted((Path(__file__).parent / "invalid").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_error(path):
    """A text of ``three_levels`` is read as an edit of that program, others by themselves."""
    text = golden.sections(path)["program"]
    store = Store(traced("three_levels")) if "program three_levels" in text else None
    with pytest.raises(autmarg.AutmargError) as caught:
        read_program(text, store)
    golden.check(path, error=f"{type(caught.value).__name__}: {caught.value}")
