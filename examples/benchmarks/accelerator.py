"""An accelerator beside the processor: gradients, vectorised chains, blocks of proposals.

``python -m examples.benchmarks accelerator`` takes under eight minutes beside an accelerator.
It needs no data. Without an accelerator it measures the processor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from autmarg.sampling.target import Target
from examples.benchmarks.gradients import AWAY, approach, energy, moving, potential
from examples.benchmarks.measure import alternate
from examples.benchmarks.methods import Method, method
from examples.benchmarks.sets import Set

SETS = (
    "crossed:levels=200x50,rows=1e4,slopes=1",
    "nested:levels=100000x100,rows=1e6",
    "chain:steps=10000",
)
CHAINS = (1, 16, 256)
BLOCKS = (16, 256, 4096)
_LARGE = 1e7  # numbers that the points of all chains, or proposals, read at most
_ROUNDS, _SECONDS = 3, 0.1


def accelerator(data: Set) -> Iterator[dict[str, Any]]:
    """One row for each device and measurement: microseconds in all and for each point.

    ``scatters`` counts the scattered updates of the program, which an accelerator does one by one
    where they meet.
    """
    for device in devices():
        with jax.default_device(device):
            for name in ("source", "all"):
                each = method(data, name)
                assert each is not None
                for row in (*_gradients(data, each), *_proposals(data, each)):
                    yield {"set": data.name, "device": device.platform, "method": name, **row}


def devices() -> list[jax.Device]:
    """The processor, and an accelerator where there is one."""
    default = jax.devices()[0]
    return jax.devices("cpu")[:1] + ([default] if default.platform != "cpu" else [])


def _gradients(data: Set, each: Method) -> Iterator[dict[str, Any]]:
    """Of one point, and of several side by side as vectorised chains have them."""
    single = potential(each.model, data.args)
    point = approach(single)
    _, both = energy(each.model, data.args)
    together = moving(jax.vmap(both))
    apart = 1e-3 * jax.random.normal(jax.random.key(0), (max(CHAINS), len(point)))
    for count in CHAINS:
        if count > 1 and count * (len(point) + data.rows) > _LARGE:
            continue
        points = point + apart[:count]
        lowered = jax.jit(jax.vmap(both)).lower(points)

        def call(steps: int, points: Any = points) -> Any:
            return jax.block_until_ready(together(points, steps, AWAY))

        yield _row("gradient", count, call, lowered)


def _proposals(data: Set, each: Method) -> Iterator[dict[str, Any]]:
    """Densities of a block of proposals."""
    if each.marg is None:
        return
    target = Target(each.marg, data.args, {})
    for count in BLOCKS:
        if count > BLOCKS[0] and count * data.rows > _LARGE * 4:
            continue
        points = 1.0 + 1e-3 * jax.random.normal(jax.random.key(0), (count, target.size))
        lowered = jax.jit(jax.vmap(target.at)).lower(points)
        density = lowered.compile()

        def call(steps: int, points: Any = points, density: Callable[..., Any] = density) -> None:
            for _ in range(steps):
                found = density(points)
            jax.block_until_ready(found)

        yield _row("proposals", count, call, lowered)


def _row(what: str, count: int, call: Callable[[int], Any], lowered: Any) -> dict[str, Any]:
    (timed,) = alternate([call], _ROUNDS, _SECONDS)
    return {
        "what": what,
        "points": count,
        "us": timed.median * 1e6,
        "us_min": timed.least * 1e6,
        "us_max": timed.most * 1e6,
        "us_each": timed.median * 1e6 / count,
        "scatters": scatters(lowered.as_text()),
    }


def scatters(program: str) -> int:
    """Scattered updates in the text of a program, before it is optimised."""
    return program.count('"stablehlo.scatter"')
