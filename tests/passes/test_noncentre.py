"""Kept location-scale latents met through standard noise: densities, names, options, words."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import transforms
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import initialize_model, log_density, log_likelihood

import autmarg
from autmarg.analysis.families.location_scale import LocationScale
from autmarg.ir.parser import parse
from tests.support.lanes import lanes
from tests.support.programs import GROUP, Y, scale

TRIL = np.array([[1.0, 0.0], [0.7, 0.4]])
COUNTS = np.arange(40) % 3


def intercept():
    return numpyro.sample("a", dist.Normal(0, 3))


def spread(y=None):
    """``a`` can go, ``s`` sits inside the scale and stays; both parents of its prior are kept."""
    m, t = numpyro.sample("m", dist.Cauchy(0, 1)), scale("t")
    with numpyro.plate("groups", 5):
        s = numpyro.sample("s", dist.Normal(m, t), infer={"note": 1})
    numpyro.deterministic("size", jnp.exp(s))
    numpyro.sample("y", dist.Normal(intercept(), jnp.exp(s[GROUP])), obs=y)


def plated(fn):
    with numpyro.plate("groups", 5):
        return numpyro.sample("x", fn)


def crossed(m, t):
    with numpyro.plate("items", 5, dim=-2), numpyro.plate("times", 4, dim=-1):
        return numpyro.sample("x", dist.Normal(m, t * np.arange(1, 5)))[:, 0]


def site(fn, **kwargs):
    return numpyro.sample("x", fn, **kwargs)


def transformed(m, t):
    steps = [transforms.AffineTransform(1.0, -2.0), transforms.SigmoidTransform()]
    return dist.TransformedDistribution(dist.Normal(m, t).expand([5]), steps)


def log_sigmoid_slope(x):
    return np.log(x * (1 - x)) + np.log(2.0)


# prior of x given (m, t) → x in closed form, and log |dx/dz| added up
PRIORS = {
    "normal in a plate": (
        lambda m, t: plated(dist.Normal(m, t)),
        lambda m, t, z: m + t * z,
        lambda t, x: 5 * np.log(t),
    ),
    "two plates": (
        crossed,
        lambda m, t, z: m + t * np.arange(1, 5) * z,
        lambda t, x: 5 * np.log(t * np.arange(1, 5)).sum(),
    ),
    "sample shape": (
        lambda m, t: site(dist.Normal(m, t), sample_shape=(5,)),
        lambda m, t, z: m + t * z,
        lambda t, x: 5 * np.log(t),
    ),
    "event": (
        lambda m, t: site(dist.Normal(m, t).expand([5]).to_event(1)),
        lambda m, t, z: m + t * z,
        lambda t, x: 5 * np.log(t),
    ),
    "multivariate in a plate": (
        lambda m, t: plated(dist.MultivariateNormal(m + jnp.zeros(2), scale_tril=t * TRIL))[:, 1],
        lambda m, t, z: m + t * z @ TRIL.T,
        lambda t, x: 5 * np.log(t * np.diag(TRIL)).sum(),
    ),
    "covariance, expanded": (
        lambda m, t: site(
            dist.MultivariateNormal(m * jnp.ones(2), t**2 * TRIL @ TRIL.T).expand([5]).to_event(1)
        )[:, 0],
        lambda m, t, z: m + t * z @ TRIL.T,
        lambda t, x: 5 * np.log(t * np.diag(TRIL)).sum(),
    ),
    "log-normal": (
        lambda m, t: plated(dist.LogNormal(m, t)),
        lambda m, t, z: np.exp(m + t * z),
        lambda t, x: 5 * np.log(t) + np.log(x).sum(),
    ),
    "transformed": (
        lambda m, t: site(transformed(m, t)),
        lambda m, t, z: 1 / (1 + np.exp(2 * (m + t * z) - 1)),
        lambda t, x: 5 * np.log(t) + log_sigmoid_slope(x).sum(),
    ),
    "student": (
        lambda m, t: plated(dist.StudentT(1 + t, m, t)),
        lambda m, t, z: m + t * z,
        lambda t, x: 5 * np.log(t),
    ),
} | {
    family.__name__: (
        lambda m, t, family=family: plated(family(m, t)),
        lambda m, t, z: m + t * z,
        lambda t, x: 5 * np.log(t),
    )
    for family in (dist.Cauchy, dist.Laplace, dist.Logistic, dist.Gumbel)
}


def counts(prior, y):
    m, t = numpyro.sample("m", dist.Laplace(0, 1)), scale("t")
    numpyro.sample("y", dist.Poisson(jnp.exp(prior(m, t)[GROUP])), obs=y)


OTHERS = {"Cauchy", "Logistic", "Gumbel"}  # further families of a location and a scale


@pytest.mark.parametrize("name", lanes(PRIORS, PRIORS.keys() - OTHERS))
def test_density_is_that_of_the_source_under_the_change_of_variables(name):
    prior, image, log_slope = PRIORS[name]
    model = functools.partial(counts, prior)
    marg = autmarg.transform(model, reparameterize="noncentred")
    rng = np.random.default_rng(3)
    trace = handlers.trace(handlers.seed(marg, 0)).get_trace(COUNTS)
    assert trace["x"]["type"] == "deterministic" and marg.plan(COUNTS).noncentred == ("x",)
    z = rng.normal(size=trace["x_decentered"]["value"].shape)
    m, t = rng.normal(), 0.3 + rng.uniform()
    x = image(m, t, z)
    expected = log_density(model, (COUNTS,), {}, {"m": m, "t": t, "x": x})[0] + log_slope(t, x)
    found, sites = log_density(marg, (COUNTS,), {}, {"m": m, "t": t, "x_decentered": z})
    np.testing.assert_allclose(sites["x"]["value"], x, rtol=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_oracle_checks_the_change_of_variables(monkeypatch):
    assert autmarg.verify(spread, Y, marginalize=["a"], points=3, quiet=True).exact
    image = LocationScale.image
    monkeypatch.setattr(LocationScale, "image", lambda s, z: (image(s, z)[0], 0.0))
    with pytest.raises(autmarg.ExactnessError):
        autmarg.verify(spread, Y, points=3, quiet=True)


def test_sites_plates_and_text():
    marg = autmarg.transform(spread)
    trace = handlers.trace(handlers.seed(marg, 0)).get_trace(Y)
    assert list(trace) == ["groups", "m", "t", "s_decentered", "s", "size", "y"]
    noise = trace["s_decentered"]
    assert [frame.name for frame in noise["cond_indep_stack"]] == ["groups"]
    assert noise["infer"] == {"note": 1}
    text = str(marg.program(Y))
    assert "  s[groups:5] ~ Normal(m, t) as m + t * s_decentered slope" in text
    assert "    s_decentered[groups:5] ~ Normal(0, 1)\n" in text
    assert str(parse(text)) == text


def test_a_chain_of_kept_sites():
    def model(y):
        t = scale("t")
        x = plated(dist.Normal(0.0, t))
        w = numpyro.sample("w", dist.Normal(x[GROUP], t))
        numpyro.sample("y", dist.Poisson(jnp.exp(w)), obs=y)

    marg = autmarg.transform(model, keep=["x"])
    assert marg.plan(COUNTS).noncentred == ("x", "w")
    z, e = np.linspace(-1, 1, 5), np.linspace(1, -2, 40)
    values = {"t": 0.5, "x_decentered": z, "w_decentered": e}
    _, sites = log_density(marg, (COUNTS,), {}, values)
    np.testing.assert_allclose(sites["w"]["value"], 0.5 * z[GROUP] + 0.5 * e, rtol=1e-12)
    autmarg.verify(marg, COUNTS, points=3, quiet=True)


POINT = {"m": 0.4, "t": 0.7, "s": np.linspace(-1, 1, 5)}
SAMPLES = {n: np.stack([np.asarray(v) + k / 9 for k in range(3)]) for n, v in POINT.items()}
NOISE = {n: SAMPLES[n] for n in ("m", "t")}
NOISE["s_decentered"] = (SAMPLES["s"] - NOISE["m"][:, None]) / NOISE["t"][:, None]
MARG, OFF = autmarg.transform(spread), autmarg.transform(spread, reparameterize="off")


def test_values_under_the_users_names_are_honoured():
    expected = log_density(OFF, (Y,), {}, POINT)[0]
    assert log_density(MARG, (Y,), {}, POINT)[0] == expected
    s = {"s": POINT["s"]}
    rest = {name: POINT[name] for name in ("m", "t")}
    guide = handlers.trace(handlers.seed(handlers.substitute(OFF, data=POINT), 0)).get_trace(Y)
    scoped = handlers.scope(MARG, prefix="my")
    for model, values in (
        (handlers.condition(MARG, data=s), rest),
        (handlers.substitute(MARG, substitute_fn=lambda msg: s.get(msg["name"])), rest),
        (handlers.replay(MARG, trace={"s": guide["s"]}), rest),
        (
            handlers.substitute(scoped, data={"my/s": s["s"]}),
            {f"my/{n}": v for n, v in rest.items()},
        ),
    ):
        assert log_density(model, (Y,), {}, values)[0] == expected
    done = [handlers.do(model, data=s) for model in (MARG, OFF)]
    found, expected = (
        log_density(handlers.seed(d, 0), (Y,), {}, {**rest, "s__CF": s["s"] + 1})[0] for d in done
    )
    assert found == expected


def test_a_scaled_density_is_a_power_of_the_users():
    found, expected = (log_density(handlers.scale(m, 0.5), (Y,), {}, POINT)[0] for m in (MARG, OFF))
    assert found == expected
    trace = handlers.trace(handlers.seed(handlers.scale(MARG, 0.5), 0)).get_trace(Y)
    assert trace["s"]["type"] == "sample"


def test_samples_and_recovery_have_the_users_names():
    mcmc = MCMC(NUTS(MARG), num_warmup=10, num_samples=8, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    draws = mcmc.get_samples()
    assert set(draws) == {"m", "t", "s", "s_decentered", "size"}
    expected = draws["m"][:, None] + draws["t"][:, None] * draws["s_decentered"]
    np.testing.assert_allclose(draws["s"], expected, rtol=1e-12)
    recovered = MARG.recover(jax.random.key(1), mcmc, Y)
    assert set(recovered) == {"m", "t", "s", "size", "a"}
    np.testing.assert_array_equal(recovered["s"], draws["s"])


def test_recovery_takes_either_name():
    """From the user's site, or from its standard noise: the same draws."""
    first, second = (MARG.recover(jax.random.key(1), s, Y) for s in (SAMPLES, NOISE))
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-11, atol=1e-15)
    one, two = (MARG.recover(jax.random.key(1), s, Y, moments=True) for s in (SAMPLES, NOISE))
    np.testing.assert_allclose(one["a"]["mean"], two["a"]["mean"], rtol=1e-11)
    with pytest.raises(autmarg.RequestError, match="draws of the sampled site 's'"):
        MARG.recover(jax.random.key(1), {n: SAMPLES[n] for n in ("m", "t")}, Y)


