"""Conjugacies in programs: every rule is found and exact, in several spellings; what is refused."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats

import autmarg
from autmarg.conjugacy import marginal_likelihood as formulas
from autmarg.conjugacy.registry import SHIPPED, priors, rules, shipped
from tests.conjugacy import models
from tests.conjugacy.models import COUNTS, EXPOSURE, POSITIVES, REALS, G
from tests.support.generator.identity import identity
from tests.support.lanes import lanes

RULES = dict(zip(SHIPPED, shipped(), strict=True))
PROGRAMS = (*models.FIRST, *models.SECOND)
N = len(COUNTS)


def test_the_search_knows_the_priors_of_rules_by_their_texts():
    assert priors() == {rule.prior.family.name for rule in rules()}


def exact(model, values=None):
    """The transformed model, where the identity holds."""
    marg = autmarg.transform(model)
    found = identity(marg, values=values or models.values_of(marg.plan().program.latents))
    assert np.isfinite(found.errors).all()
    assert np.abs(found.errors).max() < min(found.tolerance, 1e-9)
    return marg


@pytest.mark.parametrize("model", lanes(PROGRAMS, models.FIRST))
def test_found_and_exact(model, quick_compilation):
    marg = exact(model)
    plan = marg.plan()
    assert set(plan.integrated) == {n.name for n in plan.program.latents} & models.PARENTS
    rule = RULES[next(name for name in SHIPPED if model.__name__.startswith(name))]
    assert any(e.structure.startswith(f"{rule.title} rule, ") for e in plan.entries)


@pytest.mark.parametrize("model", lanes(PROGRAMS, quick=[models.gamma_poisson]))
def test_verify_holds(model, quick_compilation):
    """Also far from the posterior."""
    report = autmarg.verify(model, points=2, quiet=True)
    assert report.worst < 1e-9 * (report.rows + report.dimensions)


def test_the_plan_says_what_was_done():
    plan = autmarg.transform(models.beta_binomial).plan()
    entries = {e.site: e for e in plan.entries}
    assert entries["bi"].action == "integrated out"
    assert entries["bi"].structure == "Beta-Binomial rule, 8 pairs"
    assert entries["bi_odds"].action == "after recovery"
    assert entries["bi_y"].action == "observed, marginal"
    step = next(s for s in plan.history if s.name == "conjugate")
    assert step.sites == ("bi", "bi_y", "marginal(bi_y)", "recover(bi)")


# The marginal itself.


def test_closed_forms(quick_compilation):
    """Against SciPy: beta-binomial, negative binomial and Student's t."""

    def model():
        p = numpyro.sample("p", dist.Beta(2.0, 3.0).expand([N]))
        numpyro.sample("k", dist.Binomial(models.SIZES, p), obs=COUNTS)
        x = numpyro.sample("x", dist.Gamma(2.5, 1.5).expand([N]))
        numpyro.sample("c", dist.Poisson(EXPOSURE * x), obs=COUNTS)
        v = numpyro.sample("v", dist.InverseGamma(2.0, 3.0).expand([N]))
        numpyro.sample("r", dist.Normal(0.5, jnp.sqrt(v)), obs=REALS)

    marg = autmarg.transform(model)
    assert marg.plan().kept == ()
    binomial = stats.betabinom.logpmf(COUNTS, models.SIZES, 2.0, 3.0)
    poisson = stats.nbinom.logpmf(COUNTS, 2.5, 1.5 / (1.5 + EXPOSURE))
    normal = stats.t.logpdf(REALS, 2 * 2.0, 0.5, np.sqrt(3.0 / 2.0))
    expected = binomial.sum() + poisson.sum() + normal.sum()
    found = float(jax.jit(lambda: log_density(marg, (), {}, {})[0])())
    assert found == pytest.approx(expected, abs=1e-11)


