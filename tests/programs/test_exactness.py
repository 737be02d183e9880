"""The exactness identity on small programs, with every stage and in both float types."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.plan import order
from tests.support.lanes import lanes
from tests.support.programs import CASES, Y

# Other spellings of means that tests/analysis/test_means.py and other cases have.
REPEATED = {
    "radon",
    "gaussian_process",
    "measurement_error",
    "python_loop",
    "horseshoe",
    "one_hot",
    "interaction_table",
    "mapped_dot",
    "empty_groups",
    # The same structures are in tests/programs/test_dense.py, against a dense Gaussian:
    "multivariate_likelihood",
    "masked_rows",
    "transformed_response",
    # and these among random walks, plates and families:
    "random_walk",
    "sum_to_zero",
    "noncentred_slopes",
    "three_levels",
    "crossed_plates",  # with stages of blocks below
    "heteroscedastic_groups",
    "masked_vectors_that_nothing_reads",
    "two_observed_sites",  # in single precision below
    "missing_covariate",
    "childless",
    "product_of_latents",
}


@pytest.mark.parametrize("name", lanes(CASES, CASES.keys() - REPEATED))
def test_exact_and_complete(name):
    case = CASES[name]
    marg = autmarg.transform(case.model, marginalize="all")
    assert set(marg.plan(Y).integrated) == case.integrated
    report = autmarg.verify(marg, Y, points=5, quiet=True)
    assert len(report.errors) == 10 and np.isfinite(report.errors).all()


@pytest.mark.parametrize(
    "name",
    lanes(
        ["radon", "three_levels", "noncentred_slopes", "crossed_plates", "measurement_error"],
        quick={"crossed_plates"},
    ),
)
def test_exact_with_stages_of_blocks(name, monkeypatch):
    """Small roots normally swallow small models: force the batched stages."""
    monkeypatch.setattr(order, "SMALL_ROOT", 0)
    case = CASES[name]
    marg = autmarg.transform(case.model)
    assert "blocks of" in str(marg.plan(Y))
    autmarg.verify(marg, Y, points=5, quiet=True)


@pytest.mark.parametrize(
    "name",
    lanes(
        ["radon", "heteroscedastic_groups", "kept_child", "two_observed_sites", "random_walk"],
        quick={"two_observed_sites"},
    ),
)
def test_exact_in_single_precision(name):
    with jax.enable_x64(False):
        report = autmarg.verify(CASES[name].model, Y.astype(np.float32), points=5, quiet=True)
    assert report.tolerance > 1e-3  # the single-precision rate was used


def test_far_from_zero_nothing_cancels():
    """Data at 10⁴ noise scales from zero: the residual form keeps the digits."""

    def model(y):
        a = numpyro.sample("a", dist.Normal(0, 1e6))
        u = numpyro.sample(
            "u", dist.Normal(0, numpyro.sample("t", dist.HalfNormal(10.0))).expand([5])
        )
        s = numpyro.sample("s", dist.Uniform(0.5, 2.0))
        numpyro.sample("y", dist.Normal(a + u[np.arange(40) % 5], s), obs=y)

    report = autmarg.verify(model, Y + 1e4, points=5, quiet=True)
    assert report.exact


def test_nearly_collinear_features_keep_their_digits():
    """A smooth basis whose singular values span eight orders (a Hilbert-space GP)."""
    import numpyro
    import numpyro.distributions as dist

    x = np.random.default_rng(4).normal(size=11)
    basis = np.sin(np.arange(1, 13) * np.pi / 4 * (x[:, None] + 2))

    def model(y):
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        z = numpyro.sample("z", dist.Normal(0, 2.0).expand([12]))
        numpyro.sample("y", dist.Normal(t * (basis @ z), 0.8), obs=y)

    assert autmarg.verify(model, Y[:11], points=3, quiet=True).exact


def test_collinear_features_under_a_narrow_prior():
    """A cubic whose least-squares coefficients are far larger than those that the prior allows."""
    powers = np.vander(np.linspace(3, 4, 11), 4)

    def model(y):
        s = numpyro.sample("s", dist.LogNormal(-3.0, 0.5))
        b = numpyro.sample("b", dist.Normal(0, 1).expand([4]))
        numpyro.sample("y", dist.Normal(powers @ b, s), obs=y)

    autmarg.verify(model, Y[:11], points=3, quiet=True)


def test_densities_without_a_derivative():
    """JAX has no derivative of betainc in its parameters."""

    def model(y):
        s, u = numpyro.sample("s", dist.HalfNormal(1)), numpyro.sample("u", dist.Normal(0, 1))
        fn = dist.GaussianCopula(dist.Beta(s * jnp.ones(2), 2.0), correlation_matrix=jnp.eye(2))
        numpyro.sample("x", fn, obs=np.array([0.3, 0.6]))
        numpyro.sample("y", dist.Normal(u, s), obs=y)

    autmarg.verify(model, Y, points=1, quiet=True)
