"""Models put together at random (``support/composer.py``): no foreign exception, no other density.

In the slow lane ``AUTMARG_TEST_COMPOSED`` models (30) from a fresh seed, every fifth in single
precision. A failure prints the model's text and its own seed.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import autmarg
from tests.support.composer import composed

COUNT = int(os.environ.get("AUTMARG_TEST_COMPOSED", 30))


def check(seed: int) -> None:
    """The identity at a prior draw and at a recovered one; whatever is raised is the test's."""
    text, model = composed(seed)
    trace = handlers.trace(handlers.seed(model, jax.random.key(seed))).get_trace()
    marg = autmarg.transform(model, marginalize=("auto", "all")[seed % 2])
    compiled, traced = marg.compiled()
    plan = compiled.plan
    assert str(plan) and repr(plan)
    if plan.program.obstacles:
        return
    values = {node.name: jnp.asarray(trace[node.name]["value"]) for node in plan.program.latents}
    kept = {name: values[name] for name in plan.kept}
    members = {name: values[name] for name in plan.integrated}

    @jax.jit
    def sides(key, kept, members):
        drawn, density = compiled.recovery.draw_with_density(key, kept, traced)
        formula = compiled.recovery.log_conditional({**traced, **kept}, members)
        joint = [log_density(model, (), {}, {**kept, **point})[0] for point in (drawn, members)]
        marginal = log_density(marg, (), {}, kept)[0]
        return jnp.stack(joint), marginal, jnp.stack([density, formula])

    joint, marginal, conditional = sides(jax.random.key(seed), kept, members)
    error = np.abs(np.asarray(joint - marginal - conditional)[np.isfinite(joint)])
    eps = np.finfo(joint.dtype).eps
    size = 10 + sum(np.abs(each).max() for each in (joint, marginal, conditional))
    allowed = 3e4 * (np.finfo(np.float32).eps if is_single(trace) else eps) * size
    assert (error <= allowed).all(), f"{error} nats of {allowed} at seed {seed} of\n{text}"


def is_single(trace: dict[str, Any]) -> bool:
    """Whether any data, or parameters, are in single precision, where NumPyro then stays."""
    sites = [s for s in trace.values() if s["type"] == "sample"]
    numbers = jax.tree.leaves([(s["fn"], s["value"]) for s in sites])
    return any(getattr(x, "dtype", None) == np.float32 for x in numbers)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COUNT))
def test_from_a_fresh_seed(number: int, fresh_seed: int) -> None:
    with jax.enable_x64(number % 5 != 4):
        check(fresh_seed + number)
