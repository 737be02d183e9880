"""Handlers around the model before ``transform``, and around what ``transform`` returns."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    Trace_ELBO,
    init_to_median,
    init_to_value,
    log_likelihood,
)
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal, AutoNormal
from numpyro.infer.reparam import LocScaleReparam, TransformReparam
from numpyro.infer.util import log_density, potential_energy

import autmarg
from tests.support.lanes import lanes
from tests.support.programs import GROUP, N, X, Y

KEPT = {"t": 0.7, "l": 0.2}


def model(y=None):
    """``m`` and ``u`` go; ``l`` stays, its density in the marginal of ``y`` and ``w``."""
    m = numpyro.sample("m", dist.Normal(0, 1))
    t = numpyro.sample("t", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 5):
        u = numpyro.sample("u", dist.Normal(m, t))
    log_scale = numpyro.sample("l", dist.Normal(m, 1.0))
    with numpyro.plate("rows", N):
        numpyro.sample("y", dist.Normal(u[GROUP], jnp.exp(log_scale)), obs=y)
        numpyro.sample("w", dist.Normal(u[GROUP] + t, 1.0), obs=None if y is None else 2 * Y)


MARG = autmarg.transform(model)


def density(transformed, values=None):
    values = KEPT if values is None else values
    return float(log_density(handlers.seed(transformed, 0), (Y,), {}, values)[0])


# Around the model


def effect_of(t):
    with numpyro.plate("groups", 5):
        return numpyro.sample("u", dist.Normal(1.0, t))


def intercepts(y):
    u = effect_of(numpyro.sample("t", dist.HalfNormal(1.0)))
    b = numpyro.sample("b", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(u[GROUP] + b * X, 0.7), obs=y)


def with_param(y):
    t = numpyro.param("t", jnp.array(1.5), constraint=dist.constraints.greater_than(jnp.zeros(())))
    shift = numpyro.param("shift", lambda key: jax.random.normal(key, (2,)))
    numpyro.sample("y", dist.Normal(effect_of(t)[GROUP] + shift[0], 0.7), obs=y)


def param_in_a_plate(y):
    with numpyro.plate("groups", 5):
        t = numpyro.param("t", jnp.array(1.5))
        u = numpyro.sample("u", dist.Normal(0.0, t))
    numpyro.sample("y", dist.Normal(u[GROUP], 0.7), obs=y)


def transformed_effect(y):
    t = numpyro.sample("t", dist.HalfNormal(1.0))
    shift = dist.transforms.AffineTransform(1.0, t)
    with handlers.reparam(config={"u": TransformReparam()}), numpyro.plate("groups", 5):
        u = numpyro.sample("u", dist.TransformedDistribution(dist.Normal(0.0, 1.0), shift))
    numpyro.sample("y", dist.Normal(u[GROUP], 0.7), obs=y)


def submodel(y):
    with handlers.scope(prefix="a"):
        u = effect_of(numpyro.sample("t", dist.HalfNormal(1.0)))
    with handlers.scope(prefix="b", divider=".", hide_types=["plate"]):
        v = effect_of(2.0)
    numpyro.sample("y", dist.Normal(u[GROUP] + v[GROUP] * X, 0.7), obs=y)


def factors(y):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    with handlers.mask(mask=np.array([True, False])):
        numpyro.factor("masked", jnp.stack([-s, -2 * s]))
    with handlers.scale(scale=0.5), numpyro.plate("two", 2):
        numpyro.factor("scaled", -(s**3))
    with handlers.scale(scale=np.array([1.0, 3.0])), numpyro.plate("two", 2):
        numpyro.sample("t", dist.HalfNormal(s))
    numpyro.sample("y", dist.Normal(effect_of(1.0)[GROUP], s), obs=y)


def own_key(y):
    numpyro.prng_key()
    with handlers.block():
        numpyro.sample("hidden", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(effect_of(1.0)[GROUP], 0.7), obs=y)


def no_config(site):
    return {"enumerate": None} if site["name"] == "t" else {}


HANDLED = {
    "scope": (handlers.scope(intercepts, prefix="a"), {"a/u", "a/b"}),
    "scope_inside": (submodel, {"a/u", "b.u"}),
    "condition": (handlers.condition(intercepts, data={"b": 0.3}), {"u"}),
    "condition_fn": (
        handlers.condition(intercepts, condition_fn=lambda m: 0.5 if m["name"] == "t" else None),
        {"u", "b"},
    ),
    "observed_by_condition": (
        handlers.condition(lambda y: intercepts(None), data={"y": Y}),
        {"u", "b"},
    ),
    "do": (handlers.do(intercepts, data={"u": np.ones(5)}), {"u", "b"}),
    "substitute": (handlers.substitute(intercepts, data={"b": 0.3}), {"u", "b"}),
    "substitute_param": (handlers.substitute(with_param, data={"shift": np.ones(2)}), {"u"}),
    "seed": (handlers.seed(intercepts, 3), {"u", "b"}),
    "trace": (handlers.trace(intercepts), {"u", "b"}),
    "reparam": (
        handlers.reparam(intercepts, config={"u": LocScaleReparam(0)}),
        {"u_decentered", "b"},
    ),
    "reparam_with_param": (
        handlers.reparam(intercepts, config={"u": LocScaleReparam()}),
        {"u_decentered", "b"},
    ),
    "transform_reparam": (transformed_effect, {"u_base"}),
    "param": (with_param, {"u"}),
    "lift": (handlers.lift(with_param, prior={"t": dist.HalfNormal(1.0)}), {"u"}),
    "lift_in_a_plate": (
        handlers.lift(param_in_a_plate, prior={"t": dist.HalfNormal(1.0)}),
        {"u"},
    ),
    "lift_to_a_member": (
        handlers.lift(with_param, prior={"shift": dist.Normal(np.zeros(2), 1.0)}),
        {"u", "shift"},
    ),
    "infer_config": (handlers.infer_config(intercepts, config_fn=no_config), {"u", "b"}),
    "scale_of_one": (handlers.scale(intercepts, scale=1.0), {"u", "b"}),
    "mask_true": (handlers.mask(intercepts, mask=True), {"u", "b"}),
    "factors": (factors, {"u"}),
    "block_that_nothing_reads": (own_key, {"u"}),
}


# What other cases, or other tests, have in another spelling.
REPEATED = {
    "scope",
    "condition",
    "substitute",
    "seed",
    "trace",
    "reparam",
    "lift_to_a_member",
    "infer_config",
    "scale_of_one",
    "mask_true",
    "transform_reparam",
    "lift_in_a_plate",
    "substitute_param",
    "condition_fn",
    "block_that_nothing_reads",
    "reparam_with_param",
    "scope_inside",
}


@pytest.mark.parametrize("name", lanes(HANDLED, HANDLED.keys() - REPEATED))
def test_handlers_around_the_model(name):
    handled, integrated = HANDLED[name]
    marg = autmarg.transform(handled)
    assert set(marg.plan(Y).integrated) == integrated
    autmarg.verify(marg, Y, points=1, quiet=True)


# Around the transformed model


def test_handlers_on_kept_sites():
    expected = density(MARG)
    prior = float(dist.HalfNormal(1.0).log_prob(0.7))
    fresh = float(dist.HalfNormal(1.0).log_prob(0.3))
    given_t = handlers.condition(MARG, data={"t": 0.7})
    for handled, values, difference in (
        (given_t, {"l": 0.2}, 0.0),
        (handlers.condition(MARG, data={"l": 0.2}), {"t": 0.7}, 0.0),
        (handlers.substitute(MARG, data={"l": 0.2}), {"t": 0.7}, 0.0),
        (handlers.scope(MARG, prefix="a"), {"a/t": 0.7, "a/l": 0.2}, 0.0),
        (handlers.block(given_t, hide=["t"]), {"l": 0.2}, -prior),
        (handlers.do(MARG, data={"t": 0.7}), {"l": 0.2, "t": 0.3}, fresh - prior),
    ):
        np.testing.assert_allclose(density(handled, values), expected + difference, rtol=1e-12)


def test_the_density_is_scaled_and_masked_as_a_whole():
    np.testing.assert_allclose(density(handlers.scale(MARG, scale=0.5)), 0.5 * density(MARG))
    assert density(handlers.mask(MARG, mask=False)) == density(handlers.block(MARG)) == 0
    assert density(handlers.mask(MARG, mask=True)) == density(MARG)


def _u(message):
    return np.zeros(5) if message["name"] in ("u", "a/u") else None


def in_a_plate(y):
    with numpyro.plate("copies", 3, dim=-2):
        MARG(y)


@pytest.mark.parametrize(
    ("handled", "words"),
    [
        (handlers.condition(MARG, data={"u": np.zeros(5)}), r"\['u'\], which are integrated out"),
        (handlers.condition(MARG, condition_fn=_u), r"\['u'\], which are integrated out"),
        (handlers.substitute(MARG, substitute_fn=_u), "strategy return None"),
        (
            handlers.substitute(handlers.scope(MARG, prefix="a"), substitute_fn=_u),
            r"\['u'\], which are integrated out",
        ),
        (handlers.do(MARG, data={"l": 0.1}), "handlers.do is over 'l', whose density is part"),
        (
            handlers.reparam(MARG, config={"l": LocScaleReparam(0)}),
            "handlers.reparam is over 'l'",
        ),
        (handlers.condition(MARG, data={"y": Y + 1}), "the data of 'y' were replaced after"),
        (
            handlers.uncondition(MARG),
            "drawing 'y' .* from their prior; use Predictive on the source",
        ),
        (handlers.scale(MARG, scale=np.ones(N)), r"handlers.scale has an array .* over \['y'"),
        (handlers.mask(MARG, mask=X > 0), "handlers.mask has an array over"),
        (in_a_plate, "a plate outside the transformed model"),
        (
            handlers.block(MARG, hide=["y"]),
            r"block hides \['y'\] but not \['l', 'w'\], which have one joint",
        ),
    ],
)
def test_handlers_that_reach_into_the_joint_density(handled, words):
    with pytest.raises(autmarg.RequestError, match=words):
        density(handled, {})


def test_transforming_twice():
    with pytest.raises(autmarg.RequestError, match=r"'model' is transformed already.*one call"):
        autmarg.transform(MARG)

    def outer(y):
        numpyro.sample("q", dist.Normal(0, 1))
        MARG(y)

    np.testing.assert_allclose(
        density(outer, {**KEPT, "q": 0.0}), density(MARG) - 0.5 * np.log(2 * np.pi)
    )
    with pytest.raises(autmarg.RequestError, match="calls 'model', which is transformed already"):
        autmarg.transform(outer).plan(Y)


def test_log_likelihood_and_predictive():
    kept = {"t": np.array([0.5, 0.7]), "l": np.array([0.1, 0.2])}
    found = log_likelihood(MARG, kept, Y)
    values = {"t": 0.7, "l": 0.2}
    prior = dist.HalfNormal(1.0).log_prob(0.7)
    np.testing.assert_allclose(found["y"][1] + found["w"][1], density(MARG, values) - prior)
    key = jax.random.key(0)
    assert set(Predictive(MARG, kept)(key, Y)) == {"y", "w"}
    assert Predictive(MARG, num_samples=3)(key, Y)["l"].shape == (3,)
    energy = potential_energy(MARG, (Y,), {}, {"t": jnp.log(0.7), "l": 0.2})
    np.testing.assert_allclose(energy, -density(MARG, values) - np.log(0.7))
    drawn = MARG.recover(key, kept, Y)
    for call in (log_likelihood, partial(_predict, key)):
        with pytest.raises(autmarg.RequestError, match=r"marg.recover returned use marg.source"):
            call(MARG, drawn, Y)


def _predict(key, transformed, draws, *args):
    return Predictive(transformed, draws)(key, *args)


def _at_medians(site=None):
    if site is None:
        return partial(_at_medians)
    return None if site["name"] in ("m", "u") else init_to_median(site)


STRATEGIES = [init_to_value(values={"t": 1.0, "u": np.zeros(5)}), _at_medians]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["values", "function"])
def test_other_initial_values(strategy):
    state = NUTS(MARG, init_strategy=strategy).init(jax.random.key(0), 1, model_args=(Y,))
    assert set(state.z) == {"t", "l"} and np.isfinite(state.potential_energy)
    if strategy is not _at_medians:
        assert state.z["t"] == 0.0  # of t = 1, without bounds


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES, ids=["values", "function"])
def test_nuts_with_other_initial_values(strategy):
    mcmc = MCMC(NUTS(MARG, init_strategy=strategy), num_warmup=2, num_samples=2, progress_bar=False)
    mcmc.run(jax.random.key(0), Y, extra_fields=("potential_energy",))
    assert set(mcmc.get_samples()) == {"t", "l"}
    assert np.isfinite(mcmc.get_extra_fields()["potential_energy"]).all()


@pytest.mark.parametrize(
    "guide",
    [
        pytest.param(AutoNormal, marks=pytest.mark.slow),
        AutoMultivariateNormal,
        pytest.param(AutoLaplaceApproximation, marks=pytest.mark.slow),
    ],
)
def test_guides(guide):
    guide = guide(MARG)
    svi = SVI(MARG, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    result = svi.run(jax.random.key(0), 2, Y, progress_bar=False)
    assert np.isfinite(result.losses).all()
    assert set(guide.sample_posterior(jax.random.key(1), result.params)) == {"t", "l"}


def test_recovery_at_params():
    marg = autmarg.transform(with_param)
    values = {"t": 2.0, "shift": np.ones(2), "draw": np.zeros(3)}
    assert marg.recover(jax.random.key(0), values, Y)["u"].shape == (3, 5)
    with pytest.raises(autmarg.RequestError, match="'shift' has a random initial value"):
        marg.recover(jax.random.key(0), {"draw": np.zeros(3)}, Y)
