"""Models whose likelihood is not Gaussian: likelihoods and structures of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

RNG = np.random.default_rng(3)
N, GROUPS, ITEMS = 40, 6, 4
GROUP, ITEM, X = RNG.integers(0, GROUPS, N), RNG.integers(0, ITEMS, N), RNG.normal(size=N)
BITS, COUNTS, REALS = RNG.integers(0, 2, N), RNG.poisson(2, N), RNG.normal(size=N)
POSITIVE = np.abs(REALS) + 0.1


def predictor() -> Any:
    """An intercept, a slope and two crossed factors."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 2))
    s = numpyro.sample("s", dist.HalfNormal(1))
    t = numpyro.sample("t", dist.HalfNormal(1))
    with numpyro.plate("groups", GROUPS):
        u = numpyro.sample("u", dist.Normal(0, s))
    with numpyro.plate("items", ITEMS):
        v = numpyro.sample("v", dist.Normal(0, t))
    return a + b * X + u[GROUP] + v[ITEM]


def poisson() -> None:
    numpyro.sample("y", dist.Poisson(jnp.exp(predictor())), obs=COUNTS)


def logit() -> None:
    numpyro.sample("y", dist.Bernoulli(logits=predictor()), obs=BITS)


def probit() -> None:
    p = jax.scipy.stats.norm.cdf(predictor())
    numpyro.sample("y", dist.Bernoulli(probs=p), obs=BITS)


def cloglog() -> None:
    p = 1 - jnp.exp(-jnp.exp(predictor()))
    numpyro.sample("y", dist.Bernoulli(probs=p), obs=BITS)


def binomial() -> None:
    numpyro.sample("y", dist.Binomial(9, logits=predictor()), obs=COUNTS)


def negative_binomial() -> None:
    c = numpyro.sample("c", dist.Exponential(1.0))
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(predictor()), c), obs=COUNTS)


def gamma() -> None:
    k = numpyro.sample("k", dist.Exponential(1.0))
    numpyro.sample("y", dist.Gamma(k, k / jnp.exp(predictor())), obs=POSITIVE)


def beta() -> None:
    k = numpyro.sample("k", dist.Exponential(0.1))
    y = 1 / (1 + np.exp(-REALS))
    numpyro.sample("y", dist.BetaProportion(jax.nn.sigmoid(predictor()), k), obs=y)


def student() -> None:
    k = numpyro.sample("k", dist.Exponential(1.0))
    numpyro.sample("y", dist.StudentT(4.0, predictor(), k), obs=REALS)


def ordinal() -> None:
    cuts = dist.TransformedDistribution(
        dist.Normal(0, 1).expand([2]).to_event(1), dist.transforms.OrderedTransform()
    )
    numpyro.sample("y", dist.OrderedLogistic(predictor(), numpyro.sample("c", cuts)), obs=BITS)


def zero_inflated() -> None:
    q = numpyro.sample("q", dist.HalfNormal(1))
    with numpyro.plate("groups of zeros", GROUPS):
        w = numpyro.sample("w", dist.Normal(0, q))
    gate = jax.nn.sigmoid(w[GROUP] - 1)
    numpyro.sample("y", dist.ZeroInflatedPoisson(gate, rate=jnp.exp(predictor())), obs=COUNTS)


def weibull() -> None:
    """Survival with frailties, some times censored."""
    k = numpyro.sample("k", dist.Exponential(1.0))
    times = dist.Weibull(jnp.exp(predictor()), k)
    with handlers.mask(mask=BITS > 0):
        numpyro.sample("event", times, obs=POSITIVE)
    with handlers.mask(mask=BITS == 0):
        later = jnp.exp(-((POSITIVE / times.scale) ** times.concentration))
        numpyro.sample("censored", dist.Bernoulli(probs=later), obs=np.ones(N, int))


def categorical() -> None:
    with numpyro.plate("classes", 2):
        a = numpyro.sample("a", dist.Normal(0, 2))
        s = numpyro.sample("s", dist.HalfNormal(1))
        with numpyro.plate("groups", GROUPS):
            u = numpyro.sample("u", dist.Normal(0, s))
    logits = jnp.concatenate([jnp.zeros((N, 1)), a + u[GROUP]], 1)
    numpyro.sample("y", dist.Categorical(logits=logits), obs=ITEM % 3)


