"""Random models whose likelihood is not Gaussian: the identity, whitened and by quadrature.

What each log-density reads of each latent is held against derivatives. In the slow lane
``AUTMARG_TEST_WHITENED`` models (20) from a fresh seed, every fifth in single precision, those that
are whitened with equal elements of the data evaluated once, every second one in pieces. A failure
prints the model's text and its own seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import autmarg
from autmarg.aggregation import density, values
from autmarg.analysis.elements import SEVERAL, elements_read
from autmarg.analysis.log_densities import with_log_densities
from autmarg.analysis.sites import normalise
from autmarg.ir.nodes import Sample
from autmarg.trace.capture import trace_program
from tests.programs.test_composed import is_single
from tests.support.composer import NONGAUSSIAN, composed

COUNT = int(os.environ.get("AUTMARG_TEST_WHITENED", 20))


def prior_draw(model: Callable[[], None], seed: int) -> dict[str, Any]:
    """NumPyro's trace of a draw, which may overflow what reads it."""
    with numpyro.validation_enabled(False):
        return dict(handlers.trace(handlers.seed(model, jax.random.key(seed))).get_trace())


def check(seed: int, nongaussian: str = "whiten") -> bool:
    """log p(θ, u, y) = log p(θ, z, y) + log |∂z/∂u|; whether any latent went."""
    text, model = composed(seed, NONGAUSSIAN)
    trace = prior_draw(model, seed)
    marg = autmarg.transform(model, nongaussian=nongaussian)
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
    return bool(plan.whitened or plan.quadrature)


def check_elements(seed: int) -> None:
    """Elements of log-densities read of a latent what its derivatives say, or more."""
    text, model = composed(seed, NONGAUSSIAN)
    trace = prior_draw(model, seed)
    program = trace_program(model, (), {})[0]
    if program.obstacles:
        return
    program = normalise(program).program
    values = {n.name: jnp.asarray(trace[n.name]["value"]) for n in program.latents}
    sites = [n for n in program.nodes if isinstance(n, Sample)]
    tape, terms = with_log_densities(program.tape, sites)

    def evaluated(own: Any, name: str) -> list[Any]:
        found = tape.evaluate(terms, {**values, name: own.reshape(values[name].shape)})
        return [jnp.asarray(x).reshape(-1) for x in found]

    for node in program.latents:
        if not jnp.issubdtype(node.dtype, jnp.floating):
            continue
        flat = values[node.name].reshape(-1)
        slopes = jax.jacfwd(lambda own, name=node.name: evaluated(own, name))(flat)
        for read, slope in zip(elements_read(tape, node.name, terms), slopes, strict=True):
            others = np.arange(len(flat)) != read.reshape(-1, 1)
            there = np.nan_to_num(np.asarray(slope)) != 0
            wrong = there & others & (read.reshape(-1, 1) != SEVERAL)
            assert not wrong.any(), f"'{node.name}' at seed {seed} of\n{text}"


@pytest.fixture
def all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal elements are evaluated once in small arrays, too, and where that saves nothing."""
    monkeypatch.setattr(values, "_LEAST", 2)
    monkeypatch.setattr(values, "_WORTH", 1)
    monkeypatch.setattr(density, "_WORTH", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.usefixtures("all_classes")
def test_from_a_fresh_seed(number: int, fresh_seed: int, request: pytest.FixtureRequest) -> None:
    if number % 2:
        request.getfixturevalue("always_in_pieces")
    with jax.enable_x64(number % 5 != 4):
        check(fresh_seed + number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COUNT))
def test_quadrature_from_a_fresh_seed(number: int, fresh_seed: int) -> None:
    with jax.enable_x64(number % 5 != 4):
        check(fresh_seed + number, "quadrature")
        check_elements(fresh_seed + number)
