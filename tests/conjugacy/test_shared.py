"""A variance or precision that Gaussian marginals share: found, exact, or refused in true words."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density
from scipy import stats

import autmarg
from tests.support.generator.identity import identity
from tests.support.lanes import lanes

RNG = np.random.default_rng(0)
G = np.array([0, 1, 1, 2, 0, 2, 2, 1])
X = np.linspace(-1.0, 1.0, 8)
Y = RNG.normal(size=8)


def regression():
    """Every prior and the noise in units of one standard deviation."""
    k = numpyro.sample("k", dist.LogNormal(0.0, 0.5))
    t = numpyro.sample("t", dist.InverseGamma(2.0, k))
    sigma = numpyro.deterministic("sigma", jnp.sqrt(t))
    b = numpyro.sample("b", dist.Normal(0.0, 3 * sigma))
    with numpyro.plate("groups", 3):
        u = numpyro.sample("u", dist.Normal(0.0, k * sigma))
    numpyro.sample("y", dist.Normal(1.0 + b * X + u[G], sigma), obs=Y)


def precision():
    """A precision in five spellings, shared by two marginals and a child of its own."""
    a = numpyro.sample("a", dist.LogNormal(0.0, 0.5))
    t = numpyro.sample("t", dist.Gamma(a, 2.0))
    lower = jnp.array([[a, 0.0], [0.3, 1.0]])
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    with numpyro.plate("groups", 3):
        u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), scale_tril=lower * t**-0.5))
    v = numpyro.sample("v", dist.MultivariateNormal(jnp.zeros(2), covariance / t))
    mean = u[G, 0] + X * u[G, 1] + v[0]
    numpyro.sample("y", dist.Normal(mean, jax.lax.rsqrt(t * np.arange(1.0, 9.0))), obs=Y)
    q = numpyro.sample("q", dist.Normal(v[1] * 0.0, jnp.sqrt(a / t)))
    numpyro.sample("z", dist.LogNormal(q, 1 / jnp.sqrt(t)).expand([3]), obs=np.exp(Y[:3]))
    numpyro.sample("w", dist.Normal(a, jnp.exp(-0.5 * jnp.log(t))), obs=0.3)


def walk():
    """A local level in time."""
    t = numpyro.sample("t", dist.InverseGamma(3.0, 2.0))
    q = numpyro.sample("q", dist.LogNormal(0.0, 0.5))

    def step(carry, y):
        x = numpyro.sample("x", dist.Normal(0.9 * carry, q * jnp.sqrt(t)))
        numpyro.sample("y", dist.Normal(x, jnp.sqrt(t)), obs=y)
        return x, None

    scan(step, 0.0, Y)


def singular():
    """Effects that sum to zero, data of which a mask leaves half."""
    t = numpyro.sample("t", dist.InverseGamma(3.0, 2.0))
    c = numpyro.sample("c", dist.ZeroSumNormal(jnp.sqrt(2 * t), (3,)))
    numpyro.sample("y", dist.Normal(c[G], (t / np.arange(1.0, 9.0)) ** 0.5).mask(X > -0.2), obs=Y)


PROGRAMS = (regression, precision, walk, singular)


def values_of(latents):
    """Positive ones for scales, any for the rest ("c" sums to zero)."""
    rng, out = np.random.default_rng(1), {}
    for node in latents:
        positive = node.name in ("k", "t", "a") or (node.name == "q" and not node.parents)
        value = rng.uniform(0.4, 2.0, node.shape) if positive else rng.normal(size=node.shape)
        out[node.name] = jnp.asarray(value - value.mean() if node.name == "c" else value)
    return out


@pytest.mark.parametrize("model", lanes(PROGRAMS, quick=[regression, singular]))
def test_found_and_exact(model, quick_compilation):
    marg = autmarg.transform(model)
    plan = marg.plan()
    assert "t" in plan.integrated
    found = identity(marg, values=values_of(plan.program.latents))
    assert np.abs(found.errors).max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("model", [regression, precision], ids=lambda m: m.__name__)
def test_verify_holds(model, quick_compilation):
    report = autmarg.verify(model, points=2, quiet=True)
    assert report.worst < 1e-9


def test_the_plan_says_what_was_done():
    plan = autmarg.transform(regression).plan()
    entries = {e.site: e for e in plan.entries}
    assert entries["t"].structure == "InverseGamma-Normal rule, 8 rows shared with b, u"
    assert entries["u"].structure == "1: dense root of 4"
    assert entries["sigma"].action == "after recovery"
    step = next(s for s in plan.history if s.name == "conjugate")
    assert step.sites == ("t", "marginal(y)", "recover(b, u)", "recover(t, b, u)")


def fixed(k=1.5):
    """With nothing left to sample: a multivariate t."""
    t = numpyro.sample("t", dist.InverseGamma(2.0, 3.0))
    u = numpyro.sample("u", dist.Normal(0.5, k * jnp.sqrt(t)).expand([3]))
    numpyro.sample("y", dist.Normal(u[G], jnp.sqrt(t)), obs=Y)


def test_the_marginal_is_students_t(quick_compilation):
    marg = autmarg.transform(fixed)
    assert marg.plan().kept == ()
    shape = (np.eye(8) + 1.5**2 * (G[:, None] == G)) * 3.0 / 2.0
    expected = stats.multivariate_t.logpdf(Y, np.full(8, 0.5), shape, df=4.0)
    found = float(jax.jit(lambda: log_density(marg, (), {}, {})[0])())
    assert found == pytest.approx(expected, abs=1e-11)


def test_moments_and_draws(quick_compilation):
    """t | y is InverseGamma(a + n/2, b + Q/2), u | y a t; 5,000 draws within 5 standard errors."""
    marg, n = autmarg.transform(fixed), 5_000
    draws = marg.recover(jax.random.key(1), {"draw": jnp.zeros(n)})
    moments = marg.recover(jax.random.key(1), {"draw": jnp.zeros(1)}, moments=True)
    shape = np.eye(8) + 1.5**2 * (G[:, None] == G)
    a, b = 2.0 + 4, 3.0 + (Y - 0.5) @ np.linalg.solve(shape, Y - 0.5) / 2
    across = 1.5**2 * (np.arange(3)[:, None] == G)
    gain = np.linalg.solve(shape, across.T).T
    mean = 0.5 + gain @ (Y - 0.5)
    spread = 1.5**2 - (gain * across).sum(1)
    exact = {
        "t": (b / (a - 1), b**2 / (a - 1) ** 2 / (a - 2)),
        "u": (mean, spread * b / (a - 1)),
    }
    for name, (centre, variance) in exact.items():
        np.testing.assert_allclose(moments[name]["mean"][0], centre, rtol=1e-11)
        np.testing.assert_allclose(moments[name]["var"][0], variance, rtol=1e-11)
        values = np.asarray(draws[name])
        assert (np.abs(values.mean(0) - centre) < 5 * np.sqrt(variance / n)).all()
        error = ((values - centre) ** 2).std(0) / np.sqrt(n)
        assert (np.abs(values.var(0) - variance) < 5 * error).all()


def shared(*, slope=None, shift=False, power=0.5, elements=(), noise=None, keep=()):
    """A model in which one thing is not as it should be, and what the plan says."""

    def model():
        t = numpyro.sample("t", dist.InverseGamma(2.0 * jnp.ones(elements), 3.0))
        s = t[0] ** 0.5 if elements else t**power
        b = numpyro.sample("b", dist.Normal(0.0, slope or s))
        mean = b * X + s if shift else b * X
        numpyro.sample("y", dist.Normal(mean, noise or s), obs=Y)
        if keep:
            numpyro.sample("x", dist.Normal(b, s))

    plan = autmarg.transform(model, keep=keep).plan()
    assert plan.integrated == ("b",)
    return str(next(r for r in plan.refusals if r.site == "t"))


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"slope": 10.0}, "the scale of 'b' is not a multiple of the square root of 't'"),
        ({"noise": 1.0}, "the scale of 'y' is not a multiple of the square root of 't'"),
        ({"shift": True}, "but it enters more of 'y' than its scale"),
        ({"power": 1.0}, "it scales 'b' and scales the noise of 'y', so it is sampled"),
        ({"elements": (2,)}, "but it has 2 elements, where a Gaussian marginal can share one"),
        ({"keep": ("x",)}, "but 'x' is sampled, not observed"),
    ],
)
def test_what_is_refused(difference, words):
    assert words in re.sub(r" \(test_shared\.py:\d+\)", "", shared(**difference))


def test_a_slope_with_a_prior_of_its_own_may_be_kept():
    def model():
        t = numpyro.sample("t", dist.InverseGamma(2.0, 3.0))
        b = numpyro.sample("b", dist.Normal(0.0, 10.0))
        u = numpyro.sample("u", dist.Normal(0.0, jnp.sqrt(t)).expand([3]))
        numpyro.sample("y", dist.Normal(b * X + u[G], jnp.sqrt(t)), obs=Y)

    assert autmarg.transform(model).plan().kept == ("t",)
    assert autmarg.transform(model, keep=["b"]).plan().kept == ("b",)


def test_without_the_marginal_it_stays():
    passes = autmarg.default_passes().drop("marginalise")
    assert autmarg.transform(fixed, passes=passes).plan().kept == ("t", "u")
