"""Settings and fixtures of all tests: double precision, data sets, quick compilation.

Nearly all of a test's time is compilation, of programs that run once or twice. They are compiled
with little optimisation, with XLA's older and quicker emitter of fused loops, and each on one core,
for another worker has the next; all that also holds in subprocesses. ``AUTMARG_TEST_OPTIMISED=1``
leaves XLA as users have it.
"""

from __future__ import annotations

import gc
import os
import secrets

if not os.environ.get("AUTMARG_TEST_OPTIMISED"):  # before JAX is imported
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    own = os.environ.get("XLA_FLAGS", "")  # of two values, the later one holds
    os.environ["XLA_FLAGS"] = f"{flags} {own}".strip()
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from autmarg.passes import whiten
from autmarg.plan import in_time
from examples.data import MissingData, load
from examples.models import Published, Reference

jax.config.update("jax_enable_x64", True)
os.environ["AUTMARG_CACHE"] = ""  # nothing compiled comes from another run
os.environ["AUTMARG_MACHINE"] = ""  # plans as on the reference machine, wherever tests run
gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, of which few are garbage

_SEED = "AUTMARG_TEST_SEED"


def pytest_configure() -> None:
    """Draw a seed for the slow lane's random programs, once for all workers."""
    os.environ.setdefault(_SEED, str(secrets.randbelow(10**9)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say the seed, where any test was collected that reads it."""
    if "slow" in terminalreporter.config.option.markexpr.replace("not slow", ""):
        terminalreporter.write_line(f"random programs: {_SEED}={os.environ[_SEED]}")


@pytest.fixture
def fresh_seed() -> int:
    """A seed that differs from run to run: ``AUTMARG_TEST_SEED``, which the summary shows."""
    return int(os.environ[_SEED])


_load = cache(load)


@cache
def _arguments(case: Reference | Published) -> tuple[Any, ...]:
    return case.arguments()


@pytest.fixture
def data() -> Callable[[str], dict[str, np.ndarray]]:
    """``data(name)`` gives a data set's columns; skips the test when the data set is absent."""

    def columns(name: str) -> dict[str, np.ndarray]:
        try:
            return _load(name)
        except MissingData as missing:
            pytest.skip(str(missing))

    return columns


@pytest.fixture
def arguments() -> Callable[[Reference | Published], tuple[Any, ...]]:
    """``arguments(case)`` gives a model's arguments; skips the test when the data are absent."""

    def of_case(case: Reference | Published) -> tuple[Any, ...]:
        try:
            return _arguments(case)
        except MissingData as missing:
            pytest.skip(str(missing))

    return of_case


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """No implicit dtype promotion inside the test: for our own numerics, not for users' models."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """Little optimisation, also where ``AUTMARG_TEST_OPTIMISED`` leaves XLA as users have it."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def always_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains are filtered however short they are, whether that takes less time or not."""
    monkeypatch.setattr(in_time, "_FAR", float("inf"))


@pytest.fixture
def always_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents are whitened in pieces wherever there are two, whether that pays or not."""
    monkeypatch.setattr(whiten, "SMALL_ROOT", 0)
    monkeypatch.setattr(whiten, "_quicker", lambda *plans: True)