def test_a_prior_as_narrow_as_floats_go_leaves_the_children_alone(quick_compilation):
    """With n of 10¹⁷ prior observations log Γ(n) has an error of hundreds; the limit is exact."""

    def model(n):
        p = numpyro.sample("p", dist.Beta(0.3 * n, 0.7 * n).expand([N]))
        numpyro.sample("k", dist.Binomial(models.SIZES, p), obs=COUNTS)
        q = numpyro.sample("q", dist.Dirichlet(n * jnp.array([0.2, 0.3, 0.5])).expand([4]))
        numpyro.sample("m", dist.Multinomial(models.TABLE.sum(1), q, total_count_max=9),
                       obs=models.TABLE)  # fmt: skip
        x = numpyro.sample("x", dist.Gamma(2 * n, n))
        numpyro.sample("c", dist.Poisson(EXPOSURE * x), obs=COUNTS)
        v = numpyro.sample("v", dist.InverseGamma(n, 3 * n).expand([N]))
        numpyro.sample("r", dist.Normal(0.5, jnp.sqrt(v)), obs=REALS)

    marg = autmarg.transform(model)
    found = jax.jit(
        jax.value_and_grad(lambda log_n: log_density(marg, (jnp.exp(log_n),), {}, {})[0])
    )
    limit = stats.binom.logpmf(COUNTS, models.SIZES, 0.3).sum()
    limit += stats.multinomial.logpmf(models.TABLE, 9, [0.2, 0.3, 0.5]).sum()
    limit += stats.poisson.logpmf(COUNTS, 2 * EXPOSURE).sum()
    limit += stats.norm.logpdf(REALS, 0.5, np.sqrt(3.0)).sum()
    value, slope = found(np.log(1e17))
    assert float(value) == pytest.approx(limit, abs=1e-11)
    assert abs(float(slope)) < 1e-12
    assert abs(float(found(np.log(1e7))[0]) - limit) < 1e-4


def test_data_are_added_up_when_the_plan_is_made():
    """With a known exposure a step costs the number of parents, whatever the number of rows."""

    def model(n):
        x = numpyro.sample("x", dist.Gamma(numpyro.sample("a", dist.LogNormal(0, 1)), 2.0))
        with numpyro.plate("rows", n):
            numpyro.sample("y", dist.Poisson(3.0 * x), obs=np.arange(n) % 3)

    for n in (10, 1000):
        (recover,) = (x for x in autmarg.transform(model).program(n).nodes if "recover" in x.name)
        tape = recover.density.update.tape
        assert max(np.size(c) for c in tape.constants.values()) == 1
        assert all(np.prod(tape.avals[v].shape) <= 1 for e in tape.equations for v in e.outputs)


def test_a_rule_that_does_not_cancel_symbol_for_symbol_is_evaluated_at_one_x(
    monkeypatch, quick_compilation
):
    formulas.marginal_likelihood.cache_clear()
    monkeypatch.setattr(formulas, "_expanded", lambda expression: expression)
    try:
        for rule in ("gamma_exponential", "dirichlet_multinomial"):
            assert formulas.marginal_likelihood(RULES[rule]).at_one_x
            exact(getattr(models, rule))
    finally:
        formulas.marginal_likelihood.cache_clear()


def test_draws_are_of_the_posterior(quick_compilation):
    """5,000 draws; mean and variance within 5 standard errors of the closed form's."""

    def model():
        p = numpyro.sample("p", dist.Beta(2.0, 3.0).expand([5]))
        numpyro.sample("k", dist.Bernoulli(p[G]), obs=models.BINARY)
        q = numpyro.sample("q", dist.Dirichlet(jnp.array([1.0, 2.0, 0.5])))
        numpyro.sample("l", dist.Categorical(q).expand([N]), obs=models.LABELS)
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(0.0, x**-0.5).expand([N]), obs=REALS)

    marg, n = autmarg.transform(model), 5_000
    draws = marg.recover(jax.random.key(1), {"draw": jnp.zeros(n)})
    moments = marg.recover(jax.random.key(1), {"draw": jnp.zeros(1)}, moments=True)
    a = np.bincount(G, models.BINARY, 5) + 2.0
    b = np.bincount(G, 1 - models.BINARY, 5) + 3.0
    c = np.array([1.0, 2.0, 0.5]) + np.bincount(models.LABELS, minlength=3)
    rate = 1.0 + (REALS**2).sum() / 2
    exact_moments = {
        "p": (a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)),
        "q": (c / c.sum(), c / c.sum() * (1 - c / c.sum()) / (c.sum() + 1)),
        "x": ((2.0 + N / 2) / rate, (2.0 + N / 2) / rate**2),
    }
    for name, (mean, variance) in exact_moments.items():
        np.testing.assert_allclose(moments[name]["mean"][0], mean, rtol=1e-12)
        np.testing.assert_allclose(moments[name]["var"][0], variance, rtol=1e-12)
        values = np.asarray(draws[name])
        assert (np.abs(values.mean(0) - mean) < 5 * np.sqrt(variance / n)).all()
        spread = ((values - mean) ** 2).std(0) / np.sqrt(n)
        assert (np.abs(values.var(0) - variance) < 5 * spread).all()


