"""Rows of a survey that are equal whatever the latents are: gradients by rows and by classes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import OrderedTransform

import autmarg
from examples.benchmarks.gradients import potential, timed

_STATES, _AGES, _LEVELS = 50, 6, 4
SIZES = (5_000, 50_000)
Likelihood = Callable[[Any], dist.Distribution]


def _ordinal(eta: Any) -> dist.Distribution:
    normal = dist.Normal(0, 1).expand([_LEVELS - 1])
    cuts = numpyro.sample("cuts", dist.TransformedDistribution(normal, OrderedTransform()))
    return dist.OrderedLogistic(eta, cuts)


def _negative_binomial(eta: Any) -> dist.Distribution:
    return dist.NegativeBinomial2(jnp.exp(eta), numpyro.sample("shape", dist.Exponential(1)))


def _student(eta: Any) -> dist.Distribution:
    return dist.StudentT(4.0, eta, numpyro.sample("scale", dist.HalfNormal(1)))


# name → distribution of the predictor, data of so many counts
LIKELIHOODS: dict[str, tuple[Likelihood, Callable[[np.ndarray], np.ndarray]]] = {
    "Bernoulli, logit": (lambda eta: dist.Bernoulli(logits=eta), lambda y: np.minimum(y, 1)),
    "Poisson": (lambda eta: dist.Poisson(jnp.exp(eta)), lambda y: y),
    "negative binomial": (_negative_binomial, lambda y: y),
    "ordinal": (_ordinal, lambda y: np.minimum(y, _LEVELS - 1)),
    "Student t, all rows differ": (
        _student, lambda y: y + np.random.default_rng(1).normal(size=len(y)),
    ),
}  # fmt: skip


def rows(name: str, size: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Microseconds of a gradient of the source and of the model that is left sampled."""
    likelihood, data = LIKELIHOODS[name]
    rng = np.random.default_rng(0)
    state, age = rng.integers(0, _STATES, size), rng.integers(0, _AGES, size)
    sex, y = rng.integers(0, 2, size), data(rng.poisson(1.0, size))

    def survey(state: Any, age: Any, sex: Any, y: Any) -> None:
        b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
        scales = numpyro.sample("scales", dist.HalfNormal(1).expand([2]).to_event(1))
        with numpyro.plate("states", _STATES):
            u = numpyro.sample("u", dist.Normal(0, scales[0]))
        with numpyro.plate("ages", _AGES):
            v = numpyro.sample("v", dist.Normal(0, scales[1]))
        fn = likelihood(b[0] + b[1] * sex + u[state] + v[age])
        with numpyro.plate("people", size):
            numpyro.sample("y", fn, obs=y)

    args = state, age, sex, y
    marg = autmarg.transform(survey, nongaussian="off", reparameterize="off")
    started = time.perf_counter()
    marg.plan(*args)
    planning = time.perf_counter() - started
    both = [potential(each, args) for each in (survey, marg)]
    source, ours = timed(both, rounds, seconds)
    return {
        "likelihood": name,
        "rows": size,
        "us": source.median * 1e6,
        "us_once": ours.median * 1e6,
        "ratio": source.median / ours.median,
        "plan_s": planning,
    }
