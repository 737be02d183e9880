"""Effects with independent levels, integrated out numerically, beside dense sums."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from scipy.stats import kstest

import autmarg
from autmarg.quadrature import accuracy
from tests.support.lanes import lanes

RNG = np.random.default_rng(5)
GROUPS, EACH = 5, 4
GROUP = RNG.permutation(np.repeat(np.arange(GROUPS), EACH))
X = RNG.normal(size=GROUPS * EACH)
BITS, COUNTS = RNG.integers(0, 2, len(X)), RNG.poisson(2.0, len(X))
KEPT = {"b": 0.4, "s": 0.8}


def kept() -> tuple[Any, Any]:
    return numpyro.sample("b", dist.Normal(0, 1)), numpyro.sample("s", dist.HalfNormal(1))


def indexed() -> None:
    b, s = kept()
    with numpyro.plate("groups", GROUPS):
        u = numpyro.sample("u", dist.Normal(b, s))
    numpyro.sample("y", dist.Bernoulli(logits=u[GROUP] + b * X), obs=BITS)


def noncentred() -> None:
    b, s = kept()
    with numpyro.plate("groups", GROUPS):
        u = numpyro.sample("u", dist.Normal(0, 1))
    p = jax.nn.sigmoid((b + s * u)[GROUP] + b * X)
    numpyro.sample("y", dist.Bernoulli(p), obs=BITS)


def by_matrix() -> None:
    b, s = kept()
    u = numpyro.sample("u", dist.Normal(b, s).expand([GROUPS]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=np.eye(GROUPS)[GROUP] @ u + b * X), obs=BITS)


def by_shape() -> None:
    b, s = kept()
    order = np.argsort(GROUP, kind="stable").reshape(GROUPS, EACH)
    with numpyro.plate("groups", GROUPS, dim=-2):
        u = numpyro.sample("u", dist.Normal(b, s))
        with numpyro.plate("rows", EACH, dim=-1):
            numpyro.sample("y", dist.Bernoulli(logits=u + b * X[order]), obs=BITS[order])


def log_joint(u: np.ndarray) -> np.ndarray:
    """log p(u, y_j) at one u for all groups, [points] → [points, groups]."""
    eta = u[:, None] + KEPT["b"] * X
    rows = BITS * eta - np.logaddexp(0, eta)
    prior = dist.Normal(KEPT["b"], KEPT["s"]).log_prob(u)[:, None]
    return np.asarray(prior) + np.stack([rows[:, j == GROUP].sum(1) for j in range(GROUPS)], 1)


GRID = np.linspace(-9, 9, 6001) + KEPT["b"]
STEP = GRID[1] - GRID[0]


@cache
def planned(model: Callable[[], None]) -> Any:
    return autmarg.transform(model, nongaussian="quadrature")


SPELLINGS = {"indexed": indexed, "non-centred": noncentred, "matrix": by_matrix, "shape": by_shape}


@pytest.mark.parametrize("name", lanes(SPELLINGS, quick=[]))
def test_levels(name: str) -> None:
    """log p(y | θ) is a sum over levels of integrals, however the program spells them."""
    marg = planned(SPELLINGS[name])
    assert marg.plan().integrated == ("u",)
    found = log_density(marg, (), {}, KEPT)[0]
    prior = dist.Normal(0, 1).log_prob(KEPT["b"]) + dist.HalfNormal(1).log_prob(KEPT["s"])
    dense = logsumexp(log_joint(GRID), axis=0).sum() + GROUPS * np.log(STEP)
    assert found - prior == pytest.approx(dense, abs=1e-8)
    assert autmarg.verify(marg, points=5, quiet=True).exact


def test_after_the_fit() -> None:
    """Recovered draws and moments are of the conditional."""
    marg = planned(indexed)
    theta = {name: jnp.full((4000,), value) for name, value in KEPT.items()}
    draws = np.asarray(marg.recover(jax.random.key(0), theta)["u"])
    weights = np.exp(log_joint(GRID) - logsumexp(log_joint(GRID), axis=0))
    for j in range(GROUPS):
        cdf = np.cumsum(weights[:, j])
        assert kstest(draws[:, j], lambda x, cdf=cdf: np.interp(x, GRID, cdf)).pvalue > 1e-3
    few = {name: jnp.full((1,), value) for name, value in KEPT.items()}
    found = marg.recover(jax.random.key(0), few, moments=True)["u"]
    mean = GRID @ weights
    np.testing.assert_allclose(found["mean"][0], mean, atol=1e-7)
    np.testing.assert_allclose(found["var"][0], GRID**2 @ weights - mean**2, atol=1e-6)


@pytest.mark.slow
def test_derivatives_of_every_kind() -> None:
    marg = planned(indexed)

    def density(theta: Any) -> Any:
        return log_density(marg, (), {}, {"b": theta[0], "s": theta[1]})[0]

    here, step = jnp.array([0.4, 0.8]), 1e-5
    slope = jax.jit(jax.grad(density))(here)
    differences = [(density(here + e) - density(here - e)) / (2 * step) for e in step * np.eye(2)]
    np.testing.assert_allclose(slope, np.array(differences), atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(density))(here), slope, rtol=1e-10)
    curve = jax.jit(jax.hessian(density))(here)
    np.testing.assert_allclose(curve, curve.T, rtol=1e-8)
    assert np.isfinite(curve).all()


@pytest.mark.parametrize("kept", [True, False])
def test_levels_without_an_event(kept: bool) -> None:
    """Where the search begins, JAX's slope of the density of logits says that they are done."""
    level, rng = np.repeat(np.arange(40), 4), np.random.default_rng(1)
    events = np.where(level < 25, 0, rng.binomial(1, 0.3, 160))

    def rare() -> None:
        s = numpyro.sample("s", dist.HalfNormal(2))
        a = numpyro.sample("a", dist.Normal(0, 3)) if kept else 0.0
        with numpyro.plate("levels", 40):
            u = numpyro.sample("u", dist.Normal(0, s))
        numpyro.sample("y", dist.Bernoulli(logits=a + u[level]), obs=events)

    theta = {"a": -2.0, "s": 1.2} if kept else {"s": 1.2}
    marg = planned(rare)
    grid, a = np.linspace(-12, 12, 20001), theta.get("a", 0.0)
    logs = np.asarray(dist.Normal(0, 1.2).log_prob(grid))[:, None] + np.stack([
        y * (a + grid) - 4 * np.logaddexp(0, a + grid) for y in events.reshape(40, 4).sum(1)
    ], 1)  # fmt: skip
    dense = logsumexp(logs, axis=0).sum() + 40 * np.log(grid[1] - grid[0])
    prior = dist.HalfNormal(2).log_prob(1.2) + (dist.Normal(0, 3).log_prob(a) if kept else 0.0)
    assert log_density(marg, (), {}, theta)[0] - prior == pytest.approx(dense, abs=1e-4)


