"""Models in time and space as in public tutorials and textbooks, small: walks, fields and trees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.hsgp.approximation import hsgp_matern

from tests.support.lanes import lanes
from tests.support.programs import scale
from tests.support.strangers import check, normal, registers

pytestmark = pytest.mark.usefixtures("quick_compilation")

_RNG = np.random.default_rng(9)
N = 9
X, Y = _RNG.normal(size=N), _RNG.normal(size=N)
D, PAIRS = _RNG.normal(size=(N, 2)), _RNG.normal(size=(N, 2))
RATES = _RNG.normal(size=(2, 3, 4))
APART = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))

CASES = {}
goes = registers(CASES)


def kernel(length, jitter=1e-4):
    return jnp.exp(-0.5 * (np.subtract.outer(X, X) / length) ** 2) + jitter * jnp.eye(N)


@goes("a1", "a2", "const")
def ar2_with_data_by_condition():
    a1, a2, const, sigma = normal("a1"), normal("a2"), normal("const"), scale()

    def step(carry, _):
        before, earlier = carry
        now = numpyro.sample("y", dist.Normal(const + a1 * before + a2 * earlier, sigma))
        return (now, before), None

    with handlers.condition(data={"y": jnp.asarray(Y)}):
        scan(step, (0.3, -0.1), jnp.arange(N))


@goes("l0", "b0")
def holt_by_errors():
    alpha, beta = (numpyro.sample(n, dist.Beta(5, 5)) for n in ("alpha", "beta"))
    l0, b0, sigma = normal("l0"), normal("b0"), scale()

    def step(carry, y):
        level, slope = carry
        numpyro.sample("y", dist.Normal(level + slope, sigma), obs=y)
        error = y - level - slope
        return (level + slope + alpha * error, slope + alpha * beta * error), None

    scan(step, (l0, b0), Y)


@goes("l0", "d0", "e", "f")
def damped_trend_noncentred():
    phi, s1, s2 = numpyro.sample("phi", dist.Uniform(0.8, 1)), scale("s1"), scale("s2")

    def step(carry, y):
        level, slope = carry
        level = level + phi * slope + s1 * numpyro.sample("e", dist.Normal(0, 1))
        slope = phi * slope + s2 * numpyro.sample("f", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(level, 0.5), obs=y)
        return (level, slope), level

    _, levels = scan(step, (normal("l0"), normal("d0")), Y)
    numpyro.deterministic("levels", levels)


@goes("weight", "drift", "drift_future", "forecast")
def forecast_beyond_the_data():
    drift_scale, weight = scale("drift_scale"), normal("weight", 0, 1, (2,))
    with numpyro.plate("time", N - 3):
        drift = numpyro.sample("drift", dist.Normal(0, drift_scale))
    with numpyro.plate("future", 3):
        future = numpyro.sample("drift_future", dist.Normal(0, drift_scale))
    mean = jnp.cumsum(jnp.concatenate([drift, future])) + D @ weight
    numpyro.sample("y", dist.Normal(mean[:-3], scale()), obs=Y[:-3])
    numpyro.sample("forecast", dist.Normal(mean[-3:], 1.0))


@goes("k", "m", "beta")
def changepoints_and_seasons():
    k, m, tau = normal("k", 0, 5), normal("m", 0, 5), scale("tau")
    times, at = np.linspace(0, 1, N), np.linspace(0.1, 0.8, 4)
    after = (times[:, None] >= at).astype(float)
    delta = numpyro.sample("delta", dist.Laplace(0, tau).expand([4]))
    angle = 2 * np.pi * times[:, None] * np.arange(1, 3)
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([4]))
    trend = (k + after @ delta) * times + m + after @ (-at * delta)
    mean = trend + jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], 1) @ beta
    numpyro.sample("y", dist.Normal(mean, scale()), obs=Y)


@goes("coef")
def media_with_carry_over():
    decay = numpyro.sample("decay", dist.Beta(2, 2).expand([2]).to_event(1))

    def carry(before, spend):
        return (spend + decay * before,) * 2

    _, stock = jax.lax.scan(carry, jnp.zeros(2), np.abs(D))
    numpyro.sample("y", dist.Normal(stock @ normal("coef", 0, 1, (2,)), scale()), obs=Y)


@goes("f")
def panel_with_a_common_factor():
    loadings, phi = normal("loadings", 0, 1, (2,)), numpyro.sample("phi", dist.Uniform(-1, 1))

    def step(f, y):
        f = numpyro.sample("f", dist.Normal(phi * f, 1.0))
        numpyro.sample("y", dist.Normal(loadings * f, 0.5).to_event(1), obs=y)
        return f, None

    scan(step, 0.0, PAIRS)


@goes("alpha", "beta", "kappa")
def mortality_in_space_and_time():
    with numpyro.plate("space", 3, dim=-2):
        alpha = numpyro.sample("alpha", dist.Normal(0, scale("sa")))
        beta = numpyro.sample("beta", dist.Normal(0, 1))
    with numpyro.plate("time", 4, dim=-1):
        kappa = numpyro.sample("kappa", dist.Normal(0, 0.3))
    mean = alpha + beta * jnp.arange(4) + jnp.cumsum(kappa, -1)
    with numpyro.plate("age", 2, dim=-3), numpyro.plate("space", 3, dim=-2):
        numpyro.sample("y", dist.Normal(mean, 0.5), obs=RATES)


@goes("beta")
def hsgp_of_the_contrib_module():
    alpha, length = scale("alpha"), numpyro.sample("length", dist.InverseGamma(4, 3))
    f = hsgp_matern(X, nu=1.5, alpha=alpha, length=length, ell=3.0, m=5, non_centered=False)
    numpyro.sample("y", dist.Normal(f, scale()), obs=Y)


@goes("f", "g", "b")
def additive_gaussian_processes():
    f = numpyro.sample("f", dist.MultivariateNormal(0, kernel(scale("l1"))))
    g = numpyro.sample("g", dist.MultivariateNormal(0, kernel(0.7)))
    numpyro.sample("y", dist.Normal(f + X * g + normal("b"), 0.4), obs=Y)


@goes("z")
def multi_output_process_with_predictions():
    length, factor = scale("length"), numpyro.sample("L", dist.LKJCholesky(2))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([N, 2]))
    f = jnp.linalg.cholesky(kernel(length, 1e-2)) @ z @ factor.T
    cross = jnp.exp(-0.5 * (np.subtract.outer(X[:2] + 0.1, X) / length) ** 2)
    numpyro.deterministic("ahead", cross @ jnp.linalg.solve(kernel(length, 1e-2), f))
    numpyro.sample("y", dist.Normal(f, 0.3), obs=PAIRS)


@goes("b")
def simultaneous_autoregression():
    rho, s = numpyro.sample("rho", dist.Uniform(-0.9, 0.9)), scale()
    root = jnp.eye(N) - rho * (APART == 1) / 2
    mean = D @ normal("b", 0, 1, (2,))
    numpyro.sample("y", dist.MultivariateNormal(mean, precision_matrix=root.T @ root / s**2), obs=Y)


@goes("b")
def intrinsic_field_by_a_factor():
    phi = numpyro.sample("phi", dist.Normal(0, 1).expand([N]))
    numpyro.factor("smooth", -0.5 * jnp.sum(jnp.diff(phi) ** 2))
    numpyro.sample("y", dist.Normal(normal("b") + scale("t") * phi, scale()), obs=Y)


@goes("mu")
def counts_on_a_lattice():
    field = dist.CAR(normal("mu"), 0.9, scale("tau"), (APART == 1).astype(float))
    numpyro.sample("y", dist.Poisson(jnp.exp(numpyro.sample("phi", field))), obs=np.arange(N))


@goes("root", "node_1", "node_2", "node_3", "node_4")
def brownian_motion_on_a_tree():
    s, nodes = scale(), {0: normal("root", 0, 5)}
    for child, (parent, length) in {1: (0, 0.5), 2: (0, 1.0), 3: (1, 0.5), 4: (1, 0.5)}.items():
        nodes[child] = normal(f"node_{child}", nodes[parent], s * np.sqrt(length))
    tips = jnp.stack([nodes[k] for k in (2, 3, 4)])
    numpyro.sample("traits", dist.Normal(tips, 0.1), obs=Y[:3])


@goes("mu", "a")
def pagels_lambda():
    lam, s, shared = numpyro.sample("lam", dist.Beta(1, 1)), scale(), np.exp(-APART / 3)
    covariance = s**2 * (lam * shared + (1 - lam) * jnp.eye(N)) + 1e-6 * jnp.eye(N)
    a = numpyro.sample("a", dist.MultivariateNormal(normal("mu") * jnp.ones(N), covariance))
    numpyro.sample("y", dist.Normal(a, 0.3), obs=Y)


QUICK = {"simultaneous_autoregression"}


@pytest.mark.parametrize("name", lanes(CASES, QUICK))
def test_stranger(name):
    check(*CASES[name])
