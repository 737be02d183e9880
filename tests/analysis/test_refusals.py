"""Each reason for leaving a latent sampled, read by its words; and plans in which nothing goes."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

import autmarg
from tests.support.programs import CASES, GROUP, X, Y, scale

TESTS = Path(__file__).parents[1]


def refused(model, site="u", **kwargs):
    """The refusal of one site, as text."""
    plan = autmarg.transform(model, **kwargs).plan(Y)
    assert site in plan.kept
    (refusal,) = [r for r in plan.refusals if r.site == site]
    assert refusal.place is None or TESTS in Path(refusal.place.file).parents
    return str(refusal)


def effects(prior=None):
    return numpyro.sample("u", prior or dist.Normal(0, 1).expand([5]))


def through(function):
    def model(y):
        numpyro.sample("y", dist.Normal(function(effects()[GROUP]), 1.0), obs=y)

    return model


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (jnp.exp, "exp"),
        (jnp.tanh, "tanh"),
        (lambda u: u**2, r"\*\*|\*"),
        (lambda u: 1.0 / u, "/"),
        (jnp.sort, "sort"),
        (lambda u: jnp.maximum(u, 0.0), "maximum"),
    ],
)
def test_nonlinear_mean(function, primitive):
    words = refused(through(function))
    at = r"\(test_refusals.py:\d+\)"
    reason = rf"'u' {at} enters the mean of 'y' {at} through '({primitive})'( {at})?, which is not"
    assert re.search(reason, words), words


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (lambda u: lax.cond(u[0] > 0, lambda x: x, lambda x: 2 * x, X), ">"),
        (lambda u: lax.switch(jnp.argmax(u), [lambda x: x, lambda x: 2 * x], X), "argmax"),
        (lambda u: lax.while_loop(lambda k: k < u[0], lambda k: k + 1, 0.0) * X, "<"),
        (lambda u: jnp.where(u > 0, X, 0.0), ">"),
        (lambda u: jnp.asarray(X)[jnp.argsort(u)], "sort"),
    ],
)
def test_choice_by_a_latent(function, primitive):
    words = f"decides a condition, an index or a number of steps through '{primitive}'"
    assert words in refused(through(function))


def test_the_place_is_the_users_line_also_inside_library_functions():
    def model(y):
        u = effects()
        mean = jnp.polyval(u, 0.5) + jax.vmap(lambda k: jnp.clip(u[k], -1, 1))(GROUP)
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    line = model.__code__.co_firstlineno + 2
    assert f"(test_refusals.py:{line})" in refused(model)


def test_discrete_child():
    def model(y):
        numpyro.sample("y", dist.Poisson(jnp.exp(effects()[GROUP])), obs=np.ones(len(y), int))

    words = r"'u' \(\S+\) is read by 'y' \(\S+\), a Poisson, not Gaussian, so it must be sampled"
    assert re.fullmatch(words, refused(model))


def test_heavy_tailed_child():
    def model(y):
        numpyro.sample("y", dist.StudentT(4.0, effects()[GROUP], 1.0), obs=y)

    assert ", a StudentT, not Gaussian" in refused(model)


def test_latent_in_a_scale():
    def model(y):
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(effects()[GROUP])), obs=y)

    assert "enters the scale of 'y'" in refused(model)


def test_latent_in_the_transform_of_another():
    def model(y):
        shift = dist.transforms.AffineTransform(effects(), 1.0)
        fn = dist.TransformedDistribution(dist.LogNormal(0, 1).expand([5]), shift)
        numpyro.sample("y", dist.Normal(numpyro.sample("w", fn)[GROUP], 1.0), obs=y)

    assert "enters the transform of 'w'" in refused(model)


def test_non_gaussian_prior():
    def model(y):
        u = effects(dist.Laplace(0, 1).expand([5]))
        numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)

    words = (
        r"'u' \(\S+\) is a Laplace, not Gaussian, and it enters the mean of 'y' \(\S+\), so it is"
    )
    assert re.match(words, refused(model))


def test_factor():
    def model(y):
        u = effects()
        numpyro.factor("penalty", -(u**2).sum())
        numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)

    assert "enters numpyro.factor 'penalty'" in refused(model)


def test_latent_under_an_unknown_mask():
    def model(y):
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        with handlers.mask(mask=t * np.ones(5) > 1):
            u = effects()
        numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)

    assert "is under a mask that is traced or depends on a latent" in refused(model)


def test_rows_under_an_unknown_mask():
    def model(y):
        t, u = numpyro.sample("t", dist.HalfNormal(1.0)), effects()
        with handlers.mask(mask=t * np.ones(len(y)) > 1):
            numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)

    assert re.search(r"is read by 'y' \(\S+\), whose mask depends on 't'", refused(model))


def test_subsampled_plate():
    def model(y):
        u = effects()
        with numpyro.plate("rows", len(y), subsample_size=10) as rows:
            numpyro.sample("y", dist.Normal(u[GROUP[np.arange(10)]], 1.0), obs=jnp.asarray(y)[rows])

    assert "plate 'rows' is subsampled" in refused(model)


def test_product_keeps_the_smaller_site():
    case = CASES["product_of_latents"]
    words = refused(case.model, "a")
    assert re.match(r"'a' \(\S+\) and 'u' are multiplied in the mean of 'y'", words)


def test_requests_that_cannot_be_met():
    with pytest.raises(autmarg.RequestError, match="'a' and 'u' are multiplied"):
        autmarg.transform(CASES["product_of_latents"].model, marginalize=["a", "u"]).plan(Y)
    with pytest.raises(autmarg.RequestError, match=r"'s' \(\S+\) is a HalfNormal"):
        autmarg.transform(CASES["radon"].model, marginalize=["s", "b"]).plan(Y)
    with pytest.raises(autmarg.RequestError, match=r"did you mean \['u'\]"):
        autmarg.transform(CASES["radon"].model, marginalize="u")
    with pytest.raises(autmarg.RequestError, match=r"integrated out .* and kept"):
        autmarg.transform(CASES["radon"].model, marginalize=["a"], keep=["a"])


def test_requests_are_satisfied():
    marg = autmarg.transform(CASES["radon"].model, marginalize=["a"])
    assert marg.plan(Y).integrated == ("a",)
    kept = autmarg.transform(CASES["radon"].model, keep=["a"])
    assert set(kept.plan(Y).integrated) == {"gamma", "mu", "b"}
    assert "kept on request" in str(kept.plan(Y))
    assert "'a' (programs.py:" in str(kept.plan(Y)) and "as keep asks" in str(kept.plan(Y))


@pytest.mark.parametrize("options", [{"marginalize": ["u"]}, {"keep": ["u"]}], ids=str)
def test_requests_are_exact(options):
    def model(y):
        a = numpyro.sample("a", dist.Normal(0, 1))
        u = effects(dist.Normal(a, scale("t")).expand([5]))
        numpyro.sample("y", dist.Normal(u[GROUP], 0.7), obs=y)

    marg = autmarg.transform(model, **options)
    assert marg.plan(Y).integrated == (("u",) if "marginalize" in options else ("a",))
    autmarg.verify(marg, Y, points=2, quiet=True)


def test_a_generalised_linear_model_comes_back_equivalent():
    def model(y):
        b = numpyro.sample("b", dist.Normal(0, 1))
        numpyro.sample("y", dist.Bernoulli(logits=b * X), obs=np.arange(len(y)) % 2)

    marg = autmarg.transform(model)
    plan = marg.plan(Y)
    assert plan.integrated == () and "a generalised linear model" in str(plan)
    found = log_density(marg, (Y,), {}, {"b": 0.3})[0]
    np.testing.assert_allclose(found, log_density(model, (Y,), {}, {"b": 0.3})[0], rtol=1e-14)


def test_uncovered_clashes_are_solved_by_least_size():
    def model(y):
        a = numpyro.sample("a", dist.Normal(0, 1).expand([3]))
        b = numpyro.sample("b", dist.Normal(0, 1).expand([2]))
        c = numpyro.sample("c", dist.Normal(0, 1).expand([3]))
        mean = (a * b[0]).sum() + (b[1] * c).sum()
        numpyro.sample("y", dist.Normal(mean, scale()), obs=y)

    assert autmarg.transform(model).plan(Y).integrated == ("a", "c")


def test_integrated_out_by_hand():
    def model(y):
        tau, s = scale("tau"), scale()
        same = GROUP[:, None] == GROUP
        covariance = tau**2 * same + s**2 * jnp.eye(len(y))
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(y)), covariance), obs=y)

    assert "no latent site has a Gaussian prior" in str(autmarg.transform(model).plan(Y))


def test_enumerated_parent():
    def model(y):
        u = effects()
        k = numpyro.sample("k", dist.Categorical(jnp.ones(5) / 5).expand([len(y)]))
        numpyro.sample("y", dist.Normal(u[k], 1.0), obs=y)

    assert "'k' is a discrete latent (CategoricalProbs)" in refused(model)


@pytest.mark.parametrize(
    ("prior", "kind"),
    [
        (dist.TruncatedNormal(0.0, 1.0, low=0.0), "a truncated distribution"),
        (dist.HalfNormal(1.0), "HalfNormal"),
        (dist.ImproperUniform(dist.constraints.positive, (), ()), "ImproperUniform"),
        (dist.FoldedDistribution(dist.Normal(0, 1)), "a folded distribution"),
    ],
)
def test_priors_that_only_look_gaussian(prior, kind):
    def model(y):
        numpyro.sample("y", dist.Normal(effects(prior.expand([5]))[GROUP], 1.0), obs=y)

    assert f"{kind}" in refused(model)


@pytest.mark.parametrize(
    ("child", "kind"),
    [
        (lambda m: dist.Gamma(2.0, jnp.exp(m)), "Gamma"),
        (lambda m: dist.Cauchy(m, 1.0), "Cauchy"),
        (lambda m: dist.Delta(m), "Delta"),
        (
            lambda m: dist.MixtureSameFamily(
                dist.Categorical(jnp.ones(2) / 2),
                dist.Normal(jnp.stack([m, -m], -1), 1.0),
            ),
            "mixture",
        ),
        (lambda m: dist.TruncatedNormal(m, 1.0, low=-9.0), "truncated distribution"),
    ],
)
def test_children_that_are_not_gaussian(child, kind):
    def model(y):
        numpyro.sample("y", child(effects()[GROUP]), obs=jnp.abs(y))

    words = refused(model)
    assert re.search(rf"is read by 'y' \(\S+\), a {kind}, not Gaussian", words), words


def test_params_that_are_pytrees():
    def model(y):
        weights = numpyro.param("net", {"w": jnp.ones(5)})
        numpyro.sample("y", dist.Normal(effects()[GROUP] + weights["w"][0], 1.0), obs=y)

    assert "the param 'net' is a pytree rather than an array" in refused(model)


def test_random_numbers_outside_sites():
    def model(y):
        noise = jax.random.normal(numpyro.prng_key(), (len(y),))
        numpyro.sample("y", dist.Normal(effects()[GROUP] + noise, 1.0), obs=y)

    assert "'y' depends on random numbers that the model draws outside its sites" in refused(model)
    autmarg.verify(model, Y, points=1, quiet=True)


def series(y, steps=0):
    q = numpyro.sample("q", dist.HalfNormal(1.0))

    def step(x, _):
        x = numpyro.sample("u", dist.Normal(x, q))
        return x, numpyro.sample("y", dist.Normal(x, 1.0))

    with handlers.condition(data={"y": jnp.asarray(y)}):
        scan(step, 0.0, np.arange(len(y) + steps))


def scoped_from_outside(y):
    with handlers.scope(prefix="s", divider="."):
        series(y)


def longer_than_its_data(y):
    series(y, 3)


@pytest.mark.parametrize(
    ("model", "site"), [(scoped_from_outside, "s.u"), (longer_than_its_data, "y")]
)
def test_a_scan_that_draws_for_itself(model, site):
    """NumPyro does not find there what it is given, and its own density is random."""
    assert autmarg.transform(series).plan(Y).recovered == ("u",)
    plan = autmarg.transform(model).plan(Y)
    assert not plan.recovered
    words = plan.explain()
    assert f"'{site}' depends on random numbers that NumPyro draws inside a scan" in words
    assert "put handlers.scope and the like inside the scan's function" in words


def test_data_in_a_factor_alone():
    def model(y):
        numpyro.factor("data", dist.Normal(effects()[GROUP], 1.0).log_prob(y).sum())

    words = autmarg.transform(model).plan(Y).explain()
    assert re.search(r"what the numpyro.factor 'data' \(test_refusals.py:\d+\) says of data", words)


def test_plans_count_unconstrained_dimensions():
    """A 3 × 3 correlation factor moves in 3 dimensions, a simplex of 4 in 3."""

    def model(y):
        factor = numpyro.sample("L", dist.LKJCholesky(3))
        numpyro.sample("p", dist.Dirichlet(np.ones(4)))
        u = numpyro.sample("u", dist.MultivariateNormal(np.zeros(3), scale_tril=factor))
        numpyro.sample("y", dist.Normal(u[0], 1.0), obs=y)

    plan = autmarg.transform(model).plan(Y)
    assert {e.site: e.size for e in plan.entries} == {"L": 3, "p": 3, "u": 3, "y": 40}
    assert "6 of 9 dimensions integrated out, 3 sampled" in str(plan)


def test_a_prior_whose_bounds_are_latents_is_planned():
    def model(y):
        a = numpyro.sample("a", dist.Uniform(0, 1))
        b = numpyro.sample("b", dist.Uniform(0, 1 - a))
        numpyro.sample("y", dist.Normal(effects()[GROUP], 1.0 + b), obs=y)

    assert autmarg.transform(model).plan(Y).integrated == ("u",)


def test_what_decides_a_scale_handler_reads_the_latent():
    def model(y):
        u = numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(u, 1), obs=y)
        with handlers.scale(scale=jnp.exp(u)):
            numpyro.sample("z", dist.Normal(0, 2), obs=1.0)

    plan = autmarg.transform(model).plan(Y)
    assert plan.kept == ("u",)
    words = (
        r"is read by 'z' \(\S+\), which is under handlers.scale with a factor that depends on 'u'"
    )
    assert re.search(words, str(plan.refusals[0]))