HOUSES, TOWNS = 6, 2
TOWN_OF = np.arange(HOUSES) % TOWNS
HOUSE = np.repeat(np.arange(HOUSES), 3)
EVENTS = RNG.poisson(1.5, len(HOUSE))


def nested() -> None:
    s, t = (numpyro.sample(n, dist.HalfNormal(1)) for n in ("s", "t"))
    with numpyro.plate("towns", TOWNS):
        v = numpyro.sample("v", dist.Normal(0.3, t))
    with numpyro.plate("houses", HOUSES):
        u = numpyro.sample("u", dist.Normal(v[TOWN_OF], s))
    numpyro.sample("y", dist.Poisson(jnp.exp(u[HOUSE])), obs=EVENTS)


def test_nested() -> None:
    """Houses within towns: an integral of products of integrals."""
    marg = planned(nested)
    assert set(marg.plan().integrated) == {"u", "v"}
    theta = {"s": 0.6, "t": 0.5}
    found = log_density(marg, (), {}, theta)[0]
    grid = np.linspace(-6, 6, 1201)
    width = np.log(grid[1] - grid[0])
    inner = np.asarray(dist.Normal(grid[:, None], 0.6).log_prob(grid))  # [v, u]
    total = np.asarray(dist.HalfNormal(1).log_prob(np.array([0.6, 0.5]))).sum()
    for town in range(TOWNS):
        outer = np.asarray(dist.Normal(0.3, 0.5).log_prob(grid))
        for house in np.flatnonzero(town == TOWN_OF):
            counts = EVENTS[house == HOUSE]
            rows = np.asarray(dist.Poisson(np.exp(grid)[:, None]).log_prob(counts)).sum(1)
            outer = outer + logsumexp(inner + rows, axis=1) + width
        total += logsumexp(outer) + width
    assert found == pytest.approx(total, abs=1e-7)


