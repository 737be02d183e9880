"""Whitened latents: the exact density in noise, for likelihoods and structures of many kinds."""

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
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density

import autmarg
from autmarg.errors import RequestError
from autmarg.plan import whitened
from tests.support.lanes import lanes
from tests.whitening.models import (
    BITS,
    COUNTS,
    GROUP,
    GROUPS,
    ITEM,
    MODELS,
    REALS,
    RNG,
    N,
    distributional,
    logit,
)

QUICK = ("categorical",)


def points(model: Callable[[], None], plan: Any) -> dict[str, Any]:
    """A prior draw of what is sampled, and standard noise."""
    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace()
    noise = {name: jnp.asarray(RNG.normal(size=size)) for name, size in plan.noise.items()}
    return {name: trace[name]["value"] for name in plan.kept} | noise


@pytest.mark.parametrize("name", lanes(MODELS, QUICK))
def test_density(name: str) -> None:
    """log p(θ, z, y) is the source's log p(θ, u, y) and the Jacobian of u in z."""
    model = MODELS[name]
    marg = autmarg.transform(model, nongaussian="whiten")
    compiled, traced = marg.compiled()
    assert compiled.plan.whitened
    assert not compiled.plan.integrated

    @jax.jit
    def both(given: dict[str, Any]) -> tuple[Any, Any]:
        drawn, slope = compiled.recovery.draw_with_density(jax.random.key(1), given, traced)
        latents = {n: x for n, x in given.items() if n not in compiled.plan.noise} | drawn
        theirs = log_density(model, (), {}, latents)[0] - slope
        return log_density(marg, (), {}, given)[0], theirs

    ours, theirs = map(float, both(points(model, compiled.plan)))
    assert ours == pytest.approx(theirs, rel=1e-11)


@pytest.fixture(scope="module")
def marg() -> autmarg.MarginalizedModel:
    return autmarg.transform(logit, nongaussian="whiten")


def test_mode(marg: autmarg.MarginalizedModel) -> None:
    """At z = 0 the posterior of z has its mode, and curvature one, where θ is at its mode."""
    noise, size = next(iter(marg.plan().noise.items()))

    def log_p(z: Any) -> Any:
        scales = {"s": jnp.asarray(0.5), "t": jnp.asarray(0.5)}
        return log_density(marg, (), {}, {**scales, noise: z})[0]

    slope, curve = jax.jit(lambda z: (jax.grad(log_p)(z), jax.hessian(log_p)(z)))(jnp.zeros(size))
    assert np.abs(slope).max() < 0.2
    assert np.linalg.cond(-curve) < 2.0


def test_a_mode_far_from_the_priors_mean() -> None:
    """Newton's first step for counts of a billion is a billion long."""

    def model() -> None:
        a = numpyro.sample("a", dist.Normal(0, 5))
        t = numpyro.sample("t", dist.HalfNormal(2))
        u = numpyro.sample("u", dist.Normal(0, t).expand([3]).to_event(1))
        rate = jnp.exp(a + u[jnp.array([0, 0, 1, 1, 2, 2])])
        numpyro.sample("y", dist.Poisson(rate), obs=jnp.array([1, 2, 3, 1, 2, 2]) * 1e9)

    assert autmarg.transform(model, nongaussian="whiten").plan().whitened == ("a", "u")


def test_plan(marg: autmarg.MarginalizedModel) -> None:
    """The plan says what is whitened, and that noise is sampled instead."""
    plan = marg.plan()
    text = str(plan)
    assert "12 of 14 dimensions whitened, 2 as written" in text
    assert "predictor of y affine in it" in text
    assert "standard noise, which makes" in text
    assert "surrogate of marginal(y)" in text
    assert plan.whitened == ("a", "b", "u", "v")
    assert plan.kept == ("s", "t")
    assert plan.sampled == 14


def test_recovery(marg: autmarg.MarginalizedModel) -> None:
    """Recovery is a function of the draws, and returns the sites of the source alone."""
    plan = marg.plan()
    draws = {name: jnp.stack([x, x]) for name, x in points(logit, plan).items()}
    found = marg.recover(jax.random.key(1), draws)
    assert set(found) == {"a", "b", "s", "t", "u", "v"}
    assert np.array_equal(found["u"][0], found["u"][1])
    moments = marg.recover(jax.random.key(1), draws, moments=True)
    assert np.allclose(moments["u"]["mean"], found["u"])
    assert not moments["u"]["var"].any()
    # What was recovered, or saved, has the effects without their noise.
    again = marg.recover(jax.random.key(2), found)
    np.testing.assert_array_equal(again["u"], found["u"])
    moments = marg.recover(jax.random.key(2), found, moments=True)
    np.testing.assert_array_equal(moments["u"]["mean"], found["u"])


