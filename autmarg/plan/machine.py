"""How fast this machine is, for what the planner predicts: three speeds, measured once.

The costs of :mod:`autmarg.plan.cost` are those of one machine; on another they are taken in
proportion to what `autmarg calibrate` has measured there. Without it, they are as they stand.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.errors import RequestError

_VARIABLE = "AUTMARG_MACHINE"  # names the file of the speeds; empty: none, the reference
_SIZE = 256  # columns of the product
_LONG = 100_000  # elements that are gathered
_ROUNDS, _SECONDS = 5, 0.05  # of which the fastest counts, and how long each is


@dataclass(frozen=True)
class Speeds:
    """Nanoseconds in float64, in a compiled loop.

    Attributes:
        product: of a multiply-add in a product of two matrices of 256 columns.
        element: of an element that is gathered, multiplied and added, of 100,000.
        kernel: of a small operation of its own.
    """

    product: float = 0.025
    element: float = 1.1
    kernel: float = 22.0

    def over(self, other: Speeds) -> Speeds:
        """How many times as slow as ``other``."""
        return Speeds(**{n: value / getattr(other, n) for n, value in asdict(self).items()})


REFERENCE = Speeds()


def place() -> Path | None:
    """The file of this machine's speeds: by ``AUTMARG_MACHINE``, else in the user's cache."""
    named = os.environ.get(_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "autmarg" / "machine.json"


def slowness() -> Speeds:
    """How many times as slow as the reference this machine is; ones where it is not known.

    Raises:
        RequestError: the file is not one of speeds.
    """
    file = place()
    return _read(file) if file is not None and file.exists() else REFERENCE.over(REFERENCE)


@cache
def _read(file: Path) -> Speeds:
    try:
        found = json.loads(file.read_text())
        speeds = Speeds(**{each.name: float(found[each.name]) for each in fields(Speeds)})
        if min(asdict(speeds).values()) <= 0:
            raise ValueError("a speed that is not positive")
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(
            f"{file}: expected the speeds that 'autmarg calibrate' writes, found "
            f"{type(error).__name__}: {error}; delete it, or calibrate again"
        ) from error
    return speeds.over(REFERENCE)


def save(speeds: Speeds, file: Path) -> None:
    """Write speeds to a file, for the plans of this and of later processes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(speeds), indent=2) + "\n")
    _read.cache_clear()


def measure() -> Speeds:
    """Measure this machine; takes a few seconds.

    Raises:
        RequestError: JAX is not in double precision.
    """
    if not jax.config.read("jax_enable_x64"):
        raise RequestError("expected double precision: call numpyro.enable_x64() before measuring")
    rng = np.random.default_rng(0)
    square = rng.normal(size=(_SIZE, _SIZE)) / _SIZE
    index, factor = rng.integers(0, _LONG, _LONG), rng.uniform(0.4, 0.6, _LONG)
    small = rng.normal(size=(8, 8)) / 8
    return Speeds(
        product=_nanoseconds(lambda x: x @ square, square, _SIZE**3),
        element=_nanoseconds(lambda x: factor * x[index] + factor, factor, _LONG),
        kernel=_nanoseconds(lambda x: small @ x, small[0], 1),
    )


def _nanoseconds(step: Callable[[Any], Any], start: Any, parts: int) -> float:
    """The least time of a step for each of its parts, in a compiled loop."""

    @jax.jit
    def loop(x: Any, count: Any) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, x: step(x), x)

    def seconds(count: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(loop(jnp.asarray(start), count))
        return time.perf_counter() - began

    seconds(1)  # compiles
    count = 1
    while seconds(count) < _SECONDS:
        count *= 2
    return 1e9 * min(seconds(count) for _ in range(_ROUNDS)) / (count * parts)