# What is asked for.


def two():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0).expand([N]).to_event(1))
    z = numpyro.sample("z", dist.Gamma(3.0, 2.0))
    numpyro.sample("y", dist.Poisson(x * z), obs=COUNTS)


def test_of_two_factors_of_one_rate_the_larger_goes_unless_asked():
    plan = autmarg.transform(two).plan()
    assert plan.integrated == ("x",)
    (refusal,) = plan.refusals
    assert re.search(r"read by 'y' \(\S+\), .* integrates out 'x' already", str(refusal))
    assert autmarg.transform(two, keep=["x"]).plan().integrated == ("z",)
    assert autmarg.transform(two, marginalize=["z"]).plan().integrated == ("z",)
    assert autmarg.transform(two, keep=["x", "z"]).plan().integrated == ()
    with pytest.raises(autmarg.RequestError, match=r"'z' \(\S+\) is a Gamma, not Gaussian"):
        autmarg.transform(two, marginalize=["x", "z"]).plan()


def test_a_gaussian_goes_first():
    """The mean is integrated out as a Gaussian, so the precision stays."""

    def model():
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
        mu = numpyro.sample("mu", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(mu, tau**-0.5), obs=REALS)

    plan = autmarg.transform(model).plan()
    assert plan.integrated == ("mu",)
    assert re.search(r"the scale of 'mu' \(\S+\) is not a multiple of", str(plan.refusals[0]))
    assert autmarg.transform(model, keep=["mu"]).plan().integrated == ("tau",)
    assert autmarg.transform(model, marginalize=["tau"]).plan().integrated == ("tau",)


def test_data_that_are_traced_are_exact_too(quick_compilation):
    def model(y, e):
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Poisson(e * x), obs=y)

    marg = autmarg.transform(model)
    found = jax.jit(lambda y, e: log_density(marg, (y, e), {}, {})[0])(COUNTS, EXPOSURE)
    direct = log_density(marg, (COUNTS, EXPOSURE), {}, {})[0]
    assert float(found) == pytest.approx(float(direct), abs=1e-12)


def test_without_data_nothing_is_drawn_from_its_prior_by_mistake():
    def model(y=None):
        a = numpyro.sample("a", dist.LogNormal(0, 1))
        p = numpyro.sample("p", dist.Beta(a, 1.0).expand([N]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(p), obs=y)

    marg = autmarg.transform(model)
    given = handlers.seed(handlers.substitute(marg, {"a": jnp.ones(())}), 0)
    with pytest.raises(autmarg.RequestError, match=r"but not of \['p'\]"):
        given()
    handlers.seed(marg, 0)()  # a prior predictive


# What is refused.


def gamma(y=COUNTS, **options):
    """x with one Poisson child y, a function of x giving its rate."""
    rate = options.pop("rate", lambda x: x)
    prior = options.pop("prior", dist.Gamma(2.0, 1.0))
    wrap = options.pop("wrap", lambda fn: fn)

    def model():
        x = numpyro.sample("x", prior)
        numpyro.sample("y", wrap(dist.Poisson(rate(x)).expand([N])), obs=y)

    return model


def scaled():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    with handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Poisson(x), obs=3)


def power_of_another_density():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(x), obs=3)
    with handlers.scale(scale=x):
        numpyro.sample("z", dist.Poisson(2.0), obs=3)


def latent_child():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    numpyro.sample("w", dist.Gamma(3.0, x))
    numpyro.sample("y", dist.Poisson(x), obs=3)


def factor():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    numpyro.factor("f", -x)
    numpyro.sample("y", dist.Poisson(x), obs=3)


def both_arguments():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(x, x**-0.5), obs=REALS)


def masked_by_a_latent():
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    z = numpyro.sample("z", dist.LogNormal(0.0, 1.0))
    numpyro.sample("y", dist.Poisson(x).expand([N]).mask(z > EXPOSURE), obs=COUNTS)


def masked_prior():
    with handlers.mask(mask=np.arange(N) > 2):
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0).expand([N]))
    numpyro.sample("y", dist.Poisson(x), obs=COUNTS)


def part_of_a_vector():
    p = numpyro.sample("x", dist.Dirichlet(jnp.ones(4)))
    numpyro.sample("y", dist.Categorical(p[np.array([0, 1, 1, 2])]).expand([N]), obs=models.LABELS)