def test_verify(marg: autmarg.MarginalizedModel) -> None:
    report = autmarg.verify(marg, points=2)
    assert "verify: exact; integrated out: nothing; whitened: a, b, u, v" in str(report)


def test_handlers(marg: autmarg.MarginalizedModel) -> None:
    """Values of what is whitened, powers and closed forms of it are refused in words."""
    given = points(logit, marg.plan())
    with pytest.raises(RequestError, match="which are functions of 'noise"):
        log_density(marg, (), {}, {**given, "u": jnp.zeros(GROUPS)})
    with pytest.raises(RequestError, match="the power of the density would be another"):
        log_density(handlers.scale(marg, scale=0.5), (), {}, given)
    draws = {name: jnp.stack([x, x]) for name, x in given.items()}
    with pytest.raises(RequestError, match=r"they are whitened\. Use which='conditional'"):
        marg.log_likelihood(draws, which="marginal")


def test_left_as_it_is() -> None:
    """Nothing is whitened where the data are traced, or where it would save little."""

    def model(y: Any) -> None:
        u = numpyro.sample("u", dist.Normal(0, 1).expand([N]).to_event(1))
        numpyro.sample("y", dist.Poisson(jnp.exp(u)), obs=y)

    marg = autmarg.transform(model, nongaussian="whiten")
    value = jax.jit(lambda y: log_density(marg, (y,), {}, {"u": jnp.zeros(N)})[0])(COUNTS)
    assert value == pytest.approx(log_density(model, (COUNTS,), {}, {"u": jnp.zeros(N)})[0])
    assert not autmarg.transform(logit).plan().whitened
    with pytest.raises(RequestError, match="nongaussian='white': expected 'auto', 'off', 'whiten'"):
        autmarg.transform(logit, nongaussian="white")


