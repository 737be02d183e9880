"""A function at many draws: some side by side, the rest one after the other, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from tqdm.auto import tqdm

from autmarg.compat.programs import mapped, without_axes

MEMORY = 2.0e7  # numbers that one batch of draws may hold by default
TOGETHER = 16  # draws worked on side by side: what they need should stay in a processor's cache
LONG = 2.0e8  # draws times elements from which a progress bar is worth it


def at_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """(own [C, K], values [C, K, …], traced) → function at each [C K, …], K side by side."""
    return mapped(function, _side_by_side, _of_one)


def _side_by_side(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(own: Any, values: Mapping[str, Any], traced: Any) -> Any:
        some = jax.vmap(function, in_axes=(0, 0, None))
        out = jax.lax.map(lambda each: some(*each, traced), (own, values))
        return jax.tree.map(_joined, out)

    return run


def _of_one(own: Any, values: Mapping[str, Any], traced: Any) -> tuple[Any, ...]:
    """The shapes of one draw."""
    return *jax.tree.map(lambda x: without_axes(x, 2), (own, values)), traced


def in_batches(
    run: Callable[..., Any],
    own: np.ndarray,
    values: Mapping[str, Any],
    traced: Any,
    *,
    batch: int,
    together: int,
    name: str,
    show: bool,
) -> Any:
    """What ``run`` (of :func:`at_each`) gives at all draws, [draws, …].

    Args:
        run: the function.
        own: its first argument for each draw, [draws, …].
        values: by site, [draws, …].
        traced: the same for all draws.
        batch: draws worked on at once, ``together`` of them side by side.
        name: of the progress bar, ``show`` whether there is one.
    """
    count, parts = len(own), []
    with tqdm(total=count, desc=name, disable=not show) as bar:
        for start in range(0, count, batch):
            here = min(batch, count - start)
            some = np.minimum(start + np.arange(-(-here // together) * together), count - 1)
            some = some.reshape(-1, together)
            each = {site: _rows(value, some) for site, value in values.items()}
            out = run(_rows(own, some), each, traced)
            out = jax.tree.map(lambda x, n=here: _first(x, n), out)
            parts.append(jax.block_until_ready(out))
            bar.update(here)
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


def _rows(x: Any, places: np.ndarray) -> Any:
    """Some rows of an array; of known numbers by NumPy, which compiles nothing."""
    return x[places] if isinstance(x, Tracer) else jax.device_put(np.asarray(x)[places])


def _first(x: Any, count: int) -> Any:
    """The first rows of an array; in a processor's memory by NumPy, which compiles nothing."""
    if len(x) == count:
        return x
    here = not isinstance(x, Tracer) and all(d.platform == "cpu" for d in x.devices())
    return jax.device_put(np.asarray(x)[:count]) if here else x[:count]


def _joined(x: Any) -> Any:
    """[C, K, …] as [C K, …], also of no elements."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
