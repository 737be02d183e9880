"""Seconds of one value and gradient of the potential energy, inside a compiled loop."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import initialize_model, potential_energy

from examples.benchmarks.measure import Timed, alternate
from examples.benchmarks.methods import Method
from examples.benchmarks.sets import Set
from examples.models.reference import Model

_APPROACH = (0.05, 0.01)  # step of each unconstrained coordinate on the way to the posterior
AWAY = 1e-7  # step while the clock runs: the point moves, so that nothing is hoisted


@dataclass(frozen=True, eq=False)
class Potential:
    """The potential energy over one flat vector, compiled: value and gradient, and loops of it."""

    dimensions: int
    loop: Callable[[Any, int, float], tuple[Any, Any]]
    compile_seconds: float
    instructions: tuple[int, int]
    megabytes: float


def unconstrained(model: Model, args: tuple[Any, ...]) -> Any:
    """Shapes of the unconstrained latents; nothing is computed."""

    def initial(key: Any) -> Any:
        return initialize_model(key, model, model_args=args, validate_grad=False).param_info.z

    return jax.eval_shape(initial, jax.random.key(0))


def instructions(compiled: Any) -> tuple[int, int]:
    """Instructions of the optimised HLO, and those of its entry (a fusion or a call being one).

    Parameters, constants and the plumbing of tuples do not count.
    """
    text = compiled.as_text()
    entry = text[text.index("\nENTRY ") :]
    return _count(text), _count(entry[: entry.index("\n}")])


def _count(text: str) -> int:
    # The type of a result may be a tuple with blanks in it.
    line = r"^\s+(?:ROOT )?%?[\w.-]+ = (?:\([^)]*\)|\S+) ([\w-]+)\("
    idle = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
    return sum(name not in idle for name in re.findall(line, text, re.M))


def energy(model: Model, args: tuple[Any, ...]) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """Zero in unconstrained space, flat; and the potential energy's value and gradient there."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), unconstrained(model, args))
    start, unravel = ravel_pytree(zeros)
    return start, jax.value_and_grad(lambda flat: potential_energy(model, args, {}, unravel(flat)))


def moving(both: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any, Any, float], tuple[Any, Any]]:
    """A compiled loop of steps of one size along the gradient's signs: last point and value."""

    @jax.jit
    def loop(flat: Any, steps: Any, size: Any) -> tuple[Any, Any]:
        def step(_: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            value, gradient = both(state[0])
            return state[0] - size * jnp.sign(gradient), value

        none = jnp.zeros(flat.shape[:-1], flat.dtype)
        return jax.lax.fori_loop(0, steps, step, (flat, none))

    return loop


def potential(model: Model, args: tuple[Any, ...]) -> Potential:
    """Compile a model's potential energy for one set of arguments."""
    start, both = energy(model, args)
    started = time.perf_counter()
    compiled = jax.jit(both).lower(start).compile()
    seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes

    return Potential(len(start), moving(both), seconds, instructions(compiled), held / 2**20)


def approach(each: Potential) -> Any:
    """A point where the gradient has been followed for a while."""
    flat, value = jnp.zeros(each.dimensions), np.nan
    jax.block_until_ready(each.loop(flat, 1, 0.0))  # compiled now
    started = time.perf_counter()
    jax.block_until_ready(each.loop(flat, 1, 0.0))
    afford = int(2.0 / (time.perf_counter() - started)) + 5
    for size in _APPROACH:
        flat, value = each.loop(flat, min(200, afford), size)
    if not np.isfinite(value):
        raise ArithmeticError("the potential is not finite on the way to the posterior")
    return flat


def gradients(
    data: Set, methods: Sequence[Method], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row a method: times in microseconds, ratios to the source, counts."""
    potentials = [potential(m.model, data.args) for m in methods]
    times = timed(potentials, rounds, seconds)
    together = zip(methods, potentials, times, strict=True)
    return [_row(data, m, p, t, times[0]) for m, p, t in together]


def timed(potentials: Sequence[Potential], rounds: int, seconds: float) -> list[Timed]:
    """One value and gradient of each, side by side."""
    points = [approach(p) for p in potentials]
    calls = [
        lambda steps, p=p, point=point: jax.block_until_ready(p.loop(point, steps, AWAY))
        for p, point in zip(potentials, points, strict=True)
    ]
    return alternate(calls, rounds, seconds)


def _row(data: Set, m: Method, p: Potential, t: Timed, first: Timed) -> dict[str, Any]:
    return {
        "set": data.name,
        "rows": data.rows,
        "method": m.name,
        "dims": p.dimensions,
        "us": t.median * 1e6,
        "us_min": t.least * 1e6,
        "us_max": t.most * 1e6,
        "ratio": t.median / first.median,
        "hlo": p.instructions[0],
        "kernels": p.instructions[1],
        "compile_s": p.compile_seconds,
        "plan_s": m.plan_seconds,
        "mbytes": p.megabytes,
    }
