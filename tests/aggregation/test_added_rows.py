"""Equal elements are evaluated once: the value and its derivatives stay, the work does not."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import xlogy
from jax.scipy.stats import norm
from numpyro.infer.util import log_density

import autmarg
from autmarg.aggregation.density import AddedRows, added_rows
from autmarg.aggregation.rewrite import by_classes
from autmarg.analysis.sites import normalise
from autmarg.ir.nodes import Marginal
from autmarg.ir.tape import Builder
from autmarg.trace.capture import trace_program
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, GROUPS = 600, 12
_RNG = np.random.default_rng(0)
GROUP, FEW = _RNG.integers(0, GROUPS, N), _RNG.integers(0, 3, N)
X = np.column_stack([np.ones(N), FEW, FEW == 1])
COUNT, BINARY = _RNG.poisson(2, N), _RNG.integers(0, 2, N)


def rows_of(model, *args, **kwargs):
    """The program of a model, and the rows of its observed site added up."""
    program = normalise(trace_program(model, args, kwargs)[0]).program
    (site,) = program.observed
    return program, added_rows(program.tape, site)


def drawn(program):
    """Latents at a draw from their priors."""
    values, key = {}, jax.random.key(1)
    for node in program.latents:
        key, own = jax.random.split(key)
        fn = node.distribution.build(program.tape, values)
        values[node.name] = fn.sample(own, node.sample_shape)
    return values


def check(model, least=2.0):
    """The sum has the site's value, gradient and Hessian, with less work."""
    program, rows = rows_of(model)
    (site,) = program.observed
    values = {name: x for name, x in drawn(program).items() if name in rows.inputs}

    def plain(values):
        fn = site.distribution.build(program.tape, values)
        terms = fn.log_prob(jnp.asarray(program.tape.evaluate([site.value], values)[0]))
        scale = 1.0 if site.scale is None else program.tape.evaluate([site.scale], values)[0]
        return jnp.sum(terms * scale)

    def all_of(function):
        return jax.jit(lambda v: (function(v), jax.grad(function)(v), jax.hessian(function)(v)))

    ours, theirs = all_of(rows.log_density)(values), all_of(plain)(values)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ours, theirs)
    assert rows.saved >= least


def predictor():
    """Sums of a few effects."""
    u = numpyro.sample("u", dist.Normal(0, 1).expand([GROUPS]))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
    return X @ b + u[GROUP]


def positive(name):
    return numpyro.sample(name, dist.Gamma(3, 1))


def cuts():
    ordered = dist.transforms.OrderedTransform()
    return numpyro.sample("c", dist.TransformedDistribution(dist.Normal(0, 1).expand([3]), ordered))


LIKELIHOODS = {
    "logits": (lambda: dist.Bernoulli(logits=predictor()), BINARY),
    "probit": (lambda: dist.Bernoulli(probs=norm.cdf(predictor())), BINARY),
    "cloglog": (lambda: dist.Bernoulli(probs=-jnp.expm1(-jnp.exp(predictor()))), BINARY),
    "Poisson": (lambda: dist.Poisson(jnp.exp(predictor())), COUNT),
    "negative binomial": (
        lambda: dist.NegativeBinomial2(jnp.exp(predictor()), positive("phi")), COUNT,
    ),
    "binomial": (lambda: dist.Binomial(9, logits=predictor()), np.minimum(COUNT, 9)),
    "beta-binomial": (
        lambda: dist.BetaBinomial(jnp.exp(predictor()), positive("k"), 9), np.minimum(COUNT, 9),
    ),
    "zero-inflated": (lambda: dist.ZeroInflatedPoisson(0.2, jnp.exp(predictor())), COUNT),
    "ordinal": (lambda: dist.OrderedLogistic(predictor(), cuts()), np.minimum(COUNT, 3)),
    "categorical": (
        lambda: dist.Categorical(
            logits=numpyro.sample("w", dist.Normal(0, 1).expand([GROUPS, 3]).to_event(2))[GROUP]
        ),
        FEW,
    ),
    "Student": (lambda: dist.StudentT(positive("nu"), predictor(), positive("s")), FEW + 0.5),
    "Gamma": (lambda: dist.Gamma(positive("a"), jnp.exp(predictor())), FEW + 0.5),
    "mixture": (
        lambda: dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.array([0.3, 0.7])),
            dist.Normal(predictor()[:, None] + jnp.array([0.0, 1.0]), positive("s")),
        ),
        FEW + 0.5,
    ),
    "known mask": (lambda: dist.Poisson(jnp.exp(predictor())).mask(FEW > 0), COUNT),
}  # fmt: skip


@pytest.mark.parametrize("name", lanes(LIKELIHOODS, ["logits", "Poisson"]))
def test_value_and_derivatives(name):
    likelihood, data = LIKELIHOODS[name]

    def model():
        fn = likelihood()
        with numpyro.plate("rows", N):
            numpyro.sample("y", fn, obs=data)

    check(model)


