"""At the mode, with z = 0, the density is Laplace's approximation: lme4's objective.

lme4 ends its search for the mode of the effects at a relative change of 1e-7 in the penalised sum
of squares, so that its objectives are good to some 1e-7 of their size: 4e-4 of a nat at worst here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from examples.models.likelihoods import GENERALISED


@dataclass(frozen=True)
class Published:
    """lme4's optimum for a model of ``examples/models/likelihoods.py``, columns not standardised.

    Attributes:
        beta: coefficients, the intercept first.
        factors: column → standard deviation.
        log_likelihood: at them.
    """

    beta: Sequence[float]
    factors: dict[str, float]
    log_likelihood: float


MODELS = {
    "cbpp": Published(
        (-1.398332, -0.991924, -1.128214, -1.579750), {"herd": 0.642064}, -92.026566
    ),
    "contraception": Published(
        (-1.059083, 0.003279, -0.004474, 0.770717, 0.834572, 0.913651, 0.927092),
        {"dist_urban": 0.572964}, -1180.773104,
    ),
    "bacteria": Published(
        (3.547948, -1.366653, -0.782651, -1.598488), {"id": 1.242321}, -96.130721
    ),
    "ohio": Published((-3.401704, -0.217039, 0.478225, 0.104646), {"id": 2.345591}, -794.656650),
    "epil": Published(
        (1.832920, -0.334125, 0.883390, 0.480827, -0.159770, 0.338784), {"subject": 0.501101},
        -665.474790,
    ),
    "mmmec": Published((-0.138593, -0.034430), {"region": 0.411923}, -1125.199977),
    "grouseticks": Published(
        (0.372792, 1.180402, -0.978694, -0.023760),
        {"brood": 0.750031, "index": 0.541508, "location": 0.528721}, -890.271353,
    ),
    "verbagg": Published(
        (0.199266, 0.057409, 0.320618, -1.058655, -2.105060, -1.055278),
        {"person": 1.339537, "item": 0.495246}, -4075.700245,
    ),
}  # fmt: skip


QUICK = ("bacteria",)


def cases() -> Iterator[Any]:
    for name in MODELS:
        yield pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("name", list(cases()))
def test_laplace(name: str, arguments: Callable[[Any], tuple[Any, ...]]) -> None:
    """To rounding by dense matrices, and to lme4's own digits."""
    each, own = MODELS[name], GENERALISED[name]
    (data,) = arguments(own)
    rows = np.column_stack([np.ones(len(data["row"])), *own.design(data)])
    fixed = rows @ np.array(each.beta) + (own.offset(data) if own.offset else 0.0)
    levels = {f: np.unique(data[f], return_inverse=True) for f in each.factors}

    def model() -> None:
        eta = fixed
        for factor, scale in each.factors.items():
            names, index = levels[factor]
            with numpyro.plate(f"{factor} levels", len(names)):
                effect = numpyro.sample(factor, dist.Normal(0, scale))
            eta = eta + effect[index]
        fn, y = own.response(eta, data)
        numpyro.sample("y", fn, obs=y)

    def joint(flat: Any) -> Any:
        effects = jnp.split(flat, np.cumsum([len(names) for names, _ in levels.values()])[:-1])
        eta, total = fixed, 0.0
        for effect, (factor, (_, index)) in zip(effects, levels.items(), strict=True):
            total += dist.Normal(0, each.factors[factor]).log_prob(effect).sum()
            eta = eta + effect[index]
        fn, y = own.response(eta, data)
        return total + fn.log_prob(y).sum()

    marg = autmarg.transform(model, nongaussian="whiten")
    ((noise, size),) = marg.plan().noise.items()
    found = log_density(marg, (), {}, {noise: jnp.zeros(size)})[0] + 0.5 * size * np.log(2 * np.pi)
    assert found == pytest.approx(laplace(joint, size), abs=1e-8)
    assert found == pytest.approx(each.log_likelihood, abs=4e-4)


def laplace(joint: Callable[[Any], Any], size: int) -> float:
    """log p(û, y) + ½ n log 2π - ½ log|H| by Newton's method with steps that go uphill."""
    value, slope, curve = jax.jit(joint), jax.jit(jax.grad(joint)), jax.jit(jax.hessian(joint))
    u = np.zeros(size)
    for _ in range(30):
        step, length = np.linalg.solve(-curve(u), slope(u)), 1.0
        while not value(u + length * step) >= value(u) - 1e-10 and length > 1e-3:
            length *= 0.5
        u = u + length * step
        if np.abs(step).max() < 1e-9:
            break
    log_det = np.linalg.slogdet(-np.asarray(curve(u)))[1]
    return float(value(u)) + 0.5 * size * math.log(2 * math.pi) - 0.5 * log_det
