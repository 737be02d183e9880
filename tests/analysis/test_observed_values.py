"""Observed values that are affine in latents: log N(v; m, s) reads v - m alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import log_likelihood
from numpyro.infer.util import log_density

import autmarg
from tests.support.generator.identity import check_exact

RNG = np.random.default_rng(5)
A, B, Y = RNG.normal(size=(3, 9))
A[:3], B[[1, 5, 6]], Y[7:] = np.nan, np.nan, np.nan
T = 12


def scale(name: str) -> Any:
    return numpyro.sample(name, dist.HalfNormal(1.0))


def normal(name: str, loc: Any = 0.0, scale: Any = 1.0, size: tuple[int, ...] = ()) -> Any:
    return numpyro.sample(name, dist.Normal(loc, scale).expand(size))


def two_imputed_covariates_and_an_imputed_response():
    """By ``where`` and a running index, by ``where`` over a whole plate, by ``.at[].set``."""
    ma, mb, sa, sb, s = normal("ma"), normal("mb"), scale("sa"), scale("sb"), scale("s")
    a = normal("a", ma, sa, (3,))
    with numpyro.plate("rows", 9):
        b = numpyro.sample("b", dist.Normal(mb, sb))
    y = normal("y_missing", 0.0, 5.0, (2,))
    whole_a = jnp.where(np.isnan(A), a[np.cumsum(np.isnan(A)) - 1], A)
    whole_b = jnp.where(np.isnan(B), b, B)
    whole_y = jnp.asarray(Y).at[np.isnan(Y)].set(y)
    numpyro.sample("A", dist.Normal(ma, sa), obs=whole_a)
    numpyro.sample("B", dist.Normal(mb + 0.3 * whole_a, sb), obs=whole_b)
    slopes = normal("slopes", size=(2,))
    numpyro.sample("Y", dist.Normal(slopes[0] * whole_a + slopes[1] * whole_b, s), obs=whole_y)


def difference():
    """A control variate: the outcome less a latent multiple of a covariate."""
    theta, a, s = normal("theta", 0.0, 3.0), normal("a", 0.0, 2.0), scale("s")
    numpyro.sample("y", dist.Normal(a + 0.1 * theta, s), obs=T * 0.1 - theta * (A[3:] - 0.4))


def vector_of_latents():
    """All of an observed vector is latent, under a covariance that is sampled."""
    s = scale("s")
    w, x = normal("w", 0.0, 10.0, (2,)), normal("x", 0.0, 10.0, (1,))
    cov = s * jnp.eye(3) + 0.2
    numpyro.sample("y", dist.MultivariateNormal(jnp.ones(3), cov), obs=jnp.concatenate([w, x]))


def first_value_of_an_observed_walk():
    """The observed past is latent, too: both the value and the mean of a step read it."""
    s, first = scale("s"), normal("first")
    path = jnp.concatenate([first[None], Y[:7]])
    numpyro.sample("y", dist.GaussianRandomWalk(s, 8), obs=path)


def masked_rows():
    """Rows that a mask takes out hold NaN, as their covariate does."""
    b, s = normal("b"), scale("s")
    rows = dist.Normal(0.5, s).mask(~np.isnan(A))
    numpyro.sample("y", rows, obs=jnp.asarray(A) - b * np.nan_to_num(A))


def innovations_of_a_chain():
    """A state-space model by its residuals."""
    s, tau = scale("s"), scale("stau")

    def step(x: Any, _: Any) -> Any:
        x = numpyro.sample("x", dist.Normal(0.9 * x, tau))
        return x, x

    _, x = scan(step, 0.0, None, length=T)
    numpyro.sample("y", dist.Normal(0.0, s), obs=np.linspace(0, 1, T) - x)


CASES = {
    two_imputed_covariates_and_an_imputed_response: "ma mb a b y_missing",
    difference: "theta a",
    vector_of_latents: "w x",
    first_value_of_an_observed_walk: "first",
    masked_rows: "b",
    innovations_of_a_chain: "x",
}


@pytest.mark.parametrize("model", CASES, ids=lambda model: model.__name__)
def test_exact(model: Callable[..., Any]):
    check_exact(model, CASES[model])


def test_the_smaller_factor_of_a_product_is_kept():
    plan = autmarg.transform(two_imputed_covariates_and_an_imputed_response).plan()
    assert "slopes" in plan.kept
    assert "value of A affine in it" in {e.site: e.why for e in plan.entries}["a"]


def test_what_other_parts_see_of_the_site():
    """Its value is not known where it is latent; likelihoods are those of the joint density."""
    marg = autmarg.transform(two_imputed_covariates_and_an_imputed_response, marginalize="all")
    kept = {"sa": jnp.ones(2), "sb": jnp.ones(2), "s": jnp.ones(2), "slopes": jnp.ones((2, 2))}
    first = {name: value[0] for name, value in kept.items()}
    density, trace = log_density(marg, (), {}, first)
    np.testing.assert_array_equal(trace["A"]["value"], A)
    np.testing.assert_array_equal(trace["Y"]["value"], Y)
    joint = sum(log_likelihood(marg, kept, parallel=True).values())
    prior = sum(trace[name]["fn"].log_prob(value).sum() for name, value in first.items())
    np.testing.assert_allclose(np.asarray(joint).reshape(2, -1).sum(1), density - prior)
    drawn = marg.recover(jax.random.key(0), kept)
    assert drawn["b"].shape == (2, 9)
    assert np.isfinite(log_likelihood(marg.source, drawn)["Y"]).all()


def refused(model: Callable[..., Any]) -> str:
    plan = autmarg.transform(model).plan()
    assert plan.kept == ("u",)
    return str(plan.refusals[0])


def test_values_that_are_not_affine():
    def observed(of: Callable[[Any], Any]) -> Callable[..., Any]:
        def model():
            u = normal("u")
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=of(u))

        return model

    assert "enters the observed value of 'y'" in refused(observed(jnp.exp))
    assert "through '>'" in refused(observed(lambda u: 1.0 * (u > 0)))


def test_values_of_children_that_are_not_gaussian():
    def model(child: Any) -> Callable[..., Any]:
        def run():
            u = normal("u")
            numpyro.sample("y", child, obs=1.0 + u)

        return run

    assert "), a StudentT, not Gaussian" in refused(model(dist.StudentT(3.0, 0.0, 1.0)))
    assert "enters the observed value of 'y'" in refused(model(dist.LogNormal(0.0, 1.0)))


def test_nan_beside_latents():
    def model():
        b = normal("b")
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=jnp.asarray(A) - b)

    with pytest.raises(autmarg.ModelError, match="found 3 NaN among 9"):
        autmarg.transform(model).plan()
