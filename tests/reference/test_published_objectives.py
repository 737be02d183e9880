"""Maximum-likelihood and REML optima that lme4 and MixedModels.jl publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import log_density
from scipy.optimize import minimize

import autmarg
from examples.models import PUBLISHED, Published
from examples.models.published import DYESTUFF_RESTRICTED, dyestuff_restricted
from tests.support.lanes import lanes

Arguments = Callable[[Published], tuple[Any, ...]]


def deviance_at_optimum(
    model: Callable[..., None],
    args: tuple[Any, ...],
    integrated: list[str],
    start: dict[str, Any],
) -> float:
    """The minimum of -2 log p(y | kept) over the kept sites, each on its unconstrained scale."""
    marg = autmarg.transform(model, marginalize=integrated)
    given = {name: jnp.asarray(value) for name, value in start.items()}
    seeded = handlers.seed(handlers.substitute(model, given), 0)
    trace = handlers.trace(seeded).get_trace(*args)
    to_support = {name: biject_to(trace[name]["fn"].support) for name in given}
    flat, unravel = ravel_pytree({name: to_support[name].inv(given[name]) for name in given})

    @jax.jit
    @jax.value_and_grad
    def deviance(x: jax.Array) -> jax.Array:
        values = {name: to_support[name](value) for name, value in unravel(x).items()}
        return -2 * log_density(marg, args, {}, values)[0]

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = deviance(jnp.asarray(x))
        return float(value), np.asarray(gradient)

    options = {"ftol": 1e-13, "gtol": 1e-5, "maxiter": 500}
    return minimize(fun, np.asarray(flat), jac=True, method="L-BFGS-B", options=options).fun


@pytest.mark.parametrize("name", lanes(PUBLISHED, quick={"sleepstudy"}))
def test_maximum_likelihood(name: str, arguments: Arguments) -> None:
    """Fixed effects and scales at their optimum give the published objective."""
    case = PUBLISHED[name]
    found = deviance_at_optimum(
        case.model, arguments(case), sorted(case.random_effects), case.start
    )
    assert found == pytest.approx(case.objective, abs=1e-3)


def test_restricted_maximum_likelihood(arguments: Arguments) -> None:
    """Integrating a flat fixed effect out gives the REML criterion.

    A prior N(0, S²) has density 1 / sqrt(2π S²) wherever the likelihood is not negligible, which
    adds log(2π S²) to -2 log p(y | scales).
    """
    prior_scale = 1e7
    batch, y = arguments(PUBLISHED["dyestuff"])
    start = {"tau": 50.0, "sigma": 50.0}
    found = deviance_at_optimum(dyestuff_restricted, (batch, y, prior_scale), ["b", "mean"], start)
    assert found - np.log(2 * np.pi * prior_scale**2) == pytest.approx(
        DYESTUFF_RESTRICTED, abs=1e-3
    )
