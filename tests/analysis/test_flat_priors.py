"""Flat priors: integrated out where the data determine them, restricted likelihood included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer import Predictive
from numpyro.infer.util import log_density

import autmarg
from tests.support.generator.identity import check_exact
from tests.support.lanes import lanes

RNG = np.random.default_rng(7)
N, GROUP = 12, np.arange(12) % 4
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2))])
Y = 50.0 + RNG.normal(size=N)
B = np.where(np.arange(N) < 3, np.nan, RNG.normal(size=N))


def scale(name: str) -> Any:
    return numpyro.sample(name, dist.HalfNormal(1.0))


def flat(name: str, *event: int) -> Any:
    return numpyro.sample(name, dist.ImproperUniform(constraints.real, (), event))


def restricted():
    """A mixed model with flat coefficients."""
    beta, tau, s = flat("beta", 3), scale("stau"), scale("s")
    u = numpyro.sample("u", dist.Normal(0, tau).expand([4]))
    numpyro.sample("y", dist.Normal(X @ beta + u[GROUP], s), obs=Y)


def masked_normals():
    """``mask(False)`` on a scalar, whose mean reads nothing then, and handlers.mask over more."""
    m, s = numpyro.sample("m", dist.Normal(0, 1)), scale("s")
    a = numpyro.sample("a", dist.Normal(jnp.exp(m), s).mask(False))
    with handlers.mask(mask=False):
        b = numpyro.sample("b", dist.Normal(m, 1).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(a + X[:, 1:] @ b + m, s), obs=Y)


def imputed_covariate():
    nu, bb, bm = (numpyro.sample(name, dist.Normal(0, 0.5)) for name in ("nu", "bb", "bm"))
    sb, s = scale("sb"), scale("s")
    missing = numpyro.sample("missing", dist.Normal(nu, sb).expand([3]).mask(False))
    b = jnp.asarray(B).at[np.isnan(B)].set(missing)
    numpyro.sample("B", dist.Normal(nu, sb), obs=b)
    numpyro.sample("y", dist.Normal(bb * b + bm * X[:, 1], s), obs=Y)


def some_elements():
    """A mask over elements, one of which nothing reads: that is drawn from its own prior."""
    s = scale("s")
    prior = dist.Normal(3.0, 2 * s).expand([5]).mask(np.array([True, False, True, False, False]))
    u = numpyro.sample("u", prior)
    numpyro.sample("y", dist.Normal(u[GROUP], s), obs=Y)


def some_vectors():
    s, factor = scale("s"), np.array([[1.0, 0.0], [0.3, 1.0]])
    with handlers.mask(mask=np.array([True, False, False])):
        prior = dist.MultivariateNormal(np.ones(2), scale_tril=s * factor)
        u = numpyro.sample("u", prior.expand([3]))
    numpyro.sample("y", dist.Normal(u[GROUP % 2, 0] + u[GROUP % 2, 1] * X[:, 1], s), obs=Y)


def many_groups():
    """More columns than a small root, in batched blocks."""
    c, s = numpyro.sample("c", dist.Normal(0, 1)), scale("s")
    u = flat("u", 40)
    rows = np.arange(80)
    numpyro.sample("y", dist.Normal(u[rows % 40] + c * rows / 80, s), obs=np.sin(rows))


def diffuse_start():
    """A chain whose first value is flat."""
    s, tau, start = scale("s"), scale("stau"), flat("start")

    def step(x: Any, y: Any) -> Any:
        x = numpyro.sample("x", dist.Normal(x, tau))
        numpyro.sample("y", dist.Normal(x, s), obs=y)
        return x, None

    scan(step, start, Y)


def imputed_pairs():
    """Two covariates with gaps, correlated; their missing values are flat in either spelling."""
    lower = numpyro.sample("L", dist.LKJCholesky(2, 1.0))
    s, mean = numpyro.sample("s", dist.HalfNormal(1.0).expand([2])), flat("mean", 2)
    first = numpyro.sample("first", dist.Normal(0, 1).expand([3]).mask(False))
    second = flat("second", 2)
    one = jnp.asarray(B).at[np.isnan(B)].set(first)
    two = jnp.concatenate([second, Y[2:] - 50.0])
    rows = dist.MultivariateNormal(mean, scale_tril=s[:, None] * lower)
    numpyro.sample("rows", rows, obs=jnp.stack([one, two], -1))


def diffuse_level_and_slope():
    s, q, start = scale("s"), scale("sq"), (flat("level"), flat("slope"))

    def step(state: Any, y: Any) -> Any:
        level, slope = state
        slope = numpyro.sample("b", dist.Normal(slope, q))
        level = numpyro.sample("l", dist.Normal(level + slope, q))
        numpyro.sample("y", dist.Normal(level, s), obs=y)
        return (level, slope), None

    scan(step, start, Y)


def variance_shared():
    """A variance by its conjugacy: its rows are those of data less those of flat priors."""
    v = numpyro.sample("sv", dist.InverseGamma(2.0, 2.0))
    mean = flat("mean")
    u = numpyro.sample("u", dist.Normal(0, jnp.sqrt(v)).expand([4]))
    numpyro.sample("y", dist.Normal(mean + u[GROUP], jnp.sqrt(v)), obs=Y)


def kept_child():
    a, tau = flat("a"), scale("stau")
    eta = numpyro.sample("eta", dist.Normal(a, tau).expand([N]))
    numpyro.sample("y", dist.Poisson(jnp.exp(eta)), obs=np.arange(N) % 3)


CASES = {
    restricted: "beta u",
    masked_normals: "m a b",
    imputed_covariate: "nu bm missing",
    some_elements: "u",
    some_vectors: "u",
    many_groups: "c u",
    diffuse_start: "start x",
    imputed_pairs: "mean first second",
    diffuse_level_and_slope: "level slope b l",
    variance_shared: "sv mean u",
    kept_child: "a",
}


@pytest.mark.parametrize(
    "model", lanes(CASES, CASES.keys() - {diffuse_start, diffuse_level_and_slope})
)
def test_exact(model: Callable[..., Any]):
    check_exact(model, CASES[model])


def test_restricted_likelihood():
    """log |XᵀV⁻¹X| and n - p, as Patterson & Thompson (1971) have it."""
    kept = {"stau": 0.7, "s": 0.9}
    found = log_density(autmarg.transform(restricted, marginalize="all"), (), {}, kept)[0]
    cov = kept["s"] ** 2 * np.eye(N) + kept["stau"] ** 2 * (GROUP[:, None] == GROUP)
    inverse = np.linalg.inv(cov)
    information = X.T @ inverse @ X
    rest = Y - X @ np.linalg.solve(information, X.T @ inverse @ Y)
    logs = np.linalg.slogdet(cov)[1] + np.linalg.slogdet(information)[1]
    expected = -0.5 * ((N - 3) * np.log(2 * np.pi) + logs + rest @ inverse @ rest)
    expected += sum(float(dist.HalfNormal(1.0).log_prob(value)) for value in kept.values())
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_conditional_moments_are_least_squares():
    def model():
        beta = flat("beta", 3)
        numpyro.sample("y", dist.Normal(X @ beta, 0.5), obs=Y)

    marg = autmarg.transform(model)
    found = marg.recover(jax.random.key(0), {"draw": np.zeros(1)}, moments=True)["beta"]
    np.testing.assert_allclose(found["mean"][0], np.linalg.lstsq(X, Y)[0], rtol=1e-10)
    variance = 0.25 * np.diagonal(np.linalg.inv(X.T @ X))
    np.testing.assert_allclose(found["var"][0], variance, rtol=1e-9)


def linear(design: np.ndarray, intercept: bool) -> Callable[..., Any]:
    def model():
        b, c = flat("b", design.shape[1]), numpyro.sample("c", dist.Normal(0, 1))
        a = flat("a") if intercept else 0.0
        numpyro.sample("y", dist.Normal(a + design @ b + c, 1.0), obs=Y)

    return model


@pytest.mark.parametrize(
    ("design", "intercept", "kept"),
    [
        (X, False, ()),
        (RNG.normal(size=(N, N)), False, ()),
        (RNG.normal(size=(N, N + 1)), False, ("b",)),
        (np.eye(4)[GROUP], True, ("b", "a")),
        (np.zeros((N, 1)), True, ("b",)),
        (np.vander(2000.0 + np.arange(N), 4), False, ("b",)),
    ],
    ids=["determined", "p = n", "n < p", "intercept and all dummies", "no data", "raw cubic"],
)
def test_what_the_data_do_not_determine_is_kept(
    design: np.ndarray, intercept: bool, kept: tuple[str, ...]
):
    plan = autmarg.transform(linear(design, intercept), marginalize="all").plan()
    assert plan.kept == kept
    assert "c" in plan.integrated
    for refusal in plan.refusals:
        assert "has a flat prior, and the data do not determine it" in str(refusal)


def test_a_covariate_that_turns_out_to_be_zero():
    """Known when it is evaluated only: no density there, rather than a wrong one."""

    def model(x: Any):
        b, s = flat("b", 2), scale("s")
        numpyro.sample("y", dist.Normal(x @ b, s), obs=Y)

    marg = autmarg.transform(model)
    density = jax.jit(lambda x: log_density(marg, (x,), {}, {"s": 1.0})[0])
    assert np.isfinite(density(X[:, 1:]))
    assert np.isnan(density(X[:, [1, 1]]))
    assert np.isnan(density(0 * X[:, 1:]))


def test_other_improper_priors():
    def model(support: Any) -> Callable[..., Any]:
        def run():
            x = numpyro.sample("x", dist.ImproperUniform(support, (), ()))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=Y)

        return run

    for support in (constraints.positive, constraints.interval(0.0, 1.0)):
        plan = autmarg.transform(model(support)).plan()
        assert "ImproperUniform over a part of the real numbers" in str(plan.refusals[0])


def test_a_masked_part_of_a_chain_and_a_singular_prior():
    def walk():
        walks = dist.GaussianRandomWalk(1.0, 3).expand([2])
        x = numpyro.sample("x", walks.mask(np.array([True, False])))
        numpyro.sample("y", dist.Normal(x[0, 2] + x[1, 1], 1.0), obs=Y)

    def zero_sum():
        x = numpyro.sample("x", dist.ZeroSumNormal(1.0, event_shape=(4,)).mask(False))
        numpyro.sample("y", dist.Normal(x[GROUP], 1.0), obs=Y)

    found = [str(autmarg.transform(m).plan().refusals[0]) for m in (walk, zero_sum)]
    assert "is masked in part, and it reads its own past" in found[0]
    assert "is masked, and its covariance is singular" in found[1]


def test_nothing_is_drawn_from_an_improper_prior():
    marg = autmarg.transform(kept_child, marginalize="all")
    with pytest.raises(autmarg.RequestError, match="is improper and has no draws"):
        Predictive(marg, num_samples=2)(jax.random.key(0))