def item_response() -> None:
    s = numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("items", ITEMS):
        discrimination = numpyro.sample("discrimination", dist.LogNormal(0, 0.5))
        difficulty = numpyro.sample("difficulty", dist.Normal(0, s))
    with numpyro.plate("persons", 10, dim=-2):
        ability = numpyro.sample("ability", dist.Normal(0, 1))
    logits = discrimination * ability - difficulty
    numpyro.sample("y", dist.Bernoulli(logits=logits), obs=BITS.reshape(10, ITEMS))


def stochastic_volatility() -> None:
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    s = numpyro.sample("s", dist.HalfNormal(0.5))
    phi = numpyro.sample("phi", dist.Uniform(-1, 1))

    def step(before: Any, _: Any) -> tuple[Any, Any]:
        now = numpyro.sample("h", dist.Normal(mean + phi * (before - mean), s))
        return now, now

    _, h = scan(step, mean, jnp.arange(N))
    numpyro.sample("y", dist.StudentT(5.0, 0, jnp.exp(h / 2)), obs=REALS)


def normal_returns() -> None:
    """A walk in the log-scale of Gaussian data, whose mean reads a latent, too."""
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    s = numpyro.sample("s", dist.HalfNormal(0.5))
    h = numpyro.sample("h", dist.GaussianRandomWalk(s, N))
    numpyro.sample("y", dist.Normal(mean, jnp.exp(h / 2)), obs=REALS)


def distributional() -> None:
    """Effects of the mean and of the log-scale, their distribution holding its values twice."""
    u, s = (numpyro.sample(n, dist.Normal(0, 0.5).expand([12]).to_event(1)) for n in "us")
    group = np.arange(N) % 12
    numpyro.sample("y", dist.LogNormal(u[group], jnp.exp(s[group])), obs=np.exp(REALS))


def gaussian_process() -> None:
    length = numpyro.sample("length", dist.LogNormal(0, 0.5))
    distance = np.linspace(0, 1, N)[:, None] - np.linspace(0, 1, N)
    cov = jnp.exp(-0.5 * distance**2 / length**2) + 1e-4 * jnp.eye(N)
    f = numpyro.sample("f", dist.MultivariateNormal(0, cov))
    numpyro.sample("y", dist.Poisson(jnp.exp(f)), obs=COUNTS)


def nonlinear_mean() -> None:
    k = numpyro.sample("k", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(jnp.exp(0.2 * predictor()), k), obs=REALS)


def joint() -> None:
    """Two outcomes of the same effects, one of them Gaussian."""
    eta, k = predictor(), numpyro.sample("k", dist.HalfNormal(1))
    numpyro.sample("z", dist.Normal(eta, k), obs=REALS)
    numpyro.sample("y", dist.Poisson(jnp.exp(0.7 * eta)), obs=COUNTS)


def standardised() -> None:
    s = numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("groups", GROUPS):
        z = numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("y", dist.Poisson(jnp.exp(0.2 + s * z[GROUP])), obs=COUNTS)


def masked_and_scaled() -> None:
    eta = predictor()
    with handlers.scale(scale=2.0), handlers.mask(mask=X > -1):
        numpyro.sample("y", dist.Poisson(jnp.exp(eta)), obs=COUNTS)


def zero_sum() -> None:
    s = numpyro.sample("s", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.ZeroSumNormal(s, (GROUPS,)))
    numpyro.sample("y", dist.Poisson(jnp.exp(u[GROUP])), obs=COUNTS)


def two_sums() -> None:
    """Two chains of the same states, whose noise makes fewer increments."""
    s = numpyro.sample("s", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, s).expand([12]))
    picked = jnp.where(BITS[:12] > 0, jnp.cumsum(u[::-1]), jnp.cumsum(u[::-1]))
    numpyro.sample("y", dist.Poisson(jnp.exp(picked)), obs=COUNTS[:12])


MODELS: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        poisson, logit, probit, cloglog, binomial, negative_binomial, gamma, beta, student,
        ordinal, zero_inflated, weibull, categorical, item_response, stochastic_volatility,
        normal_returns, distributional, gaussian_process, nonlinear_mean, joint, standardised,
        masked_and_scaled, zero_sum, two_sums,
    )
}  # fmt: skip
