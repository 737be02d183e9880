"""Single beside double precision: the gradient at posterior points, and NUTS' posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from autmarg.pilot.chain import Sampler
from autmarg.pilot.ess import bulk_ess
from examples.benchmarks.gradients import energy
from examples.benchmarks.methods import Method, method
from examples.benchmarks.sets import Set

_POINTS = 20


def precision(data: Set, methods: Sequence[str], warmup: int, draws: int) -> list[dict[str, Any]]:
    """One row a method of a set.

    ``gradient`` is the largest error of a gradient in single precision at points of a posterior run
    in double, relative to the root mean square of the gradients there (of the vectors' norms; at a
    single point it can be next to nothing). ``worst`` is the largest difference of the posterior
    means in unconstrained space, in standard errors of both runs, over ``dims`` means; ``beyond``
    is how many differ by more than three. ``ess`` are the least bulk effective sample sizes.
    """
    return [row for each in methods if (row := _row(data, each, warmup, draws))]


def _row(data: Set, name: str, warmup: int, draws: int) -> dict[str, Any] | None:
    runs: dict[bool, np.ndarray] = {}
    gradients: dict[bool, np.ndarray] = {}
    divergences, some = [], np.linspace(0, draws - 1, _POINTS).astype(int)
    for double in (True, False):
        with jax.enable_x64(double):
            each = method(data, name)
            if each is None:
                return None
            chain = Sampler.of(NUTS(each.model), data.args, warmup=warmup).run(0, draws)
            flat = [np.asarray(v, np.float64).reshape(draws, -1) for v in chain.z.values()]
            runs[double] = np.concatenate(flat, axis=1)
            divergences.append(int(chain.diverging.sum()))
            gradients[double] = _gradients(data, each, runs[True][some])
    exact = gradients[True]
    error = np.linalg.norm(gradients[False] - exact, axis=1)
    size = np.sqrt(np.square(exact).sum(axis=1).mean())
    ess = {double: bulk_ess(run) for double, run in runs.items()}
    variance = sum(run.var(axis=0) / ess[double] for double, run in runs.items())
    apart = np.abs(runs[True].mean(axis=0) - runs[False].mean(axis=0)) / np.sqrt(variance)
    return {
        "set": data.name,
        "method": name,
        "gradient": float(error.max() / size),
        "dims": len(apart),
        "worst": float(apart.max()),
        "beyond": int((apart > 3).sum()),
        "ess64": float(ess[True].min()),
        "ess32": float(ess[False].min()),
        "div64": divergences[0],
        "div32": divergences[1],
    }


def _gradients(data: Set, each: Method, points: np.ndarray) -> np.ndarray:
    """[points, dims] gradients of the potential in the precision that is on."""
    _, both = energy(each.model, data.args)
    gradient = jax.jit(lambda flat: both(flat)[1])
    return np.array([np.asarray(gradient(jnp.asarray(at)), np.float64) for at in points])
