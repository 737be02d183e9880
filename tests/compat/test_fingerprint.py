"""Equal programs have equal fingerprints, and nothing else has: a plan is looked up by them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.compat.fingerprint import Fingerprint
from autmarg.trace.capture import trace_program
from tests.analysis.test_means import model as of_means
from tests.support.chains import CHAINS
from tests.support.means import MEANS
from tests.support.programs import CASES, Y

X = np.linspace(0.0, 3.0, 5)


def program(model, *args):
    return trace_program(model, args, {})[0]


def of(value):
    found = Fingerprint()
    found.feed(value)
    return found.hexdigest()


@pytest.mark.parametrize("cases", [CASES, CHAINS], ids=["programs", "chains"])
def test_a_program_traced_again_is_equal(cases):
    for name, case in cases.items():
        first, second = (program(case.model, getattr(case, "data", Y)) for _ in range(2))
        assert first.comparable, name
        assert first.fingerprint == second.fingerprint, name


def test_every_mean_traced_again_is_equal():
    first, second = (program(of_means, list(MEANS)) for _ in range(2))
    assert first.comparable
    assert first.fingerprint == second.fingerprint


def observed(value_of):
    """A model whose design is what ``value_of`` makes of X."""

    def model(y):
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        b = numpyro.sample("b", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(b * value_of(jnp.asarray(X)), s), obs=y)

    return model


def callback(function):
    shape = jax.ShapeDtypeStruct(X.shape, np.float64)
    return lambda x: jax.pure_callback(function, shape, x)


def custom(slope):
    @jax.custom_jvp
    def square(x):
        return x**2

    @square.defjvp
    def _(values, tangents):
        return values[0] ** 2, slope * values[0] * tangents[0]

    return square


def backwards(slope):
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (slope * x * g,))
    return square


def around(weights):
    """As ``odeint``: the function reads arrays that it closes over."""
    weights = jnp.full(5, weights)

    @jax.custom_vjp
    def weighted(x):
        return x * weights

    weighted.defvjp(lambda x: (weighted(x), ()), lambda _, g: (g * weights,))
    return weighted


@jax.custom_jvp
def recursive(x):
    return jnp.sin(x)


@recursive.defjvp
def _(values, tangents):
    return recursive(*values), jnp.cos(values[0]) * tangents[0] + 0 * recursive(values[0])


def body(constant):
    """A loop with a constant array inside that is too long to be printed."""
    inside = np.arange(2000.0)
    inside[1000] = constant
    return lambda x: jax.lax.map(lambda v: v * jnp.asarray(inside).sum(), x)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: callback(lambda x: np.asarray(x) * k),
        lambda k: callback(functools.partial(lambda k, x: np.asarray(x) * k, k)),
        lambda k: jax.checkpoint(callback(lambda x: np.asarray(x) * k)),
        lambda k: lambda x: jax.lax.map(lambda v: v * callback(lambda x: x * k)(x).sum(), x),
        custom,
        backwards,
        around,
        body,
    ],
    ids=["callback", "partial", "in a call", "in a loop", "jvp", "vjp", "closed", "long constant"],
)
def test_what_differs_is_not_equal(make):
    first, second = (program(observed(make(k)), Y[:5]) for k in (1.0, 2.0))
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    "function",
    [jax.nn.relu, jax.nn.softplus, recursive, custom(3.0), backwards(3.0), around(3.0), body(2.0)],
    ids=["relu", "softplus", "recursive", "jvp", "vjp", "closed", "long constant"],
)
def test_functions_with_rules_of_their_own_are_equal_to_themselves(function):
    first, second = (program(observed(function), Y[:5]) for _ in range(2))
    assert first.comparable
    assert first.fingerprint == second.fingerprint


def test_a_printed_message_makes_no_program_its_own():
    def loud(x):
        jax.debug.print("{}", x.sum())
        return x

    assert program(observed(loud), Y[:5]).comparable


class Hidden:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "Hidden"

    def __call__(self, x):
        return x * self.value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


@dataclasses.dataclass
class Data:
    value: object


def closing_over(value):
    return lambda x: x * value


@pytest.mark.parametrize(
    "make",
    [
        lambda k: np.full(2000, k),
        lambda k: {"a": [k, (np.full(3, k),)]},
        lambda k: frozenset({k, 3.0}),
        lambda k: np.array([k, "text"], object),
        Hidden,
        Data,
        closing_over,
        lambda k: Hidden(k).__call__,
        lambda k: jax.tree.structure(dist.Delta(np.zeros((1, 1)), event_dim=int(k))),
        lambda k: jax.tree.structure(Static(0.0, Hidden(k))),
    ],
)
def test_values_are_compared_by_content(make):
    assert of(make(1.0)) != of(make(2.0))


@pytest.mark.parametrize(
    "make", [lambda: np.arange(3.0), lambda: Hidden(np.arange(3.0)), lambda: Data([1, "a", None])]
)
def test_equal_values_are_equal(make):
    assert of(make()) == of(make())


@pytest.mark.parametrize("value", [Slotted(1.0), iter([1]), object()])
def test_what_cannot_be_seen_into_is_never_equal(value):
    assert of(value) != of(value)


def test_a_function_is_equal_to_itself_while_what_it_closes_over_is():
    shift = np.zeros(3)
    function = closing_over(shift)
    before = of(function)
    assert of(function) == before != of(closing_over(shift))
    shift += 1
    assert of(function) != before


class Static(dist.Normal):
    """A distribution with a static field whose text says nothing of it."""

    pytree_aux_fields = ("hidden",)

    def __init__(self, loc, hidden):
        self.hidden = hidden
        super().__init__(loc, 1.0)


def test_callbacks_that_read_other_data_get_a_plan_of_their_own(quick_compilation):
    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0, 1))
        w = jax.pure_callback(lambda: x**2, jax.ShapeDtypeStruct(x.shape, np.float64))
        numpyro.sample("y", dist.Normal(b * w, 1.0), obs=y)

    marg = autmarg.transform(model, marginalize=["b"])
    for x in (X, X + 1, X):
        w = x**2
        cov = np.eye(5) + np.outer(w, w)
        expected = -0.5 * (
            Y[:5] @ np.linalg.solve(cov, Y[:5]) + np.linalg.slogdet(2 * np.pi * cov)[1]
        )
        np.testing.assert_allclose(log_density(marg, (x, Y[:5]), {}, {})[0], expected, rtol=1e-10)
    assert len(marg._programs) <= 16
