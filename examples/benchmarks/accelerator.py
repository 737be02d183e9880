"""An accelerator beside the processor: gradients, vectorised chains, blocks of proposals.

``python -m examples.benchmarks accelerator`` takes under eight minutes beside an accelerator.
It needs no data. Without an accelerator it measures the processor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from autmarg.sampling.target import Target
from examples.benchmarks.chains import chains
from examples.benchmarks.gradients import energy
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
_LARGE = 5e7  # numbers that the points of all chains, or proposals, read at most
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
    start, both = energy(each.model, data.args)
    found = scatters(jax.jit(both).lower(start).as_text())
    counts = _affordable(CHAINS, data.rows + len(start))
    for row in chains(data, each, counts, _ROUNDS, _SECONDS):
        yield _row("gradient", row["chains"], row["us"], row["us_min"], row["us_max"], found)


def _proposals(data: Set, each: Method) -> Iterator[dict[str, Any]]:
    """Densities of blocks of proposals."""
    if each.marg is None:
        return
    target = Target(each.marg, data.args, {})
    counts = _affordable(BLOCKS, data.rows)
    apart = 1e-3 * jax.random.normal(jax.random.key(0), (max(counts), target.size))
    for count in counts:
        points = 1.0 + apart[:count]
        lowered = jax.jit(jax.vmap(target.at)).lower(points)
        density = lowered.compile()

        def call(steps: int, points: Any = points, density: Callable[..., Any] = density) -> None:
            for _ in range(steps):
                found = density(points)
            jax.block_until_ready(found)

        (timed,) = alternate([call], _ROUNDS, _SECONDS)
        times = (1e6 * s for s in (timed.median, timed.least, timed.most))
        yield _row("proposals", count, *times, scatters(lowered.as_text()))


def _affordable(counts: Sequence[int], numbers: int) -> list[int]:
    """The first of some numbers of points, and those which read not too many numbers together."""
    return [n for n in counts if n == counts[0] or n * numbers <= _LARGE]


def _row(
    what: str, points: int, us: float, us_min: float, us_max: float, found: int
) -> dict[str, Any]:
    times = {"us": us, "us_min": us_min, "us_max": us_max, "us_each": us / points}
    return {"what": what, "points": points, **times, "scatters": found}


def scatters(program: str) -> int:
    """Scattered updates in the text of a program, before it is optimised."""
    return program.count('"stablehlo.scatter"')
