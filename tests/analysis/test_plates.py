"""Plates, shapes and indices in the ways people write them: integrated out, and exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import autmarg
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")

_RNG = np.random.default_rng(7)
N = 24
GROUP, ITEM = _RNG.integers(0, 5, N), _RNG.integers(0, 4, N)
X, Y = _RNG.normal(size=N), _RNG.normal(size=N)
TOWN_OF, COUNTY_OF = np.array([0, 1, 1, 2, 2]), np.array([0, 0, 1])

CASES: dict[str, tuple[Callable[..., Any], set[str]]] = {}


def case(*integrated: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(model: Callable[..., Any]) -> Callable[..., Any]:
        CASES[model.__name__] = model, set(integrated)
        return model

    return register


def scale(name: str = "s") -> Any:
    return numpyro.sample(name, dist.HalfNormal(1.0))


def effects(shape: tuple[int, ...] = (5,)) -> Any:
    return numpyro.sample("u", dist.Normal(0, scale("t")).expand(shape))


def observe(mean: Any, y: Any, **kwargs: Any) -> None:
    numpyro.sample("y", dist.Normal(mean, 0.7), obs=y, **kwargs)


@case("a", "b", "c")
def nested_plates_with_dims(y):
    a = numpyro.sample("a", dist.Normal(0, 1))
    with numpyro.plate("i", 2, dim=-2):
        b = numpyro.sample("b", dist.Normal(a, scale("t")))
        with numpyro.plate("j", 12, dim=-1):
            c = numpyro.sample("c", dist.Normal(b, 0.5))
            observe(c, y.reshape(2, 12))


@case("a", "b", "c")
def nested_plates_without_dims(y):
    a = numpyro.sample("a", dist.Normal(0, 1))
    with numpyro.plate("i", 12):
        b = numpyro.sample("b", dist.Normal(a, 1))
        with numpyro.plate("j", 2):
            c = numpyro.sample("c", dist.Normal(b, scale("t")))
            observe(c, y.reshape(2, 12))


@case("u", "v", "w")
def three_crossed_plates(y):
    i, j, k = (
        numpyro.plate(n, size, dim=d)
        for n, size, d in zip("ijk", (2, 3, 4), (-3, -2, -1), strict=True)
    )
    with i:
        u = numpyro.sample("u", dist.Normal(0, scale("t")))
    with j:
        v = numpyro.sample("v", dist.Normal(0, 1))
    with i, k:
        w = numpyro.sample("w", dist.Normal(0, 1))
    with i, j, k:
        observe(u + v + w, y.reshape(2, 3, 4))


@case("u", "v")
def dims_with_a_gap(y):
    with numpyro.plate("g", 4, dim=-3):
        u = numpyro.sample("u", dist.Normal(0, 1))
    with numpyro.plate("h", 6, dim=-1):
        v = numpyro.sample("v", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(u + v, scale()).to_event(3), obs=y.reshape(4, 1, 6))


@case("m", "u", "v")
def one_plate_entered_many_times(y):
    groups = numpyro.plate("groups", 5)
    with groups:
        t = scale("t")
    m = numpyro.sample("m", dist.Normal(0, 1))
    with groups:
        u = numpyro.sample("u", dist.Normal(m, t))
    with groups:
        v = numpyro.sample("v", dist.Normal(u, 1.0))
    observe(v[GROUP] + u[GROUP], y)


@case("u")
def one_plate_name_on_two_dims(y):
    with numpyro.plate("a", 5):
        t = scale("t")
    with numpyro.plate("b", 4), numpyro.plate("a", 5):
        s = scale("s")
    u = numpyro.sample("u", dist.Normal(0, t))
    numpyro.sample("y", dist.Normal(u[GROUP], s[GROUP, ITEM]), obs=y)


@case("u")
def plate_stacks(y):
    with numpyro.plate_stack("p", [2, 3]):
        u = numpyro.sample("u", dist.Normal(0, scale("t")))
    with numpyro.plate_stack("q", [4, 3, 2]):
        observe(u.T, y.reshape(4, 3, 2))


@case("u", "v")
def plate_of_one(y):
    with numpyro.plate("one", 1):
        u = numpyro.sample("u", dist.Normal(0, 1))
    with numpyro.plate("rows", N):
        v = numpyro.sample("v", dist.Normal(0, 1))
        observe(u * X + v, y)


@case("u")
def full_subsample(y):
    u = effects()
    with numpyro.plate("rows", N, subsample_size=N) as rows:
        observe(u[GROUP][rows], jnp.asarray(y)[rows])


@case("u")
def full_subsample_statement(y):
    u = effects()
    with numpyro.plate("rows", N, subsample_size=N):
        group = numpyro.subsample(jnp.asarray(GROUP), event_dim=0)
        observe(u[group], numpyro.subsample(jnp.asarray(y), event_dim=0))


@case("u")
def plate_indices(y):
    with numpyro.plate("groups", 5) as group:
        u = numpyro.sample("u", dist.Normal(0.1 * group, 1.0))
    with numpyro.plate("rows", N) as row:
        observe(u[jnp.asarray(GROUP)[row]], y)


@case("u", "w")
def sample_shapes(y):
    u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), sample_shape=(5,))
    w = numpyro.sample("w", dist.Normal(0, scale("t")), sample_shape=(4,))
    observe(u[GROUP, 0] + u[GROUP, 1] * X + w[ITEM], y)


@case("u")
def sample_shape_of_the_data(y):
    observe(numpyro.sample("u", dist.Normal(0, 1)), y, sample_shape=(N,))


@case("u")
def events_in_a_plate(y):
    with numpyro.plate("groups", 5):
        u = numpyro.sample("u", dist.Normal(jnp.zeros(2), scale("t")[..., None]).to_event(1))
    mean = (u[GROUP] * np.c_[np.ones(N), X]).sum(-1)
    numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)


@case("u", "v")
def expanded(y):
    u = numpyro.sample("u", dist.Normal(0, scale("t")).expand([5, 4]).to_event(2))
    v = numpyro.sample("v", dist.Normal(0, 1).expand_by([5]))
    with numpyro.plate("rows", N):
        observe(u[GROUP, ITEM] + v[GROUP], y)


@case("a")
def scalar_mean(y):
    with numpyro.plate("rows", N):
        observe(numpyro.sample("a", dist.Normal(0, scale("t"))), y)


@case("u")
def data_wider_than_the_distribution(y):
    observe(effects((5, 1)), y)


@case("u")
def data_narrower_than_the_distribution(y):
    observe(effects(), y[0])


@case("u")
def data_of_integers(y):
    observe(effects()[GROUP], np.arange(N))


@case("u")
def boolean_indices(y):
    u, chosen = effects((N,)), X > 0
    observe(u[chosen] + u[np.flatnonzero(chosen)], y[chosen])


@case("u")
def boolean_codes(y):
    observe(effects((2,))[(X > 0).astype(int)], y)


@case("u")
def negative_indices(y):
    u = effects()
    observe(u[jnp.asarray(GROUP) - 5] + u[-1], y)


@case("a", "u")
def seven_effects_in_each_group(y):
    a, designs = numpyro.sample("a", dist.Normal(0, 1)), np.vander(X, 7)
    with numpyro.plate("groups", 5):
        u = numpyro.sample("u", dist.Normal(a * jnp.ones(7), 1.0).to_event(1))
    observe((designs * u[GROUP]).sum(-1), y)


@case("u", "v", "w", "m")
def three_levels(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(m, scale("t1")).expand([2]))
    v = numpyro.sample("v", dist.Normal(u[COUNTY_OF], scale("t2")))
    w = numpyro.sample("w", dist.Normal(v[TOWN_OF], scale("t3")))
    observe(w[GROUP], y)


@case("u")
def lookup_through_lookups(y):
    u = effects((2,))
    observe(u[jnp.asarray(COUNTY_OF)][TOWN_OF][jnp.asarray(GROUP)] + u[COUNTY_OF[TOWN_OF]][0], y)


@case("u")
def empty_and_single_row_groups(y):
    observe(effects((8,))[np.r_[np.zeros(N - 1, int), 6]], y)


@case("u")
def no_rows(y):
    observe(effects()[GROUP[:0]], y[:0])


# What other cases have in another spelling.
REPEATED = {
    "seven_effects_in_each_group",
    "nested_plates_without_dims",
    "full_subsample",
    "sample_shape_of_the_data",
    "data_of_integers",
    "boolean_codes",
    "expanded",
    "scalar_mean",
    "three_levels",
    "dims_with_a_gap",
    "full_subsample_statement",
    "one_plate_name_on_two_dims",
    "boolean_indices",
    "lookup_through_lookups",
    "nested_plates_with_dims",
    "three_crossed_plates",
    "sample_shapes",
    "plate_of_one",
    "data_narrower_than_the_distribution",
    "negative_indices",
    "no_rows",
}


@pytest.mark.parametrize("name", lanes(CASES, CASES.keys() - REPEATED))
def test_exact_and_complete(name):
    model, integrated = CASES[name]
    marg = autmarg.transform(model, marginalize="all")
    plan = marg.plan(Y)
    assert set(plan.integrated) == integrated
    autmarg.verify(marg, Y, points=1, quiet=True)
    shapes = shapes_of(model)
    given = {n: np.ones((3, *shapes[n])) for n in plan.kept} or {"d": np.ones(3)}
    drawn = jax.eval_shape(lambda key: marg.recover(key, given, Y), jax.random.key(0))
    assert all(drawn[n].shape == (3, *shapes[n]) for n in integrated)


def shapes_of(model):
    def values():
        trace = handlers.trace(handlers.seed(model, 0)).get_trace(Y)
        return {name: site["value"] for name, site in trace.items()}

    return {name: value.shape for name, value in jax.eval_shape(values).items()}