def test_recovery_where_nothing_is_integrated_out():
    model = functools.partial(counts, PRIORS["normal in a plate"][0])
    marg = autmarg.transform(model)
    values = {"m": np.ones(3), "t": np.full(3, 2.0), "x_decentered": np.ones((3, 5))}
    recovered = marg.recover(jax.random.key(0), values, COUNTS)
    assert set(recovered) == {"m", "t", "x"}
    np.testing.assert_allclose(recovered["x"], 3.0)


def test_predictive_and_log_likelihood():
    key = jax.random.key(0)
    expected = np.exp(SAMPLES["s"])
    for samples in (SAMPLES, NOISE):
        np.testing.assert_allclose(Predictive(MARG, samples)(key, Y)["size"], expected, rtol=1e-12)
        found = log_likelihood(MARG, samples, Y)["y"]
        np.testing.assert_allclose(found, log_likelihood(OFF, SAMPLES, Y)["y"], rtol=1e-11)
    with pytest.raises(autmarg.RequestError, match=r"'s_decentered'.*\['a', 's'\]"):
        Predictive(MARG, NOISE)(key, None)
    recovered = MARG.recover(key, NOISE, Y)
    np.testing.assert_allclose(Predictive(spread, recovered)(key, None)["size"], expected)


def test_initialisation_and_variational_inference():
    info = initialize_model(jax.random.key(0), MARG, model_args=(Y,), dynamic_args=False)
    assert set(info.param_info.z) == {"m", "t", "s_decentered"}
    assert np.isfinite(info.param_info.potential_energy)
    guide = AutoNormal(MARG)
    svi = SVI(MARG, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
    result = svi.run(jax.random.key(0), 40, Y, progress_bar=False)
    drawn = guide.sample_posterior(jax.random.key(1), result.params, Y, sample_shape=(6,))
    assert MARG.recover(jax.random.key(2), drawn, Y)["s"].shape == (6, 5)


def test_the_data_decide():
    """Few rows for each element: non-centred; many: as written."""

    def model(y):
        x = plated(dist.Normal(0.0, scale("t")))
        numpyro.sample("y", dist.Poisson(jnp.exp(x[np.arange(len(y)) % 5])), obs=y)

    few, many = (autmarg.transform(model).plan(np.ones(n, int)) for n in (40, 4000))
    assert few.noncentred == ("x",) and many.noncentred == ()
    assert "non-centred: 8 rows for each element" in few.centrings["x"].why
    assert "sampled, non-centred" in str(few)
    assert many.centrings["x"].why == "as written: 800 rows for each element"
    forced = autmarg.transform(model, reparameterize="noncentred").plan(np.ones(4000, int))
    assert forced.noncentred == ("x",)
    assert OFF.plan(Y).noncentred == () and "non-centred" not in str(OFF.plan(Y))
    named = autmarg.transform(model, reparameterize=["x"]).plan(np.ones(4000, int))
    assert named.noncentred == ("x",)


def test_requests_that_cannot_be_met():
    def refused(names, model=spread, **kwargs):
        with pytest.raises(autmarg.RequestError) as caught:
            autmarg.transform(model, reparameterize=names, **kwargs).plan(Y)
        return str(caught.value)

    assert "is a HalfNormal, not a location-scale family" in refused(["t"])
    assert "'m' has a constant prior" in refused(["m"])
    assert "'a' is integrated out, not sampled" in refused(["a"])
    assert "'b' is not a latent site" in refused(["b"])
    assert r"did you mean ['s']?" in refused("s")
    assert "integrated out by one option and non-centred by another" in refused(
        ["a"], marginalize=["a"]
    )

    def obstructed(y):
        t, k = scale("t"), numpyro.sample("k", dist.Poisson(0.5))
        with handlers.scale(scale=2.0):
            u = numpyro.sample("u", dist.Normal(0, t))
        with handlers.mask(mask=False):
            v = numpyro.sample("v", dist.Normal(0, t))
        w = numpyro.sample("w", dist.Normal(k, t))
        numpyro.sample("x_decentered", dist.HalfNormal(1))
        x = numpyro.sample("x", dist.Normal(0, t))
        numpyro.sample("y", dist.Cauchy(u + v + w + x, 1), obs=y)

    assert "'u' is under handlers.scale" in refused(["u"], obstructed)
    assert "is a MaskedDistribution, not a location-scale family" in refused(["v"], obstructed)
    assert "reads the discrete site 'k'" in refused(["w"], obstructed)
    assert "needs the name 'x_decentered', which another site has" in refused(["x"], obstructed)
    assert autmarg.transform(obstructed, reparameterize="noncentred").plan(Y).noncentred == ()


def test_a_child_of_an_integrated_site_stays_as_written():
    from tests.support.programs import CASES

    model = CASES["kept_child"].model
    plan = autmarg.transform(model, marginalize="all").plan(Y)
    assert "keep=['mu'] allows the non-centred form" in plan.centrings["level"].why
    kept = autmarg.transform(model, keep=["mu"])
    assert kept.plan(Y).noncentred == ("level",)
    autmarg.verify(kept, Y, points=3, quiet=True)


@pytest.mark.slow
def test_the_funnel_is_sampled():
    """Neal's funnel, weak data: E v and E v² against quadrature, within five standard errors."""
    y = np.array([-1.0, 0.2, 0.5, 3.0, -0.1, 1.0, 0.7, -2.0, 0.0])

    def model(y):
        v = numpyro.sample("v", dist.Normal(0, 3))
        with numpyro.plate("n", 9):
            x = numpyro.sample("x", dist.Normal(0, jnp.exp(v / 2)))
            numpyro.sample("y", dist.Laplace(x, 3.0), obs=y)

    grid, z = np.linspace(-20, 20, 801), np.linspace(-8, 8, 2001)
    weight = np.exp(-(z**2) / 2)
    inner = np.exp(-np.abs(y[:, None, None] - np.exp(grid[:, None] / 2) * z) / 3.0) @ weight
    density = np.exp(-(grid**2) / 18 + np.log(inner).sum(0))
    density /= density.sum()

    marg = autmarg.transform(model, reparameterize="noncentred", keep=["v", "x"])
    assert marg.plan(y).noncentred == ("x",)
    mcmc = MCMC(NUTS(marg), num_warmup=300, num_samples=1500, progress_bar=False)
    mcmc.run(jax.random.key(0), y)
    v = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    for draws, exact in ((v, density @ grid), (v**2, density @ grid**2)):
        ess = numpyro.diagnostics.effective_sample_size(draws)
        assert abs(draws.mean() - exact) < 5 * draws.std() / np.sqrt(ess)
    assert not mcmc.get_extra_fields()["diverging"].any()