def test_rows_with_weights_and_an_axis_more():
    weights = np.where(FEW == 2, 0.5, 2.0)

    def model():
        rate = jnp.exp(predictor()).reshape(N // 2, 2)
        with numpyro.plate("rows", N // 2), numpyro.handlers.scale(scale=weights[: N // 2]):
            numpyro.sample("y", dist.Poisson(rate).to_event(1), obs=COUNT.reshape(N // 2, 2))

    check(model, least=1.25)


def test_the_work_does_not_know_the_number_of_rows():
    def model(times):
        logits = jnp.tile(predictor(), times)
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=np.tile(BINARY, times))

    works = [rows_of(model, times)[1].work.elements for times in (1, 50)]
    assert works[1] < 1.01 * works[0]


def test_rows_that_differ_stay_as_they_are():
    def model():
        own = numpyro.sample("own", dist.Normal(0, 1).expand([N]))
        numpyro.sample("y", dist.Poisson(jnp.exp(own)), obs=COUNT)

    assert rows_of(model)[1].saved == 1


def test_traced_data_stay():
    def of(counts):
        def model():
            numpyro.sample("y", dist.Poisson(jnp.exp(predictor())), obs=counts)

        _, rows = rows_of(model)
        values = {"u": jnp.linspace(-1, 1, GROUPS), "b": jnp.ones(3)}
        traced = {name: counts for name in rows.inputs if name.startswith("@")}
        return rows.log_density({**values, **traced})

    np.testing.assert_allclose(jax.jit(of)(jnp.asarray(COUNT)), of(COUNT), rtol=1e-12)


def test_single_precision_stays():
    with jax.enable_x64(False):

        def model():
            numpyro.sample("y", dist.Poisson(jnp.exp(predictor())), obs=COUNT)

        program, rows = rows_of(model)
        assert rows.log_density(drawn(program)).dtype == jnp.float32


def test_densities_that_are_not_finite():
    def model(data, rate):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([GROUPS]))
        numpyro.sample("y", dist.Poisson(rate(u)[GROUP]), obs=data)

    _, rows = rows_of(model, COUNT, lambda u: jnp.maximum(u, 0))
    assert rows.log_density({"u": jnp.full(GROUPS, -1.0)}) == -np.inf
    assert np.isfinite(rows.log_density({"u": jnp.full(GROUPS, 1.0)}))
    assert np.isnan(rows.log_density({"u": jnp.full(GROUPS, np.nan)}))


# Functions of arrays


@jax.custom_jvp
def clipped(x, y):
    return jnp.minimum(x, 0.0) * y


@clipped.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return clipped(x, y), 3 * dx + y * dy  # (not its derivative, on purpose)


@jax.custom_vjp
def backwards(x):
    return x * x


backwards.defvjp(lambda x: (x * x, x), lambda x, g: (7 * g * x,))

FUNCTIONS = {
    "indexed": lambda u: jnp.sin(u[GROUP]) * FEW,
    "sliced and turned": lambda u: jnp.exp(u[GROUP].reshape(-1, 2).T[:, ::-1]),
    "put together": lambda u: jnp.exp(jnp.concatenate([u[GROUP], jnp.zeros(5), 2 * u[GROUP]])),
    "padded": lambda u: jnp.exp(jnp.pad(u[GROUP], (3, 4), constant_values=0.5)),
    "chosen by a known condition": lambda u: jnp.where(FEW == 1, jnp.exp(u[GROUP]), FEW),
    "chosen by a latent": lambda u: jnp.where(u[GROUP] > 0, jnp.exp(u[GROUP]), u[GROUP] ** 3),
    "matrix from the left": lambda u: jnp.tanh(X @ u[:9].reshape(3, 3)),
    "matrix from the right": lambda u: jnp.tanh(u[:9].reshape(3, 3) @ X.T),
    "one hot": lambda u: jnp.exp(jax.nn.one_hot(GROUP, GROUPS) @ u),
    "reduced rows": lambda u: jax.nn.logsumexp(u[GROUP].reshape(-1, 2) * X[::2, :2], axis=1),
    "weighted rows": lambda u: jnp.exp(jnp.sum(u[GROUP].reshape(-1, 2) * X[::2, :2], axis=1)),
    "largest of all": lambda u: jnp.max(u[GROUP] * FEW),
    "running sum": lambda u: jnp.cumsum(u[GROUP] * FEW),
    "sorted": lambda u: jnp.sort(u[GROUP])[::3] * 2,
    "beyond the end": lambda u: jnp.nan_to_num(u.at[GROUP * 2].get(mode="fill", fill_value=0.1)),
    "clamped": lambda u: jnp.exp(jnp.clip(u[GROUP], -0.3, 0.4)),
    "whole numbers": lambda u: (u[GROUP] > 0).sum() * u[GROUP],
    "own derivative": lambda u: clipped(u[GROUP], FEW + 1.0),
    "own derivative backwards": lambda u: backwards(u[GROUP] + FEW),
    "a known factor's logarithm": lambda u: xlogy(FEW * 1.0, jnp.exp(u[GROUP])),
    "split": lambda u: jnp.exp(jax.lax.split(u[GROUP], (200, 400))[1]),
    "loop": lambda u: jax.lax.fori_loop(0, 3, lambda _, x: jnp.sin(x), u[GROUP]),
    "many terms": lambda u: sum(u[(GROUP + k) % GROUPS] * (FEW + k) for k in range(12)),
    "differences": lambda u: (FEW - 2 * u[GROUP] / 3) - (u[GROUP] - X[:, 1]) * -1.5,
}


QUICK = [
    "put together", "chosen by a latent", "matrix from the right", "reduced rows", "beyond the end",
    "own derivative", "differences",
]  # fmt: skip


@pytest.mark.parametrize("name", lanes(FUNCTIONS, QUICK))
def test_functions_of_arrays(name):
    function, builder = FUNCTIONS[name], Builder()
    u = np.linspace(-1.2, 1.3, GROUPS)
    number = builder.number(jax.ShapeDtypeStruct(u.shape, u.dtype))

    def total(u):
        return jnp.sum(function(u) * 1.25)

    (output,) = builder.inline(jax.make_jaxpr(total)(u), [number])
    tape = builder.tape({"u": number}).folded([output])
    classes, own = by_classes(tape, output)

    def ours(u):
        return classes.evaluate([own], {"u": u})[0]

    both = (jax.value_and_grad(f)(u) for f in (ours, total))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), *both)