@pytest.mark.slow
def test_nested_where_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner factor goes alone."""
    monkeypatch.setattr(accuracy, "_EVALUATIONS", 2000)
    assert autmarg.transform(nested, nongaussian="quadrature").plan().integrated == ("u",)


@pytest.mark.slow
def test_nested_after_the_fit() -> None:
    """Draws of both layers have the moments that the sums say."""
    marg, theta = planned(nested), {"s": 0.6, "t": 0.5}
    draws = marg.recover(jax.random.key(0), {n: jnp.full((4000,), x) for n, x in theta.items()})
    one = {n: jnp.full((1,), x) for n, x in theta.items()}
    moments = marg.recover(jax.random.key(0), one, moments=True)
    for name in ("u", "v"):
        mean, deviation = moments[name]["mean"][0], np.sqrt(moments[name]["var"][0])
        z = (draws[name].mean(0) - mean) / deviation * np.sqrt(4000)
        assert np.abs(z).max() < 4
        np.testing.assert_allclose(draws[name].std(0), deviation, rtol=0.06)


def crossed() -> None:
    b, s = kept()
    with numpyro.plate("groups", GROUPS):
        u = numpyro.sample("u", dist.Normal(0, s))
    with numpyro.plate("items", 4):
        v = numpyro.sample("v", dist.Normal(0, 1))
    eta = b + u[GROUP] + v[np.arange(len(X)) % 4]
    numpyro.sample("y", dist.Poisson(jnp.exp(eta)), obs=COUNTS)


def test_crossed() -> None:
    """Of two crossed factors the one with more levels goes, and the other is sampled."""
    plan = planned(crossed).plan()
    assert plan.integrated == ("u",)
    reason = next(r for r in plan.refusals if r.site == "v")
    assert "from which 'u' is integrated out by quadrature" in str(reason)


@pytest.mark.slow
def test_a_precision_above() -> None:
    """Rules read no scale of a stand-in, and say nothing of one."""

    def model() -> None:
        precision = numpyro.sample("precision", dist.Gamma(2.0, 2.0))
        with numpyro.plate("groups", GROUPS):
            u = numpyro.sample("u", dist.Normal(0, precision**-0.5))
        numpyro.sample("y", dist.Poisson(jnp.exp(u[GROUP])), obs=COUNTS)

    plan = planned(model).plan()
    (reason,) = plan.refusals
    assert str(reason).endswith("so it is sampled") and "'y'" not in str(reason)
    assert "dense root" not in str(plan)


def walk() -> None:
    b, s = kept()
    u = numpyro.sample("u", dist.GaussianRandomWalk(s, num_steps=len(X)))
    numpyro.sample("y", dist.Poisson(jnp.exp(b + u)), obs=COUNTS)


def slopes() -> None:
    b, s = kept()
    with numpyro.plate("groups", GROUPS):
        u = numpyro.sample("u", dist.Normal(0, s).expand([2]).to_event(1))
    eta = b + u[GROUP, 0] + u[GROUP, 1] * X
    numpyro.sample("y", dist.Bernoulli(logits=eta), obs=BITS)


@pytest.mark.parametrize("model", [walk, slopes])
def test_refused(model: Callable[[], None]) -> None:
    """Levels that are not independent scalars are sampled, and the plan says what is missing."""
    plan = planned(model).plan()
    assert plan.integrated == ()
    (reason,) = (r for r in plan.refusals if r.site == "u")
    assert "levels that are elements of one site and independent scalars" in reason.needed


def test_an_integrand_of_several_peaks() -> None:
    """Nodes that are enough around one mode are held against the draws, and refused there."""
    y = np.random.default_rng(7).normal(size=40)
    group = np.arange(40) % 5

    def mixture() -> None:
        w = numpyro.sample("w", dist.Dirichlet(jnp.ones(2)))
        loc = numpyro.sample("loc", dist.Normal(0, 3).expand([2]))
        scale = numpyro.sample("scale", dist.HalfNormal(1).expand([2]))
        s = numpyro.sample("s", dist.HalfNormal(1))
        with numpyro.plate("groups", 5):
            u = numpyro.sample("u", dist.Normal(0, s))
        parts, mixing = dist.Normal(loc + u[group][:, None], scale), dist.Categorical(w)
        numpyro.sample("y", dist.MixtureSameFamily(mixing, parts), obs=y)

    marg = planned(mixture)
    assert marg.plan().integrated == ("u",)
    near = {"w": [0.5, 0.5], "loc": [0.1, -0.1], "scale": [1.0, 1.0], "s": 0.2}
    far = {"w": [0.5, 0.5], "loc": [3.0, -3.0], "scale": [1.0, 1.0], "s": 2.0}
    near, far = ({n: jnp.array([x] * 3) for n, x in point.items()} for point in (near, far))
    assert marg.recover(jax.random.key(0), near)["u"].shape == (3, 5)
    with pytest.raises(autmarg.RequestError, match=r"'u' cannot be integrated out by quadrature"):
        marg.recover(jax.random.key(0), far)


def test_far_from_the_mode() -> None:
    """Nodes are where the integrand is, wherever a chain may start: value and slope hold."""
    y, group = np.random.default_rng(3).poisson(1.5, 24), np.arange(24) % 6

    def counts() -> None:
        a, t = (numpyro.sample(n, dist.Normal(0, 2)) for n in ("a", "t"))
        with numpyro.plate("groups", 6):
            u = numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("y", dist.Poisson(jnp.exp(a + jnp.exp(t) * u[group])), obs=y)

    z = jnp.linspace(-30, 30, 40_001)

    def dense(theta: Any) -> Any:
        """Trapezoids, six levels of four rows each."""
        terms = dist.Poisson(jnp.exp(theta[0] + jnp.exp(theta[1]) * z[:, None])).log_prob(y)
        logs = terms.reshape(-1, 4, 6).sum(1) + dist.Normal(0, 1).log_prob(z)[:, None]
        prior = dist.Normal(0, 2).log_prob(theta).sum()
        return jax.nn.logsumexp(logs + jnp.log(z[1] - z[0]), axis=0).sum() + prior

    marg = planned(counts)
    assert marg.plan().integrated == ("u",)

    def ours(theta: Any) -> Any:
        return log_density(marg, (), {}, {"a": theta[0], "t": theta[1]})[0]

    points = np.random.default_rng(0).uniform(-2, 2, (20, 2))
    both = [jax.jit(jax.vmap(jax.value_and_grad(f)))(points) for f in (ours, dense)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01), *both)


@pytest.mark.slow
def test_in_single_precision() -> None:
    """As many digits as the session's numbers have."""
    found = float(log_density(planned(indexed), (), {}, KEPT)[0])
    with jax.enable_x64(False):
        single = autmarg.transform(indexed, nongaussian="quadrature")
        assert single.plan().integrated == ("u",)
        assert float(log_density(single, (), {}, KEPT)[0]) == pytest.approx(found, abs=1e-4)


def test_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan and the posterior say that it is quadrature, and how near; or why it is not."""
    marg = planned(indexed)
    assert "by quadrature with" in str(marg.plan())
    posterior = marg.sample(jax.random.key(0), num_samples=100, num_chains=2)
    assert posterior.method == "independence"
    assert "twice as many change log p(y | θ) by" in str(posterior)
    assert "at 200 draws, more nodes over a wider range change it by" in str(posterior)
    assert "exact but for quadrature" in str(autmarg.verify(marg, points=3, quiet=True))
    for show in (marg.plan().to_json, marg.plan().to_html):
        assert "quadrature" in show()
    monkeypatch.setattr(accuracy, "_EVALUATIONS", 10)
    plan = autmarg.transform(indexed, nongaussian="quadrature").plan()
    assert "takes up to 128 nodes for an integral" in " ".join(str(plan).split())