def test_the_default_whitens_where_that_saves_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the two predictions, unless the user has asked for another form."""

    def rows() -> None:
        s, t = (numpyro.sample(name, dist.HalfNormal(1)) for name in "st")
        with numpyro.plate("groups", 30):
            u = numpyro.sample("u", dist.Normal(0, s))
        with numpyro.plate("rows", 90):
            v = numpyro.sample("v", dist.Normal(0, t))
            rate = jnp.exp(u[np.arange(90) % 30] + v)
            numpyro.sample("y", dist.Poisson(rate), obs=np.arange(90) % 7)

    monkeypatch.setattr(whitened, "_LONG", 0.1)
    plan = autmarg.transform(rows).plan()
    assert plan.whitened == ("u", "v")
    assert plan.predicted is not None and plan.predicted[0].draw < 0.5 * plan.predicted[1].draw
    for options in ({"reparameterize": "noncentred"}, {"nongaussian": "off"}, {"keep": ["u", "v"]}):
        assert not autmarg.transform(rows, **options).plan().whitened
    monkeypatch.setattr(whitened, "_LONG", 10.0)
    left = autmarg.transform(rows).plan()
    assert not left.whitened
    assert "nongaussian='whiten' samples standard noise instead" in left.explain()


def test_the_source_of_a_process_is_predicted_to_take_what_it_takes_as_written() -> None:
    """Also where stand-ins make a group of its elements."""
    places = np.arange(30.0)

    def cells() -> None:
        s, mean = numpyro.sample("s", dist.HalfNormal(1)), numpyro.sample("mean", dist.Normal(0, 1))
        near = s**2 * jnp.exp(-np.abs(places[:, None] - places) / 5)
        f = numpyro.sample("f", dist.MultivariateNormal(mean * jnp.ones(30), near))
        numpyro.sample("y", dist.Poisson(jnp.exp(f)), obs=np.arange(30) % 4)

    plans = [autmarg.transform(cells, nongaussian=how).plan() for how in ("whiten", "off")]
    assert plans[0].whitened == ("mean", "f")
    white, left = (plan.predicted and plan.predicted[1].steps for plan in plans)
    assert white == pytest.approx(left, rel=0.02)  # (of 31 whitened dimensions, or of 30)


@pytest.mark.slow
def test_a_plan_says_how_much_noise_makes_less() -> None:
    def walk() -> None:
        t = numpyro.sample("t", dist.HalfNormal(1))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([9]))
        trend = jnp.cumsum(jnp.cumsum(z * t))
        numpyro.sample("y", dist.Poisson(jnp.exp(trend)), obs=np.arange(9))

    plan = autmarg.transform(walk, nongaussian="whiten").plan()
    assert (noise := sum(plan.noise.values())) > 9
    assert f"9 of 10 dimensions whitened (as {noise} of noise), 1 as written" in str(plan)


def test_latents_of_a_variance() -> None:
    """Where those of the mean are more they are integrated out, and the variance's are sampled."""

    def model() -> None:
        u = numpyro.sample("u", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
        v = numpyro.sample("v", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(u[GROUP], jnp.exp(v[ITEM // 2])), obs=REALS)

    plan = autmarg.transform(model, nongaussian="whiten").plan()
    assert plan.integrated == ("u",)
    assert plan.kept == ("v",)
    assert autmarg.transform(distributional).plan().integrated == ("u",)


def test_what_is_not_known() -> None:
    """A covariate that is traced, or a param, leaves the model as its source."""

    def model(x: Any) -> None:
        scale = numpyro.param("scale", 1.0)
        u = numpyro.sample("u", dist.Normal(0, scale).expand([N]).to_event(1))
        v = numpyro.sample("v", dist.Normal(x, 1))
        numpyro.sample("y", dist.Poisson(jnp.exp(u)), obs=COUNTS)
        numpyro.sample("z", dist.Poisson(jnp.exp(v)), obs=3)

    marg = autmarg.transform(model, nongaussian="whiten")
    plan = marg.plan(jnp.ones(()))
    assert plan.whitened == ("v",)
    assert "nongaussian='whiten' needs known data here, priors without params" in plan.explain()
    latents = {"u": jnp.zeros(N), "v": jnp.zeros(())}
    value = jax.jit(lambda x: log_density(marg, (x,), {}, latents)[0])(0.5)
    assert value == pytest.approx(float(log_density(model, (0.5,), {}, latents)[0]))


@pytest.mark.parametrize("nongaussian", lanes(["whiten", "quadrature"], quick=["quadrature"]))
def test_values_for_known_data_with_traced_data(nongaussian: str) -> None:
    """They belong to another plan, under which ``u`` would be drawn from its prior unseen."""

    def model(y: Any) -> None:
        s = numpyro.sample("s", dist.HalfNormal(1))
        u = numpyro.sample("u", dist.Normal(0, s).expand([5]).to_event(1))
        numpyro.sample("y", dist.Poisson(jnp.exp(u)), obs=y)

    marg, data = autmarg.transform(model, nongaussian=nongaussian), jnp.array([1, 0, 2, 1, 4])
    given = {"s": jnp.array(0.5)} | {n: jnp.zeros(k) for n, k in marg.plan(data).noise.items()}

    def density(values: dict[str, Any], y: Any) -> Any:
        return log_density(handlers.seed(marg, 0), (y,), {}, values)[0]

    with pytest.raises(RequestError, match=r"data that JAX traces .* does not sample \['u'\]"):
        jax.jit(density)(given, data)
    whole = {"s": given["s"], "u": jnp.zeros(5)}
    assert jax.jit(density)(whole, data) == pytest.approx(log_density(model, (data,), {}, whole)[0])
    kernel = MCMC(NUTS(marg), num_warmup=1, num_samples=1, progress_bar=False, jit_model_args=True)
    with pytest.raises(RequestError, match="jit_model_args=True"):
        kernel.run(jax.random.key(0), data)


def test_draws_of_another_process() -> None:
    """Without data, noise alone does not let effects be drawn from their prior."""

    def model(y: Any = None) -> None:
        u = numpyro.sample("u", dist.Normal(0, 1).expand([N]).to_event(1))
        numpyro.sample("y", dist.Poisson(jnp.exp(u)), obs=y)

    new = autmarg.transform(model, nongaussian="whiten")
    samples = {"noise(u)": jnp.zeros((2, N))}
    with pytest.raises(RequestError, match=r"with values of \['noise\(u\)'\] but not of \['u'\]"):
        Predictive(new, samples)(jax.random.key(0))
    given = {**samples, "u": jnp.zeros((2, N))}
    assert Predictive(new, given)(jax.random.key(0))["y"].shape == (2, N)


def test_under_some_sites() -> None:
    """Effects of the others stay sampled; a name that is none is an error, and so are two words."""

    def model() -> None:
        for name, data in (("counts", COUNTS), ("bits", BITS)):
            u = numpyro.sample(f"u_{name}", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
            link = {"counts": lambda s: dist.Poisson(jnp.exp(s)), "bits": dist.BernoulliLogits}
            numpyro.sample(name, link[name](u[GROUP]), obs=data)

    plan = autmarg.transform(model, nongaussian={"counts": "whiten", "bits": "off"}).plan()
    assert plan.whitened == ("u_counts",)
    assert "u_bits" in plan.kept
    with pytest.raises(RequestError, match=r"no observed site .* \(did you mean 'counts'\?\)"):
        autmarg.transform(model, nongaussian={"count": "whiten"}).plan()
    with pytest.raises(RequestError, match="expected one of 'whiten', 'quadrature' for all"):
        autmarg.transform(model, nongaussian={"counts": "whiten", "bits": "quadrature"})
    assert autmarg.transform(model, nongaussian={"counts": "quadrature"}).plan().integrated == (
        "u_counts",
    )
