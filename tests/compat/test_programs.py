"""Functions as programs: numbers are arguments, and other data run the same executable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.compat import executables, programs

GROUP = np.array([0, 0, 1, 1, 2, 2])
Y = np.array([0.3, 0.1, -0.5, -0.2, 1.0, 0.8])
pytestmark = pytest.mark.usefixtures("quick_compilation")


def weighted(data):
    return lambda point: {"sum": jnp.sum(jnp.asarray(data)[GROUP] * point["x"])}


def compilations(monkeypatch):
    """The executables that are made from now on."""
    monkeypatch.setattr(executables, "_EXECUTABLES", type(executables._EXECUTABLES)())
    return executables._EXECUTABLES


def test_other_numbers_run_the_same_executable(monkeypatch):
    made = compilations(monkeypatch)
    point = {"x": jnp.arange(6.0)}
    for data in (np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0, 11.0])):
        found = programs.compiled(weighted(data))(point)["sum"]
        np.testing.assert_allclose(found, (data[GROUP] * np.arange(6.0)).sum())
    assert len(made) == 1
    programs.compiled(weighted(np.array([1.0, 2.0, 3.0, 4.0])))(point)
    assert len(made) == 2


def test_arguments_that_nothing_reads_are_not_confused(monkeypatch):
    made = compilations(monkeypatch)
    first, second = jnp.arange(3.0), jnp.ones(3)
    assert programs.compiled(lambda x, y: jnp.sum(2 * x))(first, second) == 6.0
    assert programs.compiled(lambda x, y: jnp.sum(2 * y))(first, 2 * second) == 12.0
    assert programs.compiled(lambda x: jnp.sum(2 * x))(second) == 6.0
    assert programs.compiled(lambda x, y: jnp.sum(2 * y))(second, first) == 6.0
    assert len(made) == 3


def test_a_program_around_it_sees_its_numbers():
    """They are the outer program's own, also of derivatives and batches; and it is traced once."""
    traces = []

    def function(point):
        traces.append(1)
        return weighted(np.array([1.0, 2.0, 3.0]))(point)["sum"] ** 2

    once = programs.traced_once(function)
    point = {"x": jnp.arange(6.0)}
    outer = jax.make_jaxpr(jax.grad(once))(point)
    assert any(np.array_equal(number, [1.0, 2.0, 3.0]) for number in outer.consts)
    plain = jax.grad(function)(point)["x"]
    np.testing.assert_allclose(jax.grad(once)(point)["x"], plain)
    np.testing.assert_allclose(jax.jit(jax.hessian(once))(point)["x"]["x"][0] @ jnp.ones(6), 24.0)
    many = {"x": jnp.stack([point["x"], 2 * point["x"]])}
    np.testing.assert_allclose(jax.vmap(once)(many), [once(point), 4 * once(point)])
    assert len(traces) == 2  # one was the plain gradient


def test_recovery_from_other_data_is_not_compiled_again(monkeypatch):
    def model(y):
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        u = numpyro.sample("u", dist.Normal(0.0, tau).expand([3]))
        numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)

    made, sizes = compilations(monkeypatch), []
    for y in (Y, 2 * Y):
        draws = {"tau": jnp.array([0.5, 1.5])}
        marg = autmarg.transform(model)
        found = marg.recover(jax.random.key(0), draws, y, moments=True)
        precision = 2 + np.array([0.5, 1.5])[:, None] ** -2
        np.testing.assert_allclose(found["u"]["mean"], y.reshape(3, 2).sum(1) / precision)
        sizes.append(len(made))
    assert sizes[0] == sizes[1]
