"""The three speeds of this machine, as `autmarg calibrate` measures them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.errors import RequestError
from autmarg.plan.machine import Speeds

_SIZE = 256  # columns of the product
_LONG = 100_000  # elements that are gathered
_ROUNDS, _SECONDS = 5, 0.05  # of which the fastest counts, and how long each is


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
