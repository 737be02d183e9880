"""Small noise and near-singular designs: the density has the digits, or is NaN.

The oracle works in 60 decimal digits, since a Cholesky factor in float64 loses what is tested here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.plan import order
from tests.support.lanes import lanes

N = 12
RNG = np.random.default_rng(0)
ONE, X, E = np.ones((N, 1)), RNG.normal(size=(N, 1)), RNG.normal(size=N)
GROUPS = np.eye(3)[np.arange(N) % 3]
YEARS = (1990.0 + np.arange(N))[:, None] ** np.arange(4)
# Design, with the prior scale of each block of columns.
DESIGNS: dict[str, list[tuple[np.ndarray, float]]] = {
    "intercept and groups": [(ONE, 10.0), (X, 10.0), (GROUPS, 1.0)],
    "intercept and all dummies": [(ONE, 1e4), (GROUPS, 1e4)],
    "a column twice": [(ONE, 1e3), (X, 1e3), (X, 1e6)],
    "cubic in years": [(YEARS, 1e3)],
    "crossed": [(ONE, 10.0), (GROUPS, 1.0), (np.eye(4)[np.arange(N) // 3], 2.0)],
    "slopes": [(ONE, 10.0), (GROUPS, 1.0), (GROUPS * X, 0.5)],
    "narrow intercept": [(ONE, 1.0), (X, 1.0), (GROUPS, 1e3)],
}
QUICK = ["intercept and all dummies", "cubic in years"]
NOISES = np.array([1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-9, 1e-12])
mpmath.mp.dps = 60


def data(design: str) -> np.ndarray:
    """A fit that is perfect but for noise of 1e-9."""
    effects = [
        np.linspace(0.3, 1.2, a.shape[1]) / np.abs(a).max(axis=0) for a, _ in DESIGNS[design]
    ]
    return sum(a @ b for (a, _), b in zip(DESIGNS[design], effects, strict=True)) + 1e-9 * E


def model(design: str, y: np.ndarray) -> None:
    s: Any = numpyro.sample("s", dist.HalfNormal(1.0))
    times: Any = numpyro.sample("t", dist.HalfNormal(1.0))
    mean: Any = 0.0
    for k, (a, sd) in enumerate(DESIGNS[design]):
        b: Any = numpyro.sample(
            f"b{k}", dist.Normal(0, sd * times).expand([a.shape[1]]).to_event(1)
        )
        mean = mean + jnp.asarray(a) @ b
    numpyro.sample("y", dist.Normal(mean, s), obs=y)


def oracle(design: str, y: np.ndarray, s: Any, times: Any) -> tuple[Any, Any, Any]:
    """log p(y | s, t), and conditional means and standard deviations, in mpmath."""
    scales = [mpmath.mpf(sd) * times for a, sd in DESIGNS[design] for _ in range(a.shape[1])]
    b = mpmath.matrix(np.concatenate([a for a, _ in DESIGNS[design]], axis=1).tolist())
    for i in range(b.rows):
        for j in range(b.cols):
            b[i, j] *= scales[j] / s
    c = mpmath.matrix([mpmath.mpf(float(v)) / s for v in y])
    precision = b.T * b + mpmath.eye(b.cols)
    covariance = precision**-1
    z = covariance * (b.T * c)
    squares = (c.T * c)[0] - ((b.T * c).T * z)[0]
    log_det = mpmath.log(mpmath.det(precision)) + 2 * N * mpmath.log(s)
    value = -(N * mpmath.log(2 * mpmath.pi) + log_det + squares) / 2
    means = [scales[j] * z[j] for j in range(b.cols)]
    return value, means, [scales[j] * mpmath.sqrt(covariance[j, j]) for j in range(b.cols)]


def expected(design: str, y: np.ndarray, s: float) -> tuple[float, float, float]:
    """log p and its derivatives in log s and log t, at t = 1."""
    at = lambda s, t: oracle(design, y, s, t)[0]  # noqa: E731
    s, one, h = mpmath.mpf(float(s)), mpmath.mpf(1), mpmath.mpf(10) ** -20
    slopes = (
        (at(s * (1 + h), one) - at(s * (1 - h), one)) / (2 * h),
        (at(s, 1 + h) - at(s, 1 - h)) / (2 * h),
    )
    return float(at(s, one)), float(slopes[0]), float(slopes[1])


def found(design: str, y: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """The model, values at all noises less the priors of s and t, and derivatives in logarithms."""
    marg = autmarg.transform(model, marginalize="all")
    prior = dist.HalfNormal(1.0).log_prob

    def log_p(logs: Any) -> Any:
        s, t = jnp.exp(logs)
        whole = log_density(marg, (design, y), {}, {"s": s, "t": t})[0]
        return whole - prior(s) - prior(t)

    logs = jnp.stack([jnp.log(NOISES), jnp.zeros(len(NOISES))], axis=1)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(log_p)))(logs)
    # (a batch of values goes by rows only where one of them needs it, and so does one alone)
    together, alone = jax.jit(jax.vmap(log_p))(logs), jax.jit(lambda x: jax.lax.map(log_p, x))(logs)
    for same in (together, alone):
        np.testing.assert_allclose(same, value, rtol=1e-12, atol=1e-6)
    return marg, np.asarray(value), np.asarray(slope)


@pytest.mark.parametrize("design", lanes(DESIGNS, QUICK))
def test_by_rows(design):
    """Right in value and gradient to noise of 1e-9 of a prior scale, or NaN.

    Cross-products are off by nats there."""
    y = data(design)
    columns = sum(a.shape[1] for a, _ in DESIGNS[design])
    _, value, slope = found(design, y)
    for s, ours, ours_slope in zip(NOISES, value, slope, strict=True):
        if s < 1e-9 * max(sd for _, sd in DESIGNS[design]) and np.isnan(ours):
            assert np.isnan(ours_slope).all()
            continue
        s = float(np.exp(np.log(s)))
        theirs, *slopes = expected(design, y, s)
        # A rounding of s itself moves the squares by ε times as much.
        allowed = 1e-6 * (N + columns) + 1e-13 * abs(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed)
        if s >= 1e-8:
            np.testing.assert_allclose(ours_slope, slopes, rtol=1e-6, atol=1e-4)


def test_data_far_outside_the_priors():
    """10⁵ prior standard deviations away, at noises that need no rows otherwise.

    The fit and the conditional mean lie as far apart, which cross-products subtract."""
    far = data("narrow intercept") + 1e5
    _, value, _ = found("narrow intercept", far)
    for s, ours in zip(NOISES[:3], value, strict=False):
        theirs = expected("narrow intercept", far, float(np.exp(np.log(s))))[0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-7 * N)


@pytest.mark.parametrize("design", ["intercept and groups", "crossed"])
def test_cross_products_are_right_or_nan(design, monkeypatch):
    """Stages of blocks: right where they say something, and NaN with their gradient elsewhere."""
    monkeypatch.setattr(order, "SMALL_ROOT", 0)
    y = data(design)
    columns = sum(a.shape[1] for a, _ in DESIGNS[design])
    _, value, slope = found(design, y)
    assert np.isfinite(value[NOISES >= 1e-2]).all()
    assert np.isnan(value[NOISES <= 1e-8]).all()
    assert np.array_equal(np.isnan(slope).any(axis=1), np.isnan(value))
    for s, ours in zip(NOISES, value, strict=True):
        if np.isfinite(ours):
            theirs = expected(design, y, float(np.exp(np.log(s))))[0]
            allowed = 1e-6 * (N + columns) + 1e-9 * abs(theirs)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed)


def test_moments():
    """Conditional means and standard deviations at noise of 1e-9, and draws that agree."""
    design = "intercept and groups"
    y = data(design)
    marg = autmarg.transform(model, marginalize="all")
    samples = {"s": np.full(400, 1e-9), "t": np.ones(400)}
    _, means, deviations = oracle(design, y, mpmath.mpf(1e-9), mpmath.mpf(1))
    one = {name: value[:1] for name, value in samples.items()}
    moments = marg.recover(jax.random.key(0), one, design, y, moments=True)
    mean = np.concatenate([moments[f"b{k}"]["mean"][0] for k in range(3)])
    variance = np.concatenate([moments[f"b{k}"]["var"][0] for k in range(3)])
    np.testing.assert_allclose(np.sqrt(variance), np.array(deviations, float), rtol=1e-5)
    np.testing.assert_allclose(mean, np.array(means, float), rtol=0, atol=1e-5)
    drawn = marg.recover(jax.random.key(1), samples, design, y)
    drawn = np.concatenate([drawn[f"b{k}"] for k in range(3)], axis=1)
    np.testing.assert_allclose(drawn.std(axis=0), np.array(deviations, float), rtol=0.2)


@pytest.mark.parametrize("many", [1, 20], ids=["rows one by one", "cross-products"])
def test_later_columns_of_a_chain_that_are_collinear(many):
    """A walk whose drift reads one direction of four effects: right, or NaN, at any scale.

    The reference has that direction alone: log|I + s² q kkᵀ| and its square in closed form.
    """
    weights, steps = np.array([0.5, -1.0, 0.8, 0.3]), 12
    y = np.repeat(np.sin(np.arange(steps)), many) + 0.1 * np.cos(np.arange(steps * many))

    def model():
        s = numpyro.sample("s", dist.HalfCauchy(1.0))
        effects = numpyro.sample("effects", dist.Normal(0.0, s).expand([4]))
        drift = numpyro.sample(
            "drift", dist.Normal(jnp.vdot(weights, effects), 1.0).expand([steps])
        )
        numpyro.sample("y", dist.Normal(jnp.repeat(jnp.cumsum(drift), many), 1.0), obs=y)

    walk = np.repeat(np.tril(np.ones((steps, steps))), many, axis=0)
    others = walk @ walk.T + np.eye(len(y))
    read = np.linalg.solve(others, np.stack([walk.sum(axis=1), y], axis=1))
    q, cross, square = walk.sum(axis=1) @ read[:, 0], y @ read[:, 0], y @ read[:, 1]
    marg = autmarg.transform(model, marginalize="all")
    density = jax.jit(lambda point: log_density(marg, (), {}, point)[0])
    for s in 10.0 ** np.arange(8):
        k = s**2 * weights @ weights
        logs = np.linalg.slogdet(2 * np.pi * others)[1] + np.log1p(k * q)
        prior = np.log(2 / np.pi) - np.log1p(s**2)
        expected = prior - 0.5 * (logs + square - k * cross**2 / (1 + k * q))
        found = float(density({"s": s}))
        assert np.isnan(found) or abs(found - expected) < 1e-6 * (len(y) + 16), s
        assert s > 100 or np.isfinite(found), s


MEANS = np.array([-1.0, 0.3, 1.0])
TRIANGLE = np.array([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [0.2, -0.7, 0.4]])
LAGS = np.subtract.outer(np.arange(N), np.arange(N))
COVARIANCES = {"by rows": 0.5 * np.eye(N), "whitened": np.exp(-0.1 * LAGS**2) + 0.3 * np.eye(N)}


@pytest.mark.parametrize("noise", COVARIANCES)
def test_means_that_cancel(noise):
    """A kept latent times effects whose prior mean is not zero: right, or NaN, at any size of it.

    Each row is then a small difference of large summands, which its squares do not show.
    """

    def model():
        t, times = (numpyro.sample(name, dist.HalfCauchy(1.0)) for name in ("t", "times"))
        u = numpyro.sample("u", dist.MultivariateNormal(MEANS, scale_tril=TRIANGLE))
        mean = t * u[np.arange(N) % 3]
        if noise == "by rows":
            fn = dist.Normal(mean, np.sqrt(0.5) * times)
        else:
            fn = dist.MultivariateNormal(mean, times**2 * COVARIANCES[noise])
        numpyro.sample("y", fn, obs=E)

    marg = autmarg.transform(model, marginalize="all")
    density = jax.jit(lambda point: log_density(marg, (), {}, point)[0])
    effects = mpmath.matrix((GROUPS @ TRIANGLE).tolist())
    mean, y = mpmath.matrix((GROUPS @ MEANS).tolist()), mpmath.matrix(E.tolist())
    finite = []
    for exponent in range(15):
        t = mpmath.mpf(1.5 * 10.0**exponent)
        covariance = t**2 * effects * effects.T + mpmath.matrix(COVARIANCES[noise].tolist())
        expected = _normal(y - t * mean, covariance) - mpmath.log(mpmath.pi**2 / 2 * (1 + t**2))
        found = float(density({"t": float(t), "times": 1.0}))
        finite.append(np.isfinite(found))
        assert not finite[-1] or abs(found - expected) < 1e-6 * (N + 3)
    assert all(finite[:9])


SPREAD = np.repeat([1.0, -1.0, -1.1], 4) + 0.02 * np.arange(N)
CROSSED = np.concatenate(
    [np.repeat(RNG.normal(size=(3, 4)), 4, axis=0), np.tile(np.eye(4), (3, 1))], 1
)


@pytest.mark.parametrize("root", [64, 0], ids=["by rows", "cross-products"])
def test_noises_of_all_sizes(root, monkeypatch):
    """Rows whose noises differ by up to 10^120: a share of log p is right, or all of it is NaN.

    Where pivots have no digits the conditional mean has none either, and a sum of squares there may
    be larger by any factor: it must not vouch for itself.
    """
    monkeypatch.setattr(order, "SMALL_ROOT", root)

    def model():
        t = numpyro.sample("t", dist.HalfCauchy(1.0))
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([8]))
        numpyro.sample("y", dist.Normal(CROSSED @ u, jnp.exp(t * SPREAD)), obs=E)

    marg = autmarg.transform(model, marginalize="all")
    density = jax.jit(lambda t: log_density(marg, (), {}, {"t": t})[0])
    effects, y = mpmath.matrix(CROSSED.tolist()), mpmath.matrix(E.tolist())
    with mpmath.workdps(250):
        for t in (1.0, 5.0, 12.0, 16.0, 30.0, 60.0, 80.0, 100.0, 140.0):
            noises = mpmath.diag([mpmath.exp(2 * t * mpmath.mpf(float(x))) for x in SPREAD])
            expected = _normal(y, effects * effects.T + noises)
            expected -= mpmath.log(mpmath.pi / 2 * (1 + mpmath.mpf(t) ** 2))
            found = float(density(t))
            assert np.isfinite(found) or t > 16.0
            assert np.isnan(found) or abs(found - expected) < 2e-5 + 1e-9 * abs(expected)


def _normal(rest: Any, covariance: Any) -> Any:
    """log N(rest; 0, covariance)."""
    squares = (rest.T * mpmath.lu_solve(covariance, rest))[0]
    logs = len(rest) * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(covariance))
    return -(logs + squares) / 2
