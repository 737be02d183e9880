"""Bad input gets an error that names the site and the remedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

import autmarg
from tests.support.programs import CASES, GROUP, Y


def intercepts(group, y=None, groups=5):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([groups]))
    numpyro.sample("y", dist.Normal(u[group], 1.0), obs=y)


@pytest.mark.parametrize("groups", [4, 3])
def test_index_out_of_range(groups):
    marg = autmarg.transform(intercepts)
    with pytest.raises(autmarg.ModelError, match=rf"axis of length {groups}.*group count"):
        marg.plan(GROUP, Y, groups)


def test_nan_in_observed_data():
    y = Y.copy()
    y[[3, 5]] = np.nan
    with pytest.raises(autmarg.ModelError, match=r"'y' \(.*\): found 2 NaN among 40 values"):
        autmarg.transform(intercepts).plan(GROUP, y)


def test_mismatched_lengths():
    with pytest.raises(autmarg.ModelError, match=r"'y'.*found data of shape \(39,\)"):
        autmarg.transform(intercepts).plan(GROUP, Y[:-1])


def test_lengths_are_no_hint_where_a_name_is_missing():
    def model(x, y):
        numpyro.sample("y", dist.Normal(jnp.no_such_function(x), 1.0), obs=y)

    with pytest.raises(autmarg.ModelError, match="no_such_function") as caught:
        autmarg.transform(model).plan(np.ones(3), Y)
    assert "lengths" not in str(caught.value)


def test_what_a_library_says_after_a_colon():
    def model(y):
        def step(carry, row):
            return carry + jnp.ones(3), numpyro.sample("y", dist.Normal(0.0, 1.0), obs=row)

        scan(step, jnp.ones(3, int), y)

    message = r"carry input and carry output .*differ: .*int64\[3\] but .* has type float64"
    with pytest.raises(autmarg.ModelError, match=message):
        autmarg.transform(model).plan(Y)


def test_no_site_of_that_name():
    with pytest.raises(
        autmarg.RequestError, match=r"'w' is not a latent site.*expected one of tau, u"
    ):
        autmarg.transform(intercepts, marginalize=["w"]).plan(GROUP, Y)
    with pytest.raises(autmarg.RequestError, match="'y' is an observed site"):
        autmarg.transform(intercepts, keep=["y"]).plan(GROUP, Y)


def test_two_sites_of_one_name():
    def model(y):
        numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(0, 1), obs=y)

    with pytest.raises(autmarg.ModelError, match=r"two sites are named 'u': one at .*, one at"):
        autmarg.transform(model).plan(Y)


def test_recovery_needs_every_kept_site():
    marg = autmarg.transform(CASES["radon"].model)
    with pytest.raises(autmarg.RequestError, match="draws of the sampled site 's'"):
        marg.recover(jax.random.key(0), {"tau": np.ones(3)}, Y)
    with pytest.raises(autmarg.RequestError, match=r"shape \(2,\); expected \(3,\)"):
        marg.recover(jax.random.key(0), {"tau": np.ones(3), "s": np.ones(2)}, Y)
    with pytest.raises(autmarg.RequestError, match="an MCMC object, a dict of draws"):
        marg.recover(jax.random.key(0), [1.0], Y)


def test_structure_that_depends_on_a_latent():
    def model(y):
        u = numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(1.0 if u > 0 else 0.0, 1.0), obs=y)

    with pytest.raises(autmarg.ModelError, match=r"test_bad_input.*a latent value"):
        autmarg.transform(model).plan(Y)


def test_traced_index_arrays():
    marg = autmarg.transform(intercepts)

    def density(group):
        return log_density(marg, (group, Y), {}, {"tau": 1.0})[0]

    with pytest.raises(autmarg.RequestError, match=r"traced.*close over"):
        jax.jit(density)(jnp.asarray(GROUP))


def regression(x, group, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([5]))
    b = numpyro.sample("b", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(u[group] + b * x, 0.7), obs=y)


def test_traced_data_and_covariates():
    """One can jit and vmap over data sets; the numbers are those of concrete data."""
    marg = autmarg.transform(regression)
    x = np.linspace(-1, 1, 40)

    def density(x, y):
        return log_density(marg, (x, GROUP, y), {}, {"tau": 0.8})[0]

    expected = np.array([density(x, Y), density(x + 1, 2 * Y)])
    np.testing.assert_allclose(jax.jit(density)(x, Y), expected[0], rtol=1e-12)
    found = jax.vmap(density)(np.stack([x, x + 1]), np.stack([Y, 2 * Y]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_no_stale_plan():
    """Arrays changed in place, or closed over and changed, get a plan of their own."""
    group, y, shift = GROUP.copy(), Y.copy(), np.zeros(40)

    def model(group, y):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(shift + u[group], tau), obs=y)

    marg = autmarg.transform(model)

    def density(transformed):
        return log_density(transformed, (group, y), {}, {"tau": 0.9})[0]

    density(marg)
    for change in (lambda: y.__iadd__(1.0), lambda: group.sort(), lambda: shift.__iadd__(0.5)):
        change()
        np.testing.assert_allclose(density(marg), density(autmarg.transform(model)), rtol=1e-13)


def test_plan_of_arrays_that_were_changed_in_place(quick_compilation):
    """A plan that is kept serves equal arrays later, whatever became of those it was made from."""
    counts = np.arange(40.0) % 5

    def model(counts):
        numpyro.sample("y", dist.Normal(numpyro.sample("u", dist.Normal(0, 1)), 1.0), obs=Y)
        rate = numpyro.sample("rate", dist.HalfNormal(1.0))
        numpyro.sample("counts", dist.Poisson(rate), obs=counts)

    def density(transformed, counts):
        return log_density(transformed, (counts,), {}, {"rate": 0.9})[0]

    marg, before = autmarg.transform(model), counts.copy()
    expected = density(marg, counts)
    counts += 1
    np.testing.assert_allclose(density(marg, before), expected, rtol=1e-13)


def test_structure_that_jax_numpy_computes_inside_the_model():
    def model(y):
        chosen = jnp.asarray(Y) > 0
        numpyro.sample("y", dist.Normal(numpyro.sample("u", dist.Normal(0, 1)), 1.0), obs=y[chosen])

    with pytest.raises(autmarg.ModelError, match=r"test_bad_input.*computed with jax.numpy inside"):
        autmarg.transform(model).plan(jnp.asarray(Y))
