"""Random models whose likelihood is not Gaussian, whitened: the identity at any noise.

In the slow lane ``AUTMARG_TEST_WHITENED`` models (20) from a fresh seed, every fifth in single
precision. A failure prints the model's text and its own seed.
"""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import autmarg
from tests.programs.test_composed import is_single
from tests.support.composer import NONGAUSSIAN, composed

COUNT = int(os.environ.get("AUTMARG_TEST_WHITENED", 20))


def check(seed: int) -> bool:
    """log p(θ, u, y) = log p(θ, z, y) + log |∂z/∂u|; whether anything was whitened."""
    text, model = composed(seed, NONGAUSSIAN)
    trace = handlers.trace(handlers.seed(model, jax.random.key(seed))).get_trace()
    marg = autmarg.transform(model, nongaussian="whiten")
    compiled, traced = marg.compiled()
    plan = compiled.plan
    assert str(plan) and repr(plan)
    if plan.program.obstacles:
        return False
    kept = {name: jnp.asarray(trace[name]["value"]) for name in plan.kept}
    rng = np.random.default_rng(seed)
    kept |= {name: jnp.asarray(rng.normal(size=size), float) for name, size in plan.noise.items()}

    @jax.jit
    def sides(key, kept):
        drawn, density = compiled.recovery.draw_with_density(key, kept, traced)
        own = {name: x for name, x in kept.items() if name not in plan.noise}
        joint = log_density(model, (), {}, {**own, **drawn})[0]
        return joint, log_density(marg, (), {}, kept)[0], density

    joint, marginal, conditional = map(float, sides(jax.random.key(seed), kept))
    if np.isfinite(joint):
        single = is_single(trace) or not jax.config.read("jax_enable_x64")
        eps = np.finfo(np.float32 if single else np.float64).eps
        size = 10 + abs(joint) + abs(marginal) + abs(conditional)
        error = abs(joint - marginal - conditional)
        assert error <= 3e4 * eps * size, f"{error} nats at seed {seed} of\n{text}"
    return bool(plan.whitened)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COUNT))
def test_from_a_fresh_seed(number: int, fresh_seed: int) -> None:
    with jax.enable_x64(number % 5 != 4):
        check(fresh_seed + number)