# In a program


def surveyed(group, x, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
    u = numpyro.sample("u", dist.Normal(0, scale).expand([GROUPS]))
    with numpyro.plate("people", len(group)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ b + u[group]), obs=y)


LONG = tuple(np.tile(x, (5,) + (1,) * (x.ndim - 1)) for x in (GROUP, X, BINARY))
THETA = {
    "scale": jnp.array(0.7),
    "b": jnp.array([0.3, -1.0, 2.0]),
    "u": jnp.linspace(-1, 1, GROUPS),
}


def added(marg, *args):
    nodes = marg.program(*args).nodes
    return [n for n in nodes if isinstance(n, Marginal) and isinstance(n.density, AddedRows)]


def test_long_sites_are_added_up_and_the_plan_says_so():
    marg = autmarg.transform(surveyed)
    assert added(marg, *LONG)
    assert "observed, equal rows once" in str(marg.plan(*LONG))
    both = [
        jax.jit(jax.value_and_grad(lambda th, m=m: log_density(m, LONG, {}, th)[0]))(THETA)
        for m in (surveyed, marg)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *both)


def test_what_follows_a_fit_sees_rows():
    marg = autmarg.transform(surveyed)
    draws = {name: x[None] for name, x in THETA.items()}
    found = marg.log_likelihood(draws, *LONG)["y"]
    logits = LONG[1] @ np.asarray(THETA["b"]) + np.asarray(THETA["u"])[LONG[0]]
    expected = dist.Bernoulli(logits=logits).log_prob(LONG[2])
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_short_sites_stay_and_the_pass_can_be_dropped():
    assert not added(autmarg.transform(surveyed), GROUP, X, BINARY)
    without = autmarg.transform(surveyed, passes=autmarg.default_passes().drop("hoist"))
    assert not added(without, *LONG)


def test_what_reads_a_discrete_latent_stays():
    """NumPyro's HMC asks for its density at all values of the latent at once."""

    def model(group, x, y=None):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        u = numpyro.sample("u", dist.Normal(0, 1).expand([GROUPS]))
        numpyro.sample("y", dist.Bernoulli(logits=u[group] * (1 + z)), obs=y)

    assert not added(autmarg.transform(model), *LONG)


def test_a_distribution_may_look_at_numbers():
    """What is known of a distribution and its data stays known to its author's code."""

    class Weighed(dist.Poisson):
        def log_prob(self, value):
            assert np.max(np.asarray(value)) < 99
            return super().log_prob(value)

    def model():
        numpyro.sample("y", Weighed(jnp.exp(predictor())), obs=COUNT)

    values = {"u": jnp.linspace(-1, 1, GROUPS), "b": jnp.ones(3)}
    _, rows = rows_of(model)
    assert rows.saved > 2
    assert rows.log_density(values) == pytest.approx(
        dist.Poisson(jnp.exp(X @ values["b"] + values["u"][GROUP])).log_prob(COUNT).sum()
    )
    marg = autmarg.transform(model)
    found = jax.jit(lambda v: log_density(marg, (), {}, v)[0])(values)
    assert found == pytest.approx(log_density(model, (), {}, values)[0])


def test_other_data_of_the_same_nodes():
    """A pass may give a site's expressions other numbers."""
    program, rows = rows_of(surveyed, *LONG)
    (site,) = program.observed
    constants = {**program.tape.constants, site.value: 1 - np.asarray(LONG[2])}
    changed = added_rows(replace(program.tape, constants=constants), site)
    assert changed.log_density(THETA) != rows.log_density(THETA)
    expected = dist.Bernoulli(logits=LONG[1] @ THETA["b"] + THETA["u"][LONG[0]]).log_prob(
        1 - LONG[2]
    )
    np.testing.assert_allclose(changed.log_density(THETA), expected.sum(), rtol=1e-12)
