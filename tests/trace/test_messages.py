"""Everything that a NumPyro message can carry, and what becomes of it (docs/constructs.md)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

import autmarg
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")

G = np.array([0, 1, 2, 0, 1, 2])
Y = np.array([0.3, -1.0, 2.0, 0.5, -0.2, 1.0])
SOME = np.array([True, True, False, True, True, False])
sample, normal = numpyro.sample, dist.Normal


def observe(mean, **more):
    """What all models end with."""
    sample("y", normal(mean, sample("s", dist.HalfNormal(1.0))), obs=Y, **more)


def observed_sample_shape():
    mu = sample("mu", normal(0, 10), sample_shape=(3,))
    s = sample("s", dist.HalfNormal(10), sample_shape=(3,))
    sample("y", normal(mu[G], s[G]), obs=Y, sample_shape=(6,))


def observed_sample_shape_of_a_narrow_value():
    mu = sample("mu", normal(0, 10))
    sample("y", normal(mu, sample("s", dist.HalfNormal(1.0))), obs=0.3, sample_shape=(6,))


def observed_sample_shape_in_a_plate():
    mu = sample("mu", normal(0, 10))
    with numpyro.plate("rows", 6):
        observe(mu, sample_shape=(2, 1))


def observed_sample_shape_in_a_scan():
    s = sample("s", dist.HalfNormal(1.0))

    def step(last, y):
        x = sample("x", normal(last, s))
        sample("y", normal(x, 1.0), obs=y, sample_shape=(2,))
        return x, None

    scan(step, 0.0, Y)


def conditioned_sample_shape():
    def inner():
        m = sample("m", normal(0, 1))
        return sample("t", normal(m, 2), sample_shape=(6,))

    observe(handlers.condition(inner, {"t": 1.5})() + jnp.zeros(6))


def latent_sample_shape_in_a_plate():
    with numpyro.plate("groups", 3):
        u = sample("u", normal(0, 1), sample_shape=(2, 1))
    observe(u[1][G])


def unconditioned():
    u = sample("u", normal(0, 1))
    with handlers.uncondition():
        v = sample("v", normal(u, 1), obs=jnp.asarray(2.0) * 3)
    observe(v + jnp.zeros(6))


def own_key():
    observe(sample("u", normal(0, 1), rng_key=jax.random.key(3)) + jnp.zeros(6))


def auxiliary():
    observe(sample("u", normal(0, 1), infer={"is_auxiliary": True}) + jnp.zeros(6))


def blocked_plate():
    with numpyro.plate("rows", 6):
        u = sample("u", normal(0, 1), infer={"block_plates": ["rows"]})
        sample("y", normal(u, 1.0), obs=Y)


def param_in_a_plate():
    with numpyro.plate("groups", 3):
        p = numpyro.param("p", jnp.ones(3), event_dim=0, constraint=dist.constraints.positive)
    observe(p[G] * sample("u", normal(0, 1)))


def param_of_a_key():
    p = numpyro.param("p", lambda key: jax.random.normal(key, (3,)))
    observe(p[G] * sample("u", normal(0, 1)))


def scaled_param():
    with handlers.scale(scale=2.0):
        p = numpyro.param("p", 1.0)
    observe(p * sample("u", normal(0, 1)) + jnp.zeros(6))


def factor_in_a_plate_masked_and_scaled():
    u, s = sample("u", normal(0, 1)), sample("s", dist.HalfNormal(1.0))
    mask = handlers.mask(mask=np.array([True, False]))
    with numpyro.plate("pair", 2), handlers.scale(scale=2.0), mask:
        numpyro.factor("f", -s)
    sample("y", normal(u, s), obs=Y)


def mask_of_false():
    u = sample("u", normal(0, 1))
    with handlers.mask(mask=False):
        sample("z", normal(u, 1), obs=2.0)
    observe(u + jnp.zeros(6))


def mask_that_is_read():
    u = sample("u", normal(0, 1))
    with handlers.mask(mask=SOME):
        sample("z", normal(u, 1.0).mask(numpyro.get_mask()), obs=Y)
    observe(u + jnp.zeros(6))


def completed_by_a_mask():
    u, s = sample("u", normal(0, 1)), sample("s", dist.HalfNormal(1.0))
    sample("y", normal(u, s).expand([6]), obs=Y, obs_mask=SOME, sample_shape=(6,))


def deterministic_in_a_plate():
    with numpyro.plate("rows", 6):
        m = numpyro.deterministic("m", sample("u", normal(0, 1)))
    observe(m)


def substituted_deterministic():
    def inner():
        u = sample("u", normal(0, 1))
        return numpyro.deterministic("d", u * 2) + sample("v", normal(0, 1))

    observe(handlers.substitute(inner, {"d": jnp.asarray(3.0)})() + jnp.zeros(6))


def subsample_statement():
    with numpyro.plate("rows", 6):
        y = numpyro.subsample(Y, event_dim=0)
        sample("y", normal(sample("u", normal(0, 1)), 1.0), obs=y)


def plate_in_another_order():
    def inner():
        b = sample("b", normal(0, 1).expand([6]))
        with numpyro.plate("rows", 6) as rows:
            observe(b[rows])

    handlers.substitute(inner, {"rows": jnp.array([1, 2, 5, 0, 3, 4])})()


def values_of_other_types():
    u = sample("u", normal(0, 1))
    sample("a", normal(u, 1.0), obs=3)
    sample("b", normal(u, 1.0), obs=True)
    observe(u + jnp.zeros(6))


EXACT = {
    observed_sample_shape: "mu",
    observed_sample_shape_of_a_narrow_value: "mu",
    observed_sample_shape_in_a_plate: "mu",
    observed_sample_shape_in_a_scan: "x",
    conditioned_sample_shape: "m",
    latent_sample_shape_in_a_plate: "u",
    unconditioned: "u v",
    own_key: "u",
    auxiliary: "u",
    blocked_plate: "u",
    param_in_a_plate: "u",
    param_of_a_key: "u",
    scaled_param: "u",
    factor_in_a_plate_masked_and_scaled: "u",
    mask_of_false: "u",
    mask_that_is_read: "u",
    completed_by_a_mask: "u y_unobserved",
    deterministic_in_a_plate: "u",
    substituted_deterministic: "u v",
    subsample_statement: "u",
    plate_in_another_order: "b",
    values_of_other_types: "u",
}

REPEATED = {  # what others do in another place, or beside something else
    observed_sample_shape_of_a_narrow_value,
    observed_sample_shape_in_a_plate,
    observed_sample_shape_in_a_scan,
    conditioned_sample_shape,
    own_key,
    auxiliary,
    blocked_plate,
    param_in_a_plate,
    param_of_a_key,
    mask_of_false,
    substituted_deterministic,
}


@pytest.mark.parametrize("model", lanes(EXACT, EXACT.keys() - REPEATED))
def test_integrated_out_exactly(model):
    report = autmarg.verify(model, points=1, quiet=True, marginalize="all")
    assert set(report.integrated) == set(EXACT[model].split())


def branches():
    u = sample("u", normal(0, 1))
    cond(True, lambda _: sample("c", normal(0, 1)), lambda _: sample("c", normal(0, 2)), None)
    observe(u + jnp.zeros(6))


def param_of_a_latent():
    u = sample("u", normal(0, 1))
    observe(numpyro.param("p", u * 2) + u + jnp.zeros(6))


def own_randomness():
    z = jax.random.normal(numpyro.prng_key(), (6,))
    observe(sample("u", normal(0, 1)) + z)


def param_of_own_randomness():
    p = numpyro.param("p", jax.random.normal(numpyro.prng_key(), (6,)))
    observe(sample("u", normal(0, 1)) + p)


def mutable():
    state = numpyro.primitives.mutable("state", {"value": 1.0})
    observe(sample("u", normal(0, 1)) * state["value"] + jnp.zeros(6))


LEFT = {
    branches: "numpyro.contrib.control_flow.cond",
    param_of_a_latent: "initial value or constraint of the param 'p' depends on 'u'",
    own_randomness: "random numbers",
    param_of_own_randomness: "random numbers",
    mutable: "mutable site",
}


@pytest.mark.parametrize("model", LEFT, ids=lambda model: model.__name__)
def test_left_as_it_is(model):
    plan = autmarg.transform(model).plan()
    assert not plan.integrated and LEFT[model] in str(plan)


def test_a_sample_shape_in_a_scan_has_no_density():
    def model():
        def step(last, y):
            x = sample("x", normal(last.mean(), 1.0), sample_shape=(2,))
            sample("y", normal(x.sum(), 1.0), obs=y)
            return x, None

        scan(step, jnp.zeros(2), Y)

    with pytest.raises(
        autmarg.ModelError, match=r"'x' \(.*sample_shape=\(2,\) inside a scan.*expand"
    ):
        autmarg.transform(model).plan()


def test_a_model_that_keeps_what_it_computed():
    """A basis under lru_cache, or an attribute: JAX traces the model, and a tracer is kept."""

    @functools.lru_cache
    def basis(n):
        return jnp.linspace(0, 1, n)[:, None] ** jnp.arange(3)

    def model(y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(basis(len(y)) @ w, 1.0), obs=y)

    y = np.arange(6.0)
    with pytest.raises(autmarg.ModelError, match="keeps an array that it computed in an earlier"):
        autmarg.transform(model).plan(y)
    basis.cache_clear()
    basis(6)  # as the message says
    assert autmarg.transform(model).plan(y).integrated == ("w",)