def nobody():
    """Under a mask its density need not integrate to one."""
    numpyro.sample("x", dist.Gamma(2.0, 1.0).mask(False))
    numpyro.sample("y", dist.Poisson(2.0), obs=3)


REFUSED = [
    (scaled, "read by 'y', which is under handlers.scale"),
    (power_of_another_density, "read by 'z', which is under handlers.scale"),
    (latent_child, "read by 'w', which is not observed"),
    (factor, "enters numpyro.factor 'f'"),
    (both_arguments, "scales the noise of 'y'"),
    (masked_by_a_latent, "the mask over 'y' is traced or depends on a latent"),
    (masked_prior, "is under a mask"),
    (part_of_a_vector, "does not read one whole vector"),
    (nobody, "no site with a density reads it"),
    (gamma(rate=lambda x: x**2), "its argument 'rate' is x**2, but the rule needs e*x"),
    (gamma(rate=lambda x: 1 + x), "its argument 'rate' reads 'x' through '+'"),
    (gamma(rate=lambda x: jnp.maximum(x, 1.0)), "argument 'rate' reads 'x' through 'maximum'"),
    (gamma(rate=lambda x: x * np.arange(N)), "e is not positive everywhere"),
    (gamma(prior=dist.Pareto(1.0, 2.0)), "no rule integrates it out of 'y', a Poisson"),
]


@pytest.mark.parametrize(("model", "reason"), REFUSED, ids=[r for _, r in REFUSED])
def test_what_no_rule_fits_stays_and_the_plan_says_why(model, reason):
    plan = autmarg.transform(model).plan()
    assert "x" not in plan.integrated
    (refusal,) = (r for r in plan.refusals if r.site == "x")
    words = re.sub(r" \(test_conjugate\.py:\d+\)", "", str(refusal))
    assert refusal.rule == "not conjugate" and reason in words
    assert words.startswith("'x' is a ") and words.endswith("so it is sampled")
    assert refusal.place is not None
    if model is nobody:
        assert "no conjugacy was found" in str(plan)


def test_data_outside_the_support_are_an_error():
    with pytest.raises(autmarg.ModelError, match=r"'y' \(.*\): 8 of 8 values are outside the supp"):
        autmarg.transform(gamma(y=COUNTS - 20.0)).plan()


def test_the_rule_that_almost_applied_is_named():
    (refusal,) = autmarg.transform(gamma(rate=lambda x: x**2)).plan().refusals
    assert refusal.nearest == "Gamma-Poisson"
    assert "nearest  the Gamma-Poisson rule" in autmarg.transform(
        gamma(rate=lambda x: x**2)
    ).plan().explain()  # fmt: skip


def test_what_stays_is_exact_all_the_same(quick_compilation):
    exact(masked_by_a_latent, {"x": jnp.asarray(0.7), "z": jnp.asarray(1.2)})


# A user's own.


def test_a_rule_of_ones_own_is_found(quick_compilation, monkeypatch):
    """Chi-squared tests of a variance are gamma children of its inverse: any fixed power of x."""
    from autmarg.conjugacy import registry

    monkeypatch.setattr(registry, "_added", [])

    def model():
        v = numpyro.sample("v", dist.InverseGamma(3.0, 2.0).expand([5]))
        numpyro.sample("y", dist.Gamma(2.5, 0.5 / v[G]), obs=POSITIVES)

    assert autmarg.transform(model).plan().integrated == ()
    (proof,) = autmarg.register_rule("""
      rule inverse_gamma_gamma
        prior  x ~ InverseGamma(a, b)
        child  y ~ Gamma(k, e / x) given e > 0
        update a -> a + sum(k), b -> b + sum(e * y)
    """)
    assert dict(proof.steps)["support"] == "sympy"
    marg = exact(model, {"v": jnp.linspace(0.5, 2.0, 5)})
    assert marg.plan().integrated == ("v",)
    with pytest.raises(autmarg.ModelError, match="registered already: inverse_gamma_gamma"):
        autmarg.register_rule(proof.rule.text)


def test_a_rule_that_cannot_be_looked_for_is_not_taken():
    with pytest.raises(autmarg.ModelError, match="expected a product of a number, one other name"):
        autmarg.register_rule("""
          rule sums
            prior  x ~ Gamma(a, b)
            child  y ~ Poisson(e * f * x) given e > 0, f > 0
            update a -> a + sum(y), b -> b + sum(e * f)
        """)
