"""What "auto" keeps so that no model is worse than its source, and the predictions it prints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autmarg
from autmarg.analysis.informed import information
from autmarg.analysis.work import source_work
from autmarg.plan import choose
from autmarg.plan.prediction import Prediction

_RNG = np.random.default_rng(20261128)
GROUPS, EACH = 24, 4
G = np.repeat(np.arange(GROUPS), EACH)
FLAT = _RNG.poisson(2.0, G.size)  # groups that do not differ
APART = _RNG.poisson(np.exp(1 + 1.5 * _RNG.normal(size=GROUPS))[G])  # and those that do
REGION = np.repeat(np.arange(6), 4)
X = _RNG.normal(size=GROUPS)


@pytest.fixture(autouse=True)
def reference_machine(monkeypatch):
    monkeypatch.setenv("AUTMARG_MACHINE", "")


def normal(name, loc, scale, *shape):
    return numpyro.sample(name, dist.Normal(loc, scale).expand(shape))


def scale(name):
    return numpyro.sample(name, dist.HalfNormal(1.0))


def groups_of_a_mean():
    return normal("a", normal("mu", 0, 2), scale("tau"), GROUPS)


def groups_in_a_plate():
    mu, tau = normal("mu", 0, 2), scale("tau")
    with numpyro.plate("groups", GROUPS):
        return numpyro.sample("a", dist.Normal(mu, tau))


def predictors():
    b = normal("mu", 0, 1, 2)
    return numpyro.sample("a", dist.Normal(b[0] + b[1] * X, scale("tau")))


def matrix_of_predictors():
    b = numpyro.sample("mu", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
    design = np.stack([np.ones(GROUPS), X], 1)
    return numpyro.sample("a", dist.Normal(design @ b, scale("tau")).to_event(1))


def slopes():
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([2]).to_event(1))
    factor = scale("tau") * jnp.eye(2)
    with numpyro.plate("groups", GROUPS):
        return numpyro.sample("a", dist.MultivariateNormal(mu, scale_tril=factor))[:, 0]


def increments_of_a_walk():
    drift = normal("mu", 0, 1)
    return jnp.cumsum(numpyro.sample("a", dist.Normal(drift, scale("tau")).expand([GROUPS])))


GROUP_PRIORS = [
    groups_of_a_mean, groups_in_a_plate, predictors, matrix_of_predictors, slopes,
    increments_of_a_walk,
]  # fmt: skip


@pytest.mark.parametrize("prior", GROUP_PRIORS, ids=lambda f: f.__name__)
def test_a_mean_stays_where_integrating_it_out_would_rule_out_the_form_that_few_data_want(prior):
    def model(y=None):
        numpyro.sample("y", dist.Poisson(jnp.exp(prior()[G])), obs=y)

    plan = autmarg.transform(model).plan(FLAT)
    assert plan.integrated == () and plan.noncentred == ("a",)
    (reason,) = (r for r in plan.refusals if r.site == "mu")
    assert reason.rule == "form"
    assert "'mu' enters the mean of 'a', which is non-centred" in reason.reason
    everything = autmarg.transform(model, marginalize="all").plan(FLAT)
    assert everything.integrated == ("mu",) and everything.noncentred == ()
    off = autmarg.transform(model, reparameterize="off").plan(FLAT)
    assert off.integrated == ("mu",) and off.centrings == {}


LIKELIHOODS = {
    "poisson": (lambda eta: dist.Poisson(jnp.exp(eta)), FLAT),
    "negative binomial": (lambda eta: dist.NegativeBinomial2(jnp.exp(eta), 3.0), FLAT),
    "bernoulli": (lambda eta: dist.Bernoulli(logits=eta), FLAT % 2),
    "ordinal": (lambda eta: dist.OrderedLogistic(eta, jnp.array([-1.0, 1.0])), FLAT % 3),
    "student": (lambda eta: dist.StudentT(4.0, eta, 1.0), FLAT - 2.0),
    "scale": (lambda eta: dist.Normal(0.0, jnp.exp(eta)), _RNG.normal(size=G.size)),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_it_stays_whatever_the_likelihood(name):
    family, y = LIKELIHOODS[name]

    def model(y=None):
        numpyro.sample("y", family(groups_of_a_mean()[G]), obs=y)

    plan = autmarg.transform(model).plan(y)
    assert plan.integrated == () and plan.noncentred == ("a",)


def test_a_group_that_the_data_tell_apart_stays_as_written_and_its_mean_goes():
    def model(y=None):
        numpyro.sample("y", dist.Poisson(jnp.exp(groups_of_a_mean()[G])), obs=y)

    marg = autmarg.transform(model)
    plan = marg.plan(APART)
    assert plan.integrated == ("mu",) and plan.noncentred == ()
    assert "4 rows for each element, which differ in the data" in plan.centrings["a"].why
    # Traced data say nothing: rows are counted.
    traced = []
    jax.jit(lambda y: traced.append(marg.plan(y)) or y)(APART)
    assert traced[0].noncentred == ("a",)
    assert traced[0].centrings["a"].why == "non-centred: 4 rows for each element"


def test_levels_of_groups_are_kept_up_to_the_top():
    def model(y=None):
        r = normal("r", normal("mu", 0, 2), scale("s"), 6)
        a = numpyro.sample("a", dist.Normal(r[REGION], scale("tau")))
        numpyro.sample("y", dist.Poisson(jnp.exp(a[G])), obs=y)

    plan = autmarg.transform(model).plan(FLAT)
    assert plan.integrated == () and plan.noncentred == ("r", "a")


def test_crossed_groups_are_judged_one_by_one():
    item = np.tile(np.arange(EACH), GROUPS)

    def model(y=None):
        a = normal("a", normal("mu", 0, 2), scale("tau"), GROUPS)
        b = normal("b", normal("m", 0, 2), scale("t"), EACH)
        numpyro.sample("y", dist.Poisson(jnp.exp(a[G] + b[item])), obs=y)

    plan = autmarg.transform(model).plan(_RNG.poisson(np.array([1.0, 3.0, 9.0, 40.0])[item]))
    assert plan.integrated == ("m",) and plan.noncentred == ("a",)


def test_what_else_is_gaussian_is_integrated_out_all_the_same():
    """Only the members above the group are kept; others go, and so does what is asked for."""

    def model(y=None, w=None):
        numpyro.sample("y", dist.Poisson(jnp.exp(groups_of_a_mean()[G])), obs=y)
        numpyro.sample("w", dist.Normal(normal("b", 0, 1, 5)[G % 5], scale("s")), obs=w)

    args = FLAT, _RNG.normal(size=G.size)
    assert autmarg.transform(model).plan(*args).integrated == ("b",)
    named = autmarg.transform(model, marginalize=["mu"]).plan(*args)
    assert named.integrated == ("mu",)
    kept = autmarg.transform(lambda w: model(None, w), keep=["b"]).plan(args[1])
    assert "b" not in kept.integrated


def test_information_is_the_score_test_in_closed_form():
    """Poisson groups with a free mean: S = Σ (y - m), I = n m with m the mean of all."""

    def model(y=None):
        numpyro.sample("y", dist.Poisson(jnp.exp(groups_of_a_mean()[G])), obs=y)

    program = autmarg.transform(model, marginalize=[]).plan(APART).program
    found = information(program, program["a"])
    mean = APART.mean()
    score = APART.reshape(GROUPS, EACH).sum(1) - EACH * mean
    assert found is not None and found.elements == GROUPS and found.plain
    np.testing.assert_allclose(found.ratio, np.mean(score**2) / (EACH * mean), rtol=1e-2)


def test_rows_that_read_several_elements_are_counted():
    def model(y=None):
        a = groups_of_a_mean()
        numpyro.sample("y", dist.Poisson(jnp.exp(a[G] - a[(G + 1) % GROUPS])), obs=y)

    plan = autmarg.transform(model).plan(APART)
    assert plan.centrings["a"].why == "non-centred: 4 rows for each element"


def rows_with_their_own_noise(x, y):
    """Every row adds its own products of columns at each step: far dearer than the source."""
    b = normal("b", 0, 1, x.shape[1])
    c = normal("c", 0, 0.3, x.shape[1])
    numpyro.sample("y", dist.Normal(x @ b, jnp.exp(x @ c)), obs=y)


def test_a_gradient_far_dearer_than_the_sources_is_not_taken():
    x = _RNG.normal(size=(600, 12))
    plan = autmarg.transform(rows_with_their_own_noise).plan(x, x.sum(1))
    assert plan.integrated == ()
    (reason,) = (r for r in plan.refusals if r.site == "b")
    assert reason.rule == "cost"
    planned, source = plan.predicted
    assert planned == source
    everything = autmarg.transform(rows_with_their_own_noise, marginalize="all").plan(x, x.sum(1))
    assert everything.predicted[0].gradient > 20 * source.gradient
    few = autmarg.transform(rows_with_their_own_noise).plan(x[:20, :2], x[:20].sum(1))
    assert few.integrated == ("b",)  # a difference that no run would notice


def test_local_scales_pay_for_a_dearer_gradient():
    def horseshoe(x, y):
        local = numpyro.sample("local", dist.HalfCauchy(jnp.ones(x.shape[1])))
        beta = numpyro.sample("beta", dist.Normal(0, scale("tau") * local))
        numpyro.sample("y", dist.Normal(x @ beta, scale("s")), obs=y)

    x = _RNG.normal(size=(60, 40))
    plan = autmarg.transform(horseshoe).plan(x, x[:, 0])
    planned, source = plan.predicted
    assert plan.integrated == ("beta",) and planned.draw < source.draw / 5


def test_both_predictions_are_printed_a_line_each():
    def model(y=None):
        numpyro.sample("y", dist.Normal(groups_of_a_mean()[G], scale("s")), obs=y)

    plan = autmarg.transform(model).plan(FLAT.astype(float))
    planned, source = plan.predicted
    lines = str(plan).splitlines()
    assert lines[1] == f"predicted as planned: {planned}"
    assert lines[2] == f"predicted for the source in its best form: {source}"
    assert " per gradient, " in lines[1] and lines[2].endswith(" per effective draw")
    assert planned.dimensions == 2 and source.dimensions == GROUPS + 3
    again = autmarg.transform(model).plan(FLAT.astype(float))
    assert again.predicted == plan.predicted


@pytest.mark.parametrize("count", [12, 30])
def test_the_source_is_predicted_the_same_whatever_is_done(count):
    def model(y=None):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([5]))
        u = numpyro.sample("u", dist.Normal(0, scale("s")).expand([count]))
        numpyro.sample("y", dist.Bernoulli(logits=u[np.arange(len(y)) % count] + b[G % 5]), obs=y)

    asked = ("off", "whiten")
    plans = [autmarg.transform(model, nongaussian=word).plan(FLAT > 0) for word in asked]
    assert not plans[0].whitened and plans[1].whitened
    draws = [plan.predicted[1].draw for plan in plans]
    assert draws[0] == pytest.approx(draws[1], rel=0.1)


def test_the_work_of_the_source_counts_loops_rows_and_factorisations():
    def work(model, *args):
        return source_work(autmarg.transform(model, marginalize=[]).plan(*args).program)

    def rows(y):
        numpyro.sample("y", dist.Poisson(jnp.exp(groups_of_a_mean()[G[: len(y)]])), obs=y)

    one, two = work(rows, FLAT[:40]), work(rows, FLAT[:80])
    assert one.operations == two.operations and one.elements < two.elements < 2 * one.elements

    def loop(y):
        s = scale("s")

        def step(x, y):
            x = jnp.tanh(numpyro.sample("x", dist.Normal(x, s)))
            numpyro.sample("y", dist.Poisson(jnp.exp(x)), obs=y)
            return x, None

        scan(step, 0.0, y)

    def cov(y):
        k = jnp.exp(-jnp.square(X[:, None] - X) / scale("s")) + jnp.eye(GROUPS)
        numpyro.sample("y", dist.MultivariateNormal(0.0, k), obs=y)

    assert work(loop, FLAT[:40]).elements > 1.5 * work(loop, FLAT[:20]).elements
    assert work(cov, X).cubes == GROUPS**3


def test_the_source_is_taken_only_where_it_saves_time():
    """A share of a draw's time, and more of it than compiling makes up for."""
    best = Prediction(1e-3, 10, 1.0)
    cases = {
        "cheaper": (Prediction(1e-4, 10, 2.0), True),
        "hardly cheaper": (Prediction(2.5e-4, 10, 3.4), False),
        "hardly cheaper, but with a gradient ten times as cheap": (Prediction(1e-4, 10, 8.0), True),
        "dearer": (Prediction(1e-4, 10, 20.0), False),
        "a little cheaper, the other beyond the guard": (Prediction(1e-5, 10, 40.0), True),
    }
    for name, (source, wanted) in cases.items():
        assert choose.takes_source(source, best) is wanted, name
    small = Prediction(1.2e-5, 10, 1.0)
    assert not choose.takes_source(Prediction(3e-6, 10, 1.0), small)
    assert choose.takes_source(Prediction(1e-6, 10, 1.0), small)
