"""Small programs as tutorials print them, with simulated data: what the default is measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import expit
from numpyro.contrib.control_flow import scan

Model = Callable[..., None]
Data = Callable[[np.random.Generator], tuple[Any, ...]]
STRANGERS: dict[str, tuple[Model, Data]] = {}


def _with(data: Data) -> Callable[[Model], Model]:
    """Register a model with what simulates its arguments, the observed values last."""

    def register(model: Model) -> Model:
        STRANGERS[model.__name__] = model, data
        return model

    return register


def arguments(name: str) -> tuple[Any, ...]:
    """The arguments of a program, the same in each call."""
    return STRANGERS[name][1](np.random.default_rng(list(name.encode())))


def _sample(name: str, fn: Any, obs: Any = None) -> Any:
    return numpyro.sample(name, fn, obs=obs)


def _inverse_logit(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


_SCHOOLS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


@_with(lambda rng: _SCHOOLS[::-1])
def eight_schools(error, y):
    mu, tau = _sample("mu", dist.Normal(0, 5)), _sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", 8):
        theta = _sample("theta", dist.Normal(mu, tau))
        _sample("y", dist.Normal(theta, error), y)


@_with(lambda rng: _SCHOOLS[::-1])
def eight_schools_noncentred(error, y):
    mu, tau = _sample("mu", dist.Normal(0, 5)), _sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", 8):
        z = _sample("z", dist.Normal(0, 1))
        _sample("y", dist.Normal(mu + tau * z, error), y)


def _regression(rng: np.random.Generator, n: int = 100, p: int = 5) -> tuple[Any, ...]:
    x = rng.normal(size=(n, p))
    return x, 1 + x @ np.linspace(-1, 1, p) + rng.normal(size=n)


@_with(_regression)
def regression(x, y):
    a = _sample("a", dist.Normal(0, 5))
    b = _sample("b", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    _sample("y", dist.Normal(a + x @ b, _sample("sigma", dist.HalfNormal(2))), y)


@_with(_regression)
def heteroscedastic(x, y):
    a, c = _sample("a", dist.Normal(0, 5)), _sample("c", dist.Normal(0, 1))
    b = _sample("b", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    d = _sample("d", dist.Normal(0, 0.5).expand([x.shape[1]]).to_event(1))
    _sample("y", dist.Normal(a + x @ b, jnp.exp(c + x @ d)), y)


@_with(_regression)
def robust_regression(x, y):
    a, sigma = _sample("a", dist.Normal(0, 5)), _sample("sigma", dist.HalfNormal(2))
    b = _sample("b", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    _sample("y", dist.StudentT(_sample("nu", dist.Gamma(2, 0.1)), a + x @ b, sigma), y)


def _sparse(rng: np.random.Generator) -> tuple[Any, ...]:
    x = rng.normal(size=(60, 30))
    return x, 3 * x[:, 0] - 2 * x[:, 1] + rng.normal(size=60)


@_with(_sparse)
def horseshoe(x, y):
    tau, sigma = _sample("tau", dist.HalfCauchy(0.1)), _sample("sigma", dist.HalfNormal(2))
    local = _sample("local", dist.HalfCauchy(jnp.ones(x.shape[1])))
    beta = _sample("beta", dist.Normal(0, tau * local))
    _sample("y", dist.Normal(x @ beta, sigma), y)


def _radon(rng: np.random.Generator) -> tuple[Any, ...]:
    county = np.concatenate([np.arange(40), rng.integers(0, 40, 260)])
    floor, uranium = rng.integers(0, 2, 300), rng.normal(size=40)
    a = 1.5 + 0.7 * uranium + 0.3 * rng.normal(size=40)
    return county, floor, uranium, a[county] - 0.7 * floor + 0.7 * rng.normal(size=300)


@_with(_radon)
def radon(county, floor, uranium, y):
    mu, slope = _sample("mu", dist.Normal(0, 5)), _sample("slope", dist.Normal(0, 2))
    level, tau = _sample("level", dist.Normal(0, 2)), _sample("tau", dist.HalfNormal(1))
    with numpyro.plate("counties", 40):
        a = _sample("a", dist.Normal(mu + slope * uranium, tau))
    _sample("y", dist.Normal(a[county] + level * floor, _sample("sigma", dist.HalfNormal(2))), y)


def _sleep(rng: np.random.Generator) -> tuple[Any, ...]:
    subject, days = np.repeat(np.arange(18), 10), np.tile(np.arange(10.0), 18)
    u = rng.normal(size=(18, 2)) * [24, 6]
    mean = 250 + u[subject, 0] + (10 + u[subject, 1]) * days
    return subject, days, mean + 25 * rng.normal(size=180)


@_with(_sleep)
def sleep_study(subject, days, y):
    b = _sample("b", dist.Normal(jnp.array([250.0, 0.0]), jnp.array([50.0, 20.0])).to_event(1))
    tau = _sample("tau", dist.HalfNormal(jnp.array([50.0, 20.0])).to_event(1))
    factor = tau[:, None] * _sample("L_u", dist.LKJCholesky(2, 2.0))
    with numpyro.plate("subjects", 18):
        u = _sample("u", dist.MultivariateNormal(b, scale_tril=factor))
    mean = u[subject, 0] + u[subject, 1] * days
    _sample("y", dist.Normal(mean, _sample("sigma", dist.HalfNormal(50))), y)


def _counts(rng: np.random.Generator) -> tuple[Any, ...]:
    group, x = np.repeat(np.arange(30), 4), rng.normal(size=120)
    return group, x, rng.poisson(np.exp(0.5 + 0.4 * rng.normal(size=30)[group] + 0.3 * x))


@_with(_counts)
def poisson_groups(group, x, y):
    mu, tau = _sample("mu", dist.Normal(0, 2)), _sample("tau", dist.HalfNormal(1))
    b = _sample("b", dist.Normal(0, 1))
    with numpyro.plate("groups", 30):
        a = _sample("a", dist.Normal(mu, tau))
    _sample("y", dist.Poisson(jnp.exp(a[group] + b * x)), y)


@_with(_counts)
def negative_binomial_groups(group, x, y):
    mu, tau = _sample("mu", dist.Normal(0, 2)), _sample("tau", dist.HalfNormal(1))
    a = _sample("a", dist.Normal(mu, tau).expand([30]))
    phi = _sample("phi", dist.Exponential(0.2))
    _sample("y", dist.NegativeBinomial2(jnp.exp(a[group]), phi), y)


@_with(lambda rng: (rng.normal(size=80), rng.poisson(np.exp(1 + rng.normal(size=80)))))
def overdispersed_counts(x, y):
    b, sigma = _sample("b", dist.Normal(0, 2).expand([2])), _sample("sigma", dist.Exponential(1))
    rate = _sample("rate", dist.Normal(b[0] + b[1] * x, sigma))
    _sample("y", dist.Poisson(jnp.exp(rate)), y)


def _counties(rng: np.random.Generator) -> tuple[Any, ...]:
    region = np.repeat(np.arange(8), 5)
    county = np.repeat(np.arange(40), 3)
    effect = 0.4 * rng.normal(size=8)[region] + 0.3 * rng.normal(size=40)
    return region, county, rng.poisson(np.exp(1 + effect[county]))


@_with(_counties)
def poisson_levels(region, county, y):
    mu = _sample("mu", dist.Normal(0, 2))
    s_region, s_county = (_sample(n, dist.HalfNormal(1)) for n in ("s_region", "s_county"))
    r = _sample("r", dist.Normal(mu, s_region).expand([8]))
    c = _sample("c", dist.Normal(r[region], s_county))
    _sample("y", dist.Poisson(jnp.exp(c[county])), y)


def _tumours(rng: np.random.Generator) -> tuple[Any, ...]:
    n = rng.integers(10, 30, 40)
    return n, rng.binomial(n, _inverse_logit(-1.9 + 0.6 * rng.normal(size=40)))


@_with(_tumours)
def rat_tumours(n, y):
    mu, sigma = _sample("mu", dist.Normal(0, 1.5)), _sample("sigma", dist.Exponential(1))
    with numpyro.plate("groups", len(n)):
        a = _sample("a", dist.Normal(mu, sigma))
        _sample("y", dist.Binomial(n, logits=a), y)


_APPLICATIONS = np.array([825, 108, 560, 25, 325, 593, 417, 375, 191, 393, 373, 341])
_ADMITTED = np.array([512, 89, 353, 17, 120, 202, 138, 131, 53, 94, 22, 24])


@_with(lambda rng: (np.repeat(np.arange(6), 2), np.tile([1, 0], 6), _APPLICATIONS, _ADMITTED))
def admissions(department, male, n, y):
    a, b = _sample("a", dist.Normal(0, 1.5)), _sample("b", dist.Normal(0, 1))
    sigma = _sample("sigma", dist.HalfCauchy(1))
    with numpyro.plate("departments", 6):
        d = _sample("d", dist.Normal(a, sigma))
    _sample("y", dist.Binomial(n, logits=d[department] + b * male), y)


def _districts(rng: np.random.Generator) -> tuple[Any, ...]:
    group, x = rng.integers(0, 25, 300), rng.normal(size=300)
    u = rng.normal(size=(25, 2)) * [0.6, 0.4]
    return group, x, rng.binomial(1, _inverse_logit(-0.5 + u[group, 0] + (0.5 + u[group, 1]) * x))


@_with(_districts)
def logistic_slopes(group, x, y):
    b = _sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    tau = _sample("tau", dist.Exponential(1).expand([2]).to_event(1))
    factor = tau[:, None] * _sample("L_u", dist.LKJCholesky(2, 2.0))
    with numpyro.plate("districts", 25):
        u = _sample("u", dist.MultivariateNormal(b, scale_tril=factor))
    _sample("y", dist.Bernoulli(logits=u[group, 0] + u[group, 1] * x), y)


def _answers(rng: np.random.Generator) -> tuple[Any, ...]:
    person, item = (a.reshape(-1) for a in np.indices((40, 12)))
    ability, difficulty = rng.normal(size=40), rng.normal(size=12)
    return person, item, rng.binomial(1, _inverse_logit(ability[person] - difficulty[item]))


@_with(_answers)
def item_response(person, item, y):
    mu, sigma = _sample("mu", dist.Normal(0, 2)), _sample("sigma", dist.HalfNormal(2))
    ability = _sample("ability", dist.Normal(0, 1).expand([40]))
    difficulty = _sample("difficulty", dist.Normal(mu, sigma).expand([12]))
    slope = _sample("slope", dist.LogNormal(0, 0.5).expand([12]))
    _sample("y", dist.Bernoulli(logits=slope[item] * (ability[person] - difficulty[item])), y)


@_with(lambda rng: (np.repeat(np.arange(12), 12), rng.integers(0, 5, 144)))
def ordinal_groups(group, y):
    mu, tau = _sample("mu", dist.Normal(0, 1)), _sample("tau", dist.HalfNormal(1))
    a = _sample("a", dist.Normal(mu, tau).expand([12]))
    cuts = dist.transforms.OrderedTransform()
    c = _sample("c", dist.TransformedDistribution(dist.Normal(0, 2).expand([4]).to_event(1), cuts))
    _sample("y", dist.OrderedLogistic(a[group], c), y)


def _noisy(rng: np.random.Generator) -> tuple[Any, ...]:
    x = rng.normal(1, 2, 50)
    return x + 0.5 * rng.normal(size=50), 1 + 0.8 * x + 0.5 * rng.normal(size=50)


@_with(_noisy)
def measurement_error(x_seen, y):
    mu, tau = _sample("mu", dist.Normal(0, 5)), _sample("tau", dist.HalfNormal(3))
    a, b = _sample("a", dist.Normal(0, 2)), _sample("b", dist.Normal(0, 2))
    x = _sample("x", dist.Normal(mu, tau).expand([50]))
    _sample("x_seen", dist.Normal(x, 0.5), x_seen)
    _sample("y", dist.Normal(a + b * x, _sample("sigma", dist.HalfNormal(1))), y)


def _walk(rng: np.random.Generator) -> tuple[Any, ...]:
    return (np.cumsum(0.3 * rng.normal(size=100)) + 0.5 * rng.normal(size=100),)


@_with(_walk)
def local_level(y):
    first, sigma = _sample("first", dist.Normal(0, 2)), _sample("sigma", dist.HalfNormal(1))
    noise = _sample("noise", dist.HalfNormal(1))

    def step(level, y_t):
        level = _sample("level", dist.Normal(level, sigma))
        _sample("y", dist.Normal(level, noise), y_t)
        return level, None

    scan(step, first, y)


@_with(_walk)
def walk_of_increments(y):
    first, sigma = _sample("first", dist.Normal(0, 2)), _sample("sigma", dist.HalfNormal(1))
    z = _sample("z", dist.Normal(0, 1).expand([len(y)]))
    _sample(
        "y", dist.Normal(first + jnp.cumsum(sigma * z), _sample("noise", dist.HalfNormal(1))), y
    )


def _cycle(rng: np.random.Generator) -> tuple[Any, ...]:
    t = np.arange(60)
    return (0.05 * t + np.sin(2 * np.pi * t / 12) + 0.3 * rng.normal(size=60),)


@_with(_cycle)
def holt_winters(y):
    a, b, c = (_sample(n, dist.Beta(2, 2)) for n in "abc")
    noise = _sample("noise", dist.HalfNormal(1))
    level, trend = _sample("level", dist.Normal(0, 1)), _sample("trend", dist.Normal(0, 0.5))
    with numpyro.plate("months", 12):
        season = _sample("season", dist.Normal(0, 1))

    def step(carry, y_t):
        level, trend, season = carry
        mean = level + trend + season[0]
        _sample("y", dist.Normal(mean, noise), y_t)
        new = a * (y_t - season[0]) + (1 - a) * (level + trend)
        slope = b * (new - level) + (1 - b) * trend
        last = c * (y_t - level - trend) + (1 - c) * season[0]
        return (new, slope, jnp.concatenate([season[1:], last[None]])), None

    scan(step, (level, trend, season), y)


@_with(_cycle)
def seasonal(y):
    sigma, drift, noise = (_sample(n, dist.HalfNormal(0.5)) for n in ("sigma", "drift", "noise"))
    level, season = (
        _sample("level", dist.Normal(0, 2)),
        _sample("season", dist.Normal(0, 1).expand([11])),
    )

    def step(carry, y_t):
        level, season = carry
        level = _sample("levels", dist.Normal(level, sigma))
        new = _sample("seasons", dist.Normal(-season.sum(), drift))
        _sample("y", dist.Normal(level + new, noise), y_t)
        return (level, jnp.concatenate([new[None], season[:-1]])), None

    scan(step, (level, season), y)


@_with(lambda rng: (np.cumsum(rng.normal(size=(4, 50)), 1) + rng.normal(size=(4, 50)),))
def panel(y):
    scales = [_sample(n, dist.HalfNormal(1)) for n in ("noise", "drift_scale", "common_scale")]
    common = jnp.cumsum(_sample("common", dist.Normal(jnp.zeros(50), scales[2]).to_event(1)))
    with numpyro.plate("series", 4):
        level = _sample("level", dist.Normal(0, 3))
        drift = _sample("drift", dist.Normal(jnp.zeros(50), scales[1]).to_event(1))
    _sample("y", dist.Normal(level[:, None] + common + jnp.cumsum(drift, -1), scales[0]), y)


@_with(lambda rng: (np.exp(-1 + 0.5 * rng.normal(size=100)) * rng.normal(size=100),))
def stochastic_volatility(y):
    mu, sigma = _sample("mu", dist.Normal(-1, 2)), _sample("sigma", dist.Exponential(5))
    h = _sample("h", dist.GaussianRandomWalk(sigma, len(y)))
    _sample("y", dist.Normal(0, jnp.exp(mu + h)), y)


def _curve(rng: np.random.Generator) -> tuple[Any, ...]:
    x = np.linspace(0, 1, 40)
    return x, np.sin(6 * x) + 0.3 * rng.normal(size=40)


@_with(_curve)
def gaussian_process(x, y):
    alpha, length = _sample("alpha", dist.HalfNormal(1)), _sample("length", dist.LogNormal(-1, 0.5))
    square = jnp.square((x[:, None] - x) / length)
    cov = alpha**2 * jnp.exp(-0.5 * square) + 1e-6 * jnp.eye(len(x))
    f = _sample("f", dist.MultivariateNormal(0, cov))
    _sample("y", dist.Normal(f, _sample("sigma", dist.HalfNormal(1))), y)


def _clusters(rng: np.random.Generator) -> tuple[Any, ...]:
    school, x = np.repeat(np.arange(20), 8), rng.normal(size=20)
    logits = 0.5 * x + 0.5 * rng.normal(size=20)
    return school, x, rng.binomial(1, _inverse_logit(logits[school]))


@_with(_clusters)
def logistic_group_predictors(school, x, y):
    b, sigma = _sample("b", dist.Normal(0, 1).expand([2])), _sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("schools", len(x)):
        a = _sample("a", dist.Normal(b[0] + b[1] * x, sigma))
    _sample("y", dist.Bernoulli(expit(a[school])), y)
