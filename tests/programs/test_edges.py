"""Sizes at the edges: groups of many effects; sites, designs and groups of nothing or of zeros."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.__main__ import main
from autmarg.analysis.families import FAMILIES
from autmarg.plan import order
from tests.support.generator.identity import identity
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")

_RNG = np.random.default_rng(5)
N, GROUPS, MANY = 12, 3, 7
G = np.arange(N) % GROUPS
Y, X = _RNG.normal(size=N), _RNG.normal(size=(N, MANY))


def scale():
    return scale_of("s")


def scale_of(name):
    return numpyro.sample(name, dist.HalfNormal(1.0))


def correlated_effects(s):
    with numpyro.plate("groups", GROUPS):
        tril = s * jnp.eye(MANY) + jnp.tri(MANY, k=-1)
        return numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(MANY), scale_tril=tril))


def independent_effects(s):
    with numpyro.plate("groups", GROUPS):
        return numpyro.sample("u", dist.Normal(0, s).expand([MANY]).to_event(1))


@pytest.mark.parametrize("effects", [correlated_effects, independent_effects])
@pytest.mark.parametrize("beside", ["nothing", "one group", "another site"])
def test_groups_of_more_effects_than_are_written_out(effects, beside, monkeypatch):
    """Seven effects a group are factorised by LAPACK: also where no later column meets them."""
    monkeypatch.setattr(order, "SMALL_ROOT", 0)  # these would go into one dense root

    def model():
        s = scale()
        mean = (X * effects(s)[G]).sum(-1)
        if beside == "one group":
            mean += numpyro.sample("a", dist.Normal(0, 1)) * (G == 0)
        if beside == "another site":
            b = numpyro.sample("b", dist.Normal(0, 1))
            numpyro.sample("z", dist.Normal(b, s), obs=Y)
        numpyro.sample("y", dist.Normal(mean, s), obs=Y)

    marg = autmarg.transform(model, marginalize="all")
    assert "blocks of" in str(marg.plan())
    found = identity(marg)
    assert np.abs(found.errors).max() < found.tolerance


def ones(name, *shape, loc=0.0, sd=1.0):
    return numpyro.sample(name, dist.Normal(loc, sd).expand(shape).to_event(len(shape)))


def observe(mean, data=Y, name="y"):
    numpyro.sample(name, dist.Normal(mean, scale()), obs=data)


def no_columns():
    observe(ones("a") + np.zeros((N, 0)) @ ones("b", 0))


def no_columns_and_nothing_else():
    observe(np.zeros((N, 0)) @ ones("b", 0))


def no_columns_under_latent_hyperparameters():
    t = numpyro.sample("st", dist.HalfNormal(1.0))
    b = ones("b", 3, 0, loc=ones("m"), sd=t)
    observe(ones("a") + jnp.einsum("nk,nk->n", np.zeros((N, 0)), t * b[G]))


def no_groups():
    u = ones("u", 0)
    numpyro.deterministic("twice", 2 * u)
    numpyro.factor("f", u.sum())
    observe(ones("a") + jax.ops.segment_sum(u, np.zeros(0, int), N))


def nothing_in_a_concatenation():
    parts = [ones("a", 5), ones("b", 0), ones("c", N - 5)]
    observe(jnp.concatenate(parts).at[np.zeros(0, int)].set(parts[1]))


def a_kept_site_without_elements():
    h = numpyro.sample("sh", dist.HalfNormal(1.0).expand([0]).to_event(1))
    observe(ones("a", sd=1 + h.sum()) + ones("b", 0, sd=h).sum())


def no_rows():
    observe(ones("a") + ones("u", GROUPS)[G[:0]], Y[:0])


def no_rows_beside_others():
    s, u = scale(), ones("u", GROUPS)
    numpyro.sample("y", dist.Normal(u[G], s), obs=Y)
    numpyro.sample("z", dist.Normal(u[G[:0]] + ones("a"), s), obs=Y[:0])


def a_conjugate_latent_of_no_rows():
    rate = numpyro.sample("s_rate", dist.Gamma(2.0, 1.0).expand([GROUPS]).to_event(1))
    numpyro.sample("n", dist.Poisson(rate[G[:0]]), obs=np.zeros(0, int))
    observe(ones("a"))


def a_sum_to_zero_of_one():
    observe(ones("a") + numpyro.sample("c", dist.ZeroSumNormal(1.0, (1,)))[0])


def nothing_but_zeros():
    observe(np.zeros((N, MANY)) @ ones("a", MANY, sd=scale_of("t")), np.zeros(N))


def nothing_but_zeros_in_blocks():
    u = ones("u", 40, MANY, sd=scale_of("t"))
    observe((np.zeros((40, MANY)) * u).sum(-1), np.zeros(40))


EMPTY = {
    no_columns: {"a"},
    no_columns_and_nothing_else: set(),
    no_columns_under_latent_hyperparameters: {"a", "m"},
    no_groups: {"a"},
    nothing_in_a_concatenation: {"a", "c"},
    a_kept_site_without_elements: {"a"},
    no_rows: {"a", "u"},
    no_rows_beside_others: {"a", "u"},
    a_conjugate_latent_of_no_rows: {"a", "s_rate"},
    a_sum_to_zero_of_one: {"a"},
    nothing_but_zeros: {"a"},
    nothing_but_zeros_in_blocks: {"u"},
}


_QUICK = {no_columns, no_rows, a_sum_to_zero_of_one, nothing_but_zeros}


@pytest.mark.parametrize("model", lanes(EMPTY, EMPTY.keys() - _QUICK))
def test_without_elements(model):
    marg = autmarg.transform(model, marginalize="all")
    plan = marg.plan()
    assert set(plan.integrated) == EMPTY[model]
    found = identity(marg)
    assert np.abs(found.errors).max() < found.tolerance
    given = {name: jnp.stack([value] * 2) for name, value in found.kept.items()}
    drawn = marg.recover(jax.random.key(0), given)
    shapes = {node.name: node.shape for node in plan.program.latents}
    assert {name: drawn[name].shape[1:] for name in shapes} == shapes


def test_no_draws_are_refused_in_words():
    with pytest.raises(autmarg.RequestError, match=r"given no draws .* \(0,\)"):
        autmarg.transform(no_columns).recover(
            jax.random.key(0), {"s": jnp.ones(0), "b": jnp.ones((0, 0))}
        )


@jax.custom_vjp
def _doubled(x):
    return 2 * x


_doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
ROWS = np.array([1, 3])
# What a mean does with a latent → whether that is read as affine.
AT = {
    "apply": (lambda u: u.at[ROWS].apply(lambda x: 2 * x), False),
    "apply in a loop": (
        lambda u: jax.lax.fori_loop(0, 3, lambda i, c: c.at[i].apply(jnp.sin), u),
        False,
    ),
    "apply to nothing": (lambda u: u.at[ROWS[:0]].apply(jnp.sin), True),
    "apply to known numbers": (lambda u: u + jnp.ones(N).at[1:3].apply(jnp.sin), True),
    "multiply": (lambda u: u.at[ROWS].multiply(2.0), True),
    "multiply by it": (lambda u: jnp.ones(N).at[ROWS].multiply(u[:2]), False),
    "divide": (lambda u: u.at[ROWS].divide(2.0), True),
    "min": (lambda u: u.at[ROWS].min(0.0), False),
    "max": (lambda u: u.at[ROWS].max(0.0), False),
    "power": (lambda u: u.at[ROWS].power(2.0), False),
    "set, twice": (lambda u: u.at[np.array([1, 1])].set(u[3:5]), True),
    "set, unique": (lambda u: u.at[ROWS].set(2.0, unique_indices=True), True),
    "set, clipped": (lambda u: u.at[np.array([1, 99])].set(2.0, mode="clip"), True),
    "set, dropped": (lambda u: u.at[np.array([1, 99])].set(u[:2], mode="drop"), True),
    "add, clipped": (lambda u: u.at[np.array([1, 99])].add(u[:2], mode="clip"), True),
    "add, outside": (lambda u: u.at[np.array([1, 99])].add(u[:2]), True),
    "get, filled": (
        lambda u: u.at[np.r_[np.arange(N - 1), 99]].get(mode="fill", fill_value=1.0),
        True,
    ),
    "pure_callback": (
        lambda u: jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((N,), float), u),
        False,
    ),
    "eig": (lambda u: jnp.linalg.eig(jnp.diag(u))[0].real, False),
    "custom_vjp": (_doubled, True),
}


REPEATED = {"multiply", "set, clipped", "set, dropped", "add, clipped", "apply to nothing"}


@pytest.mark.parametrize("name", lanes(AT, AT.keys() - REPEATED))
def test_whatever_an_index_update_does_is_exact_or_refused(name):
    of, affine = AT[name]

    def model(kept=False):
        k = numpyro.sample("k", dist.Laplace(0, 1).expand([N]).to_event(1))
        observe(ones("a") + of(k if kept else ones("u", N)))

    marg = autmarg.transform(model)
    assert ("u" in marg.plan().integrated) is affine
    assert marg.plan(kept=True).integrated == ("a",)  # and a latent that is kept anyway
    if not affine:
        return
    found = identity(marg)
    assert np.abs(found.errors).max() < found.tolerance


class Shifted(dist.Normal):
    """A class that only registration makes known."""


class Vector(dist.MultivariateNormal):
    """The same, of vectors."""


GOOD = {
    Shifted: lambda d: autmarg.Gaussian(d.loc, scale=d.scale),
    Vector: lambda d: autmarg.Gaussian(d.loc, scale_tril=d.scale_tril, event_dim=1),
}
# What is wrong with what a family returns, and the words for it.
WRONG = {
    "pair": (Shifted, lambda d: (d.loc, d.scale), "returned tuple; expected autmarg.Gaussian"),
    "nothing": (Shifted, lambda d: None, "returned NoneType"),
    "loc": (
        Shifted,
        lambda d: autmarg.Gaussian(jnp.zeros(7), scale=d.scale),
        r"loc of shape \(7,\); expected one that broadcasts to \(\)",
    ),
    "scale": (
        Shifted,
        lambda d: autmarg.Gaussian(d.loc, scale=jnp.ones((N, 1))),
        r"scale of shape \(12, 1\)",
    ),
    "no scale": (Shifted, lambda d: autmarg.Gaussian(d.loc), "no scale; expected scale alone"),
    "two": (
        Vector,
        lambda d: autmarg.Gaussian(d.loc, scale=1.0, scale_tril=d.scale_tril, event_dim=1),
        "scale and scale_tril; expected scale alone",
    ),
    "tril": (
        Vector,
        lambda d: autmarg.Gaussian(d.loc, scale_tril=jnp.eye(4), event_dim=1),
        r"scale_tril of shape \(4, 4\); expected one that broadcasts to \(3, 3\)",
    ),
    "event_dim": (
        Vector,
        lambda d: autmarg.Gaussian(d.loc, scale_tril=d.scale_tril),
        "event_dim = 0; expected 1 to 1",
    ),
    "basis": (
        Vector,
        lambda d: autmarg.Gaussian(d.loc, basis=d.scale_tril, scale=jnp.ones(2), event_dim=1),
        r"scale of shape \(2,\); expected one that broadcasts to \(3,\)",
    ),
}


def registered():
    u = numpyro.sample("u", Shifted(0.0, 1.0))
    v = numpyro.sample("v", Vector(jnp.zeros(3), scale_tril=jnp.eye(3)))
    observe(u + v[G])


@pytest.fixture
def families():
    for kind, family in GOOD.items():
        autmarg.register_gaussian(kind, family, replace=True)
    yield
    for kind in GOOD:
        FAMILIES.pop(kind)


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("name", WRONG)
def test_a_family_that_returns_what_cannot_be_is_the_users_error(name):
    kind, family, words = WRONG[name]
    autmarg.register_gaussian(kind, family, replace=True)
    with pytest.raises(autmarg.ModelError, match=rf"registered for {kind.__name__} \(.*{words}"):
        autmarg.transform(registered).plan()


@pytest.mark.usefixtures("families")
def test_registering_twice():
    marg = autmarg.transform(registered)
    assert marg.plan().integrated == ("u", "v")
    with pytest.raises(autmarg.ModelError, match="already; expected a new class, or replace=True"):
        autmarg.register_gaussian(Shifted, GOOD[Shifted])
    for known in (dist.Normal, dist.ZeroSumNormal):
        with pytest.raises(autmarg.ModelError, match="by autmarg itself"):
            autmarg.register_gaussian(known, GOOD[Shifted], replace=True)
    with pytest.raises(autmarg.ModelError, match="takes a distribution's class"):
        autmarg.register_gaussian("Normal", GOOD[Shifted])
    with pytest.raises(autmarg.ModelError, match="takes a function"):
        autmarg.register_gaussian(Shifted, None, replace=True)

    def wider(d):
        return autmarg.Gaussian(d.loc, scale=2 * d.scale)

    before = identity(marg).density
    autmarg.register_gaussian(Shifted, wider, replace=True)
    assert identity(marg).density != before  # no plan of the family before it is used


def test_a_plan_in_a_list_is_one_short_line():
    plan = autmarg.transform(no_columns).plan()
    assert repr(plan) == "<plan of 'no_columns': 1 of 2 dimensions integrated out, 1 sampled>"


def test_names_stand_at_their_own_columns():
    pytest.importorskip("matplotlib")
    names = [f"b{i}" for i in range(6)]

    def model():
        u = numpyro.sample("u", dist.Normal(0, 1).expand([N * 5]))
        mean = sum(ones(name) * X[:, i] for i, name in enumerate(names))
        numpyro.sample("y", dist.Normal(u.reshape(N, 5) + mean[:, None], scale()), obs=Y[:, None])

    plan = autmarg.transform(model, marginalize="all").plan()
    (axes,) = plan.figure().axes
    stages = plan.groups[0].schedule.stages
    order = np.concatenate([stage.columns.reshape(-1) for stage in stages]).tolist()
    members = {m.name: m for m in plan.groups[0].schedule.form.members}
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        member = members[label.get_text()]
        own = [order.index(member.offset + i) for i in range(member.size * member.blocks)]
        assert tick == np.mean(own)
    # Side by side where they would overlap.
    assert len({label.get_position()[0] for label in axes.get_yticklabels()}) > 1


def test_output_that_nobody_reads_to_its_end(monkeypatch, capsys):
    rules = Path(autmarg.__file__).parent / "conjugacy" / "shipped" / "gamma_poisson.rules"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["rules", "check", str(rules)]) == 141
    assert capsys.readouterr().err == ""


def test_asking_for_a_site_without_elements_asks_for_nothing():
    assert autmarg.transform(no_columns, marginalize=["a", "b"]).plan().integrated == ("a",)


def test_an_index_outside_says_what_jax_does():
    outside = np.r_[np.arange(N - 1), 99]
    for read, words in ((jnp.take, "puts NaN at"), (lambda u, i: u[i], "clamps")):

        def model(read=read):
            observe(read(ones("u", N), outside))

        with pytest.raises(autmarg.ModelError, match=f"found index 99 .* JAX {words} such"):
            autmarg.transform(model).plan()


def test_numpy_data_at_a_plates_index():
    """NumPyro's samplers raise there, too: inside a trace a plate's index is no NumPy array."""

    def model(y=Y):
        a, s = ones("a"), scale()
        with numpyro.plate("rows", N) as rows:
            numpyro.sample("y", dist.Normal(a, s), obs=y[rows])

    with pytest.raises(autmarg.ModelError, match="jnp indexing"):
        autmarg.transform(model).plan()
    assert autmarg.transform(model).plan(jnp.asarray(Y)).integrated == ("a",)
