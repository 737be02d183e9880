"""The emitted model under NumPyro's inference, handlers and utilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import (
    HMC,
    MCMC,
    NUTS,
    SVI,
    Predictive,
    Trace_ELBO,
    init_to_median,
    init_to_sample,
    init_to_uniform,
)
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoNormal
from numpyro.infer.util import initialize_model, log_density

import autmarg
from tests.support.programs import CASES, Y

MODEL = CASES["three_levels"].model
KEPT = {"t1", "t2", "s"}
SAMPLES = {name: np.linspace(0.5, 1.5, 6) for name in KEPT}


@pytest.fixture
def marg():
    return autmarg.transform(MODEL)


def test_sites_plates_and_deterministics():
    marg = autmarg.transform(CASES["crossed_plates"].model)
    trace = handlers.trace(handlers.seed(marg, 0)).get_trace(Y)
    assert set(trace) == {"s1", "s2", "s", "rows", "columns", "y"}
    assert trace["rows"]["type"] == "plate" and trace["rows"]["args"][0] == 10
    assert trace["y"]["is_observed"]
    trace = handlers.trace(handlers.seed(autmarg.transform(MODEL), 0)).get_trace(Y)
    assert "ratio" in trace and "effect" not in trace


def test_kept_sites_stay_in_their_plates():
    marg = autmarg.transform(CASES["heteroscedastic_groups"].model)
    trace = handlers.trace(handlers.seed(marg, 0)).get_trace(Y)
    assert [frame.name for frame in trace["s"]["cond_indep_stack"]] == ["groups"]
    assert trace["s"]["value"].shape == (5,)


@pytest.mark.slow
def test_nuts_has_a_dense_block_for_scales_and_not_for_effects(quick_compilation):
    marg = autmarg.transform(MODEL, keep=["school"])
    blocks = mass_matrix(marg.nuts(max_tree_depth=3))
    assert blocks == {("s", "t1", "t2"): (3, 3), ("school",): (3,)}


@pytest.mark.slow
def test_the_users_mass_matrix_is_used(quick_compilation):
    marg = autmarg.transform(MODEL, keep=["school"])
    assert mass_matrix(marg.nuts(dense_mass=False)) == {("s", "school", "t1", "t2"): (6,)}


def mass_matrix(kernel):
    """Shapes of the blocks of the inverse mass matrix after a run."""
    mcmc = MCMC(kernel, num_warmup=10, num_samples=10, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    assert mcmc.get_samples()["school"].shape == (10, 3)
    return {k: v.shape for k, v in mcmc.last_state.adapt_state.inverse_mass_matrix.items()}


def bounded_by_a_computed_number(y):
    low = jnp.exp(jnp.array(-3.0))
    t = numpyro.sample("t", dist.Uniform(low, 4.0))
    u = numpyro.sample("u", dist.Normal(0.0, t).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(u[jnp.arange(len(y)) % 5], 0.7), obs=y)


def with_param(y):
    start = numpyro.param("start", lambda key: jax.random.uniform(key))
    t = numpyro.sample("t", dist.HalfNormal(2.0))
    u = numpyro.sample("u", dist.Normal(start, t).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(u[jnp.arange(len(y)) % 5], 0.7), obs=y)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param(MODEL, {}, marks=pytest.mark.slow),
        pytest.param(MODEL, {"init_strategy": init_to_sample}, marks=pytest.mark.slow),
        pytest.param(
            MODEL, {"init_strategy": init_to_median(num_samples=3)}, marks=pytest.mark.slow
        ),
        pytest.param(bounded_by_a_computed_number, {}, marks=pytest.mark.slow),
        (with_param, {}),
    ],
)
def test_a_chain_starts_where_numpyros_own_would(model, options, quick_compilation):
    marg = autmarg.transform(model)
    key = jax.random.key(3)
    own, other = marg.nuts(dense_mass=False, **options), NUTS(marg, **options)
    # NumPyro draws a row of chains like each of them, a single chain from other keys.
    expected = other.init(key[None], 10, model_args=(Y,))
    found = own.init(key, 10, model_args=(Y,))
    for name in expected.z:
        np.testing.assert_allclose(found.z[name], expected.z[name][0], rtol=1e-12)
    constrained = own.postprocess_fn((Y,), {})(found.z)
    plain = other.postprocess_fn((Y,), {})(found.z)
    assert set(constrained) == set(plain)
    state = jax.jit(lambda s: own.sample(s, (Y,), {}))(found)
    assert np.isfinite(state.potential_energy)


@pytest.mark.slow
def test_a_chain_starts_in_a_trace_and_where_it_is_told(quick_compilation):
    kernel = autmarg.transform(MODEL).nuts()
    start = jax.jit(lambda key: kernel.init(key, 10, model_args=(Y,)).z)(jax.random.key(0))
    assert np.isfinite(start["s"])
    kernel = autmarg.transform(MODEL).nuts()
    told = {"s": 0.1, "t1": 0.2, "t2": 0.3}
    found = kernel.init(jax.random.key(0), 10, init_params=told, model_args=(Y,))
    assert {name: float(z) for name, z in found.z.items()} == pytest.approx(told)


def test_no_initial_point_is_an_error_in_numpyros_words():
    def nowhere(y):
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        numpyro.factor("never", -jnp.inf * t)
        u = numpyro.sample("u", dist.Normal(0.0, t))
        numpyro.sample("y", dist.Normal(u, 1.0), obs=y)

    with pytest.raises(RuntimeError, match="Cannot find valid initial parameters"):
        autmarg.transform(nowhere).nuts().init(jax.random.key(0), 10, model_args=(Y,))


@pytest.mark.parametrize(
    ("kernel", "method"),
    [
        pytest.param(NUTS, "sequential", marks=pytest.mark.slow),
        pytest.param(NUTS, "vectorized", marks=pytest.mark.slow),
        pytest.param(HMC, "parallel", marks=pytest.mark.slow),
    ],
)
def test_chains(marg, kernel, method):
    mcmc = MCMC(
        kernel(marg),
        num_warmup=10,
        num_samples=10,
        num_chains=2 if method == "vectorized" else 1,
        chain_method=method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), Y)
    assert set(mcmc.get_samples()) >= KEPT
    recovered = marg.recover(jax.random.key(1), mcmc, Y, group_by_chain=True)
    assert recovered["pupil"].shape == (mcmc.num_chains, 10, 5)
    assert np.isfinite(recovered["effect"]).all()


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("kept_child", init_to_median),
        ("three_levels", init_to_uniform),
        pytest.param("three_levels", init_to_median, marks=pytest.mark.slow),
        pytest.param("kept_child", init_to_uniform, marks=pytest.mark.slow),
        pytest.param("three_levels", init_to_sample, marks=pytest.mark.slow),
        pytest.param("kept_child", init_to_sample, marks=pytest.mark.slow),
    ],
)
def test_initialisation(strategy, name):
    marg = autmarg.transform(CASES[name].model)
    info = initialize_model(
        jax.random.key(0), marg, init_strategy=strategy(), model_args=(Y,), dynamic_args=False
    )
    assert np.isfinite(info.potential_fn(info.param_info.z))


@pytest.mark.slow
@pytest.mark.parametrize("guide", [AutoNormal, AutoLaplaceApproximation])
def test_variational_inference(marg, guide):
    svi = SVI(marg, guide(marg), numpyro.optim.Adam(0.05), Trace_ELBO())
    result = svi.run(jax.random.key(0), 60, Y, progress_bar=False)
    assert result.losses[-10:].mean() < result.losses[:10].mean()


def test_without_data_it_is_the_source(marg):
    prior = Predictive(marg, num_samples=3)(jax.random.key(0), None)
    assert set(prior) == {"mu", "school", "pupil", "effect", "ratio", "y", *KEPT}
    same = Predictive(MODEL, num_samples=3)(jax.random.key(0), None)
    np.testing.assert_array_equal(prior["y"], same["y"])


def test_no_silent_prior_draws(marg):
    for transformed in (marg, autmarg.transform(MODEL)):
        with pytest.raises(autmarg.RequestError, match=r"marg\.recover"):
            Predictive(transformed, SAMPLES)(jax.random.key(0), None)
        transformed.plan(Y)
    recovered = marg.recover(jax.random.key(0), SAMPLES, Y)
    assert Predictive(marg, recovered)(jax.random.key(0), None)["y"].shape == (6, 40)


def test_values_for_integrated_sites_are_refused(marg):
    for handler in (handlers.condition, handlers.substitute, handlers.do):
        with pytest.raises(autmarg.RequestError, match="apply condition, do or substitute"):
            handlers.seed(handler(marg, data={"mu": jnp.array(0.1)}), 0)(Y)


def test_replaced_data_are_refused(marg):
    with pytest.raises(autmarg.RequestError, match="data of 'y' were replaced"):
        log_density(handlers.substitute(marg, data={"y": Y + 1}), (Y,), {}, SAMPLES_AT_ONE)


SAMPLES_AT_ONE = dict.fromkeys(KEPT, 1.0)


@pytest.mark.slow
def test_handlers_around_the_model():
    conditioned = handlers.condition(MODEL, data={"mu": jnp.array(0.1)})
    marg = autmarg.transform(conditioned)
    assert set(marg.plan(Y).integrated) == {"school", "pupil"}
    autmarg.verify(marg, Y, points=2, quiet=True)


def test_recovery_keeps_leading_dimensions_and_batches(marg):
    key = jax.random.key(2)
    whole = marg.recover(key, SAMPLES, Y)
    parts = marg.recover(key, SAMPLES, Y, batch_size=4, progress=False)
    np.testing.assert_allclose(whole["pupil"], parts["pupil"], rtol=1e-12)
    chains = marg.recover(key, {k: v.reshape(2, 3) for k, v in SAMPLES.items()}, Y)
    np.testing.assert_allclose(chains["pupil"], whole["pupil"].reshape(2, 3, 5), rtol=1e-12)
    np.testing.assert_allclose(whole["effect"], whole["pupil"] - whole["mu"][:, None])
    np.testing.assert_allclose(whole["ratio"], SAMPLES["t1"] / SAMPLES["t2"])


def test_recovery_is_mapped_over_data_sets(marg):
    keys, data = jax.random.split(jax.random.key(2), 2), np.stack([Y, 2 * Y])
    mapped = jax.vmap(lambda key, y: marg.recover(key, SAMPLES, y))(keys, data)
    for k in range(2):
        alone = marg.recover(keys[k], SAMPLES, data[k])
        np.testing.assert_allclose(mapped["pupil"][k], alone["pupil"], rtol=1e-9)


def test_recovery_from_a_run_without_sampled_sites():
    def model(y):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([3]))
        numpyro.deterministic("known", jnp.ones(2))
        numpyro.sample("y", dist.Normal(u[0], 1.0), obs=y)

    marg = autmarg.transform(model)
    mcmc = MCMC(NUTS(marg), num_warmup=1, num_samples=4, thinning=2, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    drawn = marg.recover(jax.random.key(1), mcmc, Y, group_by_chain=True)
    assert (drawn["u"].shape, drawn["known"].shape) == ((1, 2, 3), (1, 2, 2))


def test_kept_children_are_drawn_jointly_from_the_prior():
    """Correlation of two kept children that share an integrated parent: 4/5 = 0.8."""
    import numpyro.distributions as dist

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 2))
        a, b = (numpyro.sample(n, dist.Normal(mu, 1)) for n in "ab")
        numpyro.sample("y", dist.Normal(0, jnp.exp(a + b)), obs=y)

    marg = autmarg.transform(model)
    assert marg.plan(Y).integrated == ("mu",)
    draws = Predictive(marg, num_samples=4000)(jax.random.key(0), Y)
    correlation = np.corrcoef(draws["a"], draws["b"])[0, 1]
    assert abs(correlation - 0.8) < 5 * (1 - 0.8**2) / np.sqrt(4000)
    assert abs(draws["a"].var() - 5.0) < 5 * 5.0 * np.sqrt(2 / 4000)
