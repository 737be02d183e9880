"""Recovery belongs to the data of the run, indices stay in range without data, and copies work."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.inspect import get_model_relations
from numpyro.infer.util import log_density

import autmarg

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(1)
G = np.arange(10) % 5
Y = np.random.default_rng(0).normal(size=10) + 3


def model(g, n, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("groups", n):
        u = numpyro.sample("u", dist.Normal(0, tau))
    numpyro.sample("y", dist.Normal(u[g], 1), obs=y)


@pytest.fixture(scope="module")
def fitted():
    """A model that ran, its MCMC, and what recovery gives."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    marg = autmarg.transform(model)
    mcmc = MCMC(NUTS(marg), num_warmup=2, num_samples=3, progress_bar=False)
    mcmc.run(KEY, G, 5, Y)
    right = marg.recover(KEY, mcmc, G, 5, Y)
    jax.config.update("jax_disable_most_optimizations", before)
    return marg, mcmc, right


OTHERS = {
    "another y": ((G, 5, Y + 100), {}),
    "another y by name": ((G, 5), {"y": Y + 100}),
    "a shorter y": ((G[:8], 5, Y[:8]), {}),
    "other covariates": ((G[::-1].copy(), 5, Y), {}),
    "another group count": ((G, 6, Y), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_recovery_for_other_data_is_an_error_unless_asked_for(fitted, name):
    marg, mcmc, _ = fitted
    args, kwargs = OTHERS[name]
    for draws in (mcmc, mcmc.get_samples()):
        with pytest.raises(autmarg.RequestError, match=r"other_data=True"):
            marg.recover(KEY, draws, *args, **kwargs)
    with pytest.raises(autmarg.RequestError, match=r"than the run of 'model'"):
        autmarg.transform(model).recover(KEY, mcmc, *args, **kwargs)


def test_recovery_for_other_data_by_name(fitted):
    marg, mcmc, right = fitted
    found = marg.recover(KEY, mcmc, G, 5, Y + 100, other_data=True)
    assert (found["u"] > right["u"] + 5).all()


@pytest.mark.parametrize("draws", ["an MCMC", "a dict"])
def test_recovery_without_data_is_an_error(fitted, draws):
    marg, mcmc, _ = fitted
    given = mcmc if draws == "an MCMC" else mcmc.get_samples()
    with pytest.raises(autmarg.RequestError, match=r"called without data.*lack \['u', 'y'\]"):
        marg.recover(KEY, given, G, 5)


def test_the_same_data_in_other_words(fitted):
    marg, mcmc, right = fitted
    for args, kwargs in [
        ((G,), {"n": 5, "y": Y}),
        ((jnp.asarray(G), 5, jnp.asarray(Y)), {}),
    ]:
        found = marg.recover(KEY, mcmc, *args, **kwargs)
        np.testing.assert_array_equal(found["u"], right["u"])


def test_a_dict_from_elsewhere_is_recovered(fitted):
    """In another process nothing is known of the run."""
    _, mcmc, right = fitted
    found = autmarg.transform(model).recover(KEY, mcmc.get_samples(), G, 5, Y)
    np.testing.assert_allclose(found["u"], right["u"], rtol=1e-6)


def test_data_changed_in_place_since_the_run():
    y, closed = Y.copy(), Y.copy()

    def closing(g, y):
        model(g, 5, y + closed)

    marg = autmarg.transform(closing)
    log_density(marg, (G, y), {}, {"tau": 1.0})
    draws = {"tau": np.ones(2)}
    marg.recover(KEY, draws, G, y)
    for array in (y, closed):
        array += 1
        with pytest.raises(autmarg.RequestError, match="changed in place"):
            marg.recover(KEY, draws, G, y)
        array -= 1


def test_runs_over_traced_data_are_not_held_against_a_dict():
    marg = autmarg.transform(model)
    jax.jit(lambda y: log_density(marg, (G, 5, y), {}, {"tau": 1.0})[0])(Y)
    assert "u" in marg.recover(KEY, {"tau": np.ones(2)}, G, 5, Y)


def test_a_model_of_factors_only_has_nothing_to_recover():
    def factors():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("f", -(x**2))

    marg, draws = autmarg.transform(factors), {"x": np.ones(3)}
    assert marg.recover(KEY, draws).keys() == {"x"}
    with pytest.raises(autmarg.RequestError, match=r"lack \['x'\]"):
        marg.recover(KEY, {"z": np.ones(3)})


def test_an_mcmc_that_has_not_run():
    marg = autmarg.transform(model)
    with pytest.raises(autmarg.RequestError, match="has not run"):
        marg.recover(KEY, MCMC(NUTS(marg), num_warmup=1, num_samples=1), G, 5, Y)


@pytest.mark.parametrize("index", [np.array([5, 4]), np.array([-6]), 5, jnp.array([5, 4])])
def test_a_new_groups_index_is_not_clamped(fitted, index):
    marg, _, right = fitted
    with pytest.raises(autmarg.ModelError, match=r"found index (5|-6) on an axis of length 5"):
        Predictive(marg, right)(KEY, index, 5)
    with pytest.raises(autmarg.ModelError, match="reads outside"):
        Predictive(marg, num_samples=2)(KEY, index, 5)
    for kept in ([], ["u"]):
        with pytest.raises(autmarg.ModelError, match="reads outside"):
            autmarg.transform(model, keep=kept).plan(np.where(G == 0, np.min(index), 5), 5, Y)


def in_vmap(g, y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    numpyro.sample("y", dist.Normal(jax.vmap(lambda k: u[k])(g), 1.0), obs=y)


def in_scan(g, y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    s = numpyro.sample("s", dist.HalfNormal(1.0))

    def step(last, row):
        z = numpyro.sample("z", dist.Normal(0.5 * last, s))
        seen = None if y is None else row[1]
        numpyro.sample("y", dist.Normal(z + u[row[0]], 1.0), obs=seen)
        return z, None

    scan(step, 0.0, (g, jnp.zeros(len(g)) if y is None else y))


@pytest.mark.parametrize("own", [in_vmap, in_scan])
def test_indices_one_by_one_are_not_clamped(own):
    marg, good, bad = autmarg.transform(own), np.array([4, 0, -5]), np.array([5, 0, 1])
    assert Predictive(marg, num_samples=2)(KEY, good)["y"].shape == (2, 3)
    assert "u" in marg.plan(good, np.zeros(3)).integrated
    with pytest.raises(autmarg.ModelError, match="found index 5 on an axis of length 5"):
        Predictive(marg, num_samples=2)(KEY, bad)
    with pytest.raises(autmarg.ModelError, match="found index 5 on an axis of length 5"):
        marg.plan(bad, np.zeros(3))


def test_an_index_may_be_clipped_by_name():
    def clipped(g, y=None):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
        mean = jnp.take(u, g, mode="clip") + u.at[g].get(mode="clip")
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    assert autmarg.transform(clipped).plan(np.array([5, 0]), np.zeros(2)).integrated == ("u",)


def test_a_deterministic_site_that_a_handler_replaces():
    def scaled(g, y):
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
        numpyro.sample("y", dist.Normal(u[g], numpyro.deterministic("d", 2 * tau)), obs=y)

    def density(d):
        return log_density(marg, (G, Y), {}, {"tau": jnp.asarray(1.0), "d": d})[0]

    marg = autmarg.transform(scaled)
    assert density(jnp.asarray(2.0)) == pytest.approx(float(jax.jit(density)(2.0)))
    assert np.isnan(jax.jit(density)(5.0))
    with pytest.raises(autmarg.RequestError, match="deterministic site 'd'"):
        density(jnp.asarray(5.0))


def test_draws_of_fewer_groups_are_not_clamped(fitted):
    marg, _, right = fitted
    with pytest.raises(autmarg.RequestError, match=r"shape \(5,\) was given for 'u'.*shape \(6,\)"):
        Predictive(marg, right)(KEY, np.array([5, 4]), 6)
    kept = autmarg.transform(model, keep=["u"], reparameterize="off")
    with pytest.raises(autmarg.RequestError, match=r"shape \(4,\) was given for 'u'"):
        log_density(kept, (G, 5, Y), {}, {"tau": 1.0, "u": np.zeros(4)})


def test_predictions_for_known_groups(fitted):
    marg, _, right = fitted
    found = Predictive(marg, right)(KEY, np.array([-1, 4, 0]), 5)["y"]
    assert found.shape == (3, 3)


def test_a_used_model_is_copied_and_pickled(fitted):
    marg, mcmc, right = fitted
    draws = mcmc.get_samples()
    for copied in (copy.copy(marg), copy.deepcopy(marg), pickle.loads(pickle.dumps(marg))):
        found = copied.recover(KEY, draws, G, 5, Y)
        np.testing.assert_allclose(found["u"], right["u"], rtol=1e-6)
    again = pickle.loads(pickle.dumps(mcmc))
    np.testing.assert_allclose(marg.recover(KEY, again, G, 5, Y)["u"], right["u"])
    with pytest.raises(autmarg.RequestError, match="other_data"):
        autmarg.transform(model).recover(KEY, again, G, 5, Y + 1)
    kernel = pickle.loads(pickle.dumps(marg.nuts()))
    assert "autmarg.transform(model" in repr(kernel.model)


def test_a_plan_is_pickled_as_a_value(fitted):
    plan = fitted[0].plan(G, 5, Y)
    for copied in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):
        assert str(copied) == str(plan)
        assert copied.integrated == plan.integrated and copied.kept == plan.kept
        assert copied.to_json() == plan.to_json()
        assert copied.to_html() == plan.to_html()
        assert copied.explain() == plan.explain()


def test_numpyro_reads_the_relations_of_a_transformed_model(fitted):
    found = get_model_relations(fitted[0], (G, 5, Y))
    assert found["sample_sample"]["y"] == ["tau"] and found["observed"] == ["y"]


def test_traced_data_that_were_replaced_have_no_density(fitted):
    marg = fitted[0]

    def density(y):
        return log_density(marg, (G, 5, Y), {}, {"tau": 1.0, "y": y})[0]

    assert np.isfinite(jax.jit(density)(Y))
    assert np.isnan(jax.jit(density)(Y + 1))
    with pytest.raises(autmarg.RequestError, match="data of 'y' were replaced"):
        density(Y + 1)
