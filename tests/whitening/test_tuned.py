"""Stand-ins from draws: what they are, that they keep the density, and data that JAX traces."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from tests.whitening.test_pieces import LEFT, RIGHT, crossed

RNG = np.random.default_rng(11)
GROUPS, ROWS = 12, 60
G, X = RNG.integers(0, GROUPS, ROWS), RNG.normal(size=ROWS)
Y = RNG.poisson(np.exp(0.3 - 0.5 * X + 0.8 * RNG.normal(size=GROUPS)[G]))
DRAWS = {
    "b": RNG.normal(size=20),
    "s": np.exp(0.2 * RNG.normal(size=20)),
    "u": 0.5 * RNG.normal(size=(20, GROUPS)),
}


def counts(g: Any, x: Any, y: Any = None) -> None:
    b = numpyro.sample("b", dist.Normal(0, 2))
    s = numpyro.sample("s", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, s).expand([GROUPS]))
    numpyro.sample("y", dist.Poisson(jnp.exp(b * x + u[g])), obs=y)


@pytest.fixture(scope="module")
def tuned() -> autmarg.MarginalizedModel:
    return autmarg.transform(counts, nongaussian="whiten").tune(DRAWS, G, X, Y)


def stand_in(marg: autmarg.MarginalizedModel, y: Any) -> tuple[Any, Any]:
    """Weights and values of the pseudo-data."""
    plan = marg.plan(G, X, y)
    (node,) = plan.groups[0].stand_ins
    zeros = {"b": 0.0, "u": np.zeros(GROUPS)}
    scale = node.distribution.build(plan.program.tape, zeros).scale
    return scale**-2, plan.program.tape.evaluate([node.value], {})[0]


def test_they_have_the_average_slope_and_curvature(tuned: autmarg.MarginalizedModel) -> None:
    s = DRAWS["b"][:, None] * X + DRAWS["u"][:, G]
    expected = np.exp(s).mean(0)
    weight, value = stand_in(tuned, Y)
    np.testing.assert_allclose(weight, expected)
    np.testing.assert_allclose(value, s.mean(0) + (Y - expected) / expected)


def test_the_density_is_the_model_s(tuned: autmarg.MarginalizedModel) -> None:
    assert autmarg.verify(tuned, G, X, Y, points=4, quiet=True).exact


def test_draws_of_the_noise_are_recovered_first(tuned: autmarg.MarginalizedModel) -> None:
    (noise,) = tuned.plan(G, X, Y).noise
    kept = {"s": DRAWS["s"], noise: RNG.normal(size=(20, 1 + GROUPS))}
    effects = tuned.recover(jax.random.key(0), kept, G, X, Y)
    both = (tuned.tune(draws, G, X, Y) for draws in (kept, effects))
    for one, other in zip(*(stand_in(each, Y) for each in both), strict=True):
        np.testing.assert_array_equal(one, other)


def test_data_may_be_traced(tuned: autmarg.MarginalizedModel) -> None:
    """Stand-ins need no mode to be searched then: other data have the same ones."""
    (noise,) = tuned.plan(G, X, Y).noise
    values = {"s": 0.6, noise: RNG.normal(size=1 + GROUPS)}
    data = jnp.stack([Y, Y + 1])

    def log_p(y: Any) -> Any:
        return log_density(tuned, (G, X, y), {}, values)[0]

    def effects(y: Any) -> Any:
        return tuned.recover(jax.random.key(0), values, G, X, y, other_data=True)["u"]

    apart = [log_p(np.asarray(y)) for y in data]
    np.testing.assert_allclose(jax.vmap(log_p)(data), apart, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(effects)(data[1]), effects(np.asarray(data[1])), rtol=1e-10)
    whitened = autmarg.transform(counts, nongaussian="whiten")
    with pytest.raises(autmarg.RequestError, match=r"JAX traces.*marg.tune\(draws\)"):
        jax.jit(lambda y: log_density(whitened, (G, X, y), {}, values)[0])(Y)


@pytest.mark.slow
def test_data_of_other_shapes_have_their_own_mode(tuned: autmarg.MarginalizedModel) -> None:
    fewer = G[1:], X[1:], Y[1:]
    assert autmarg.verify(tuned, *fewer, points=3, quiet=True).exact


@pytest.mark.slow
@pytest.mark.usefixtures("always_in_pieces")
def test_in_pieces() -> None:
    draws = {name: 0.7 + 0.1 * RNG.normal(size=8) for name in "bcst"}
    draws |= {"u": RNG.normal(size=(8, LEFT)), "v": RNG.normal(size=(8, RIGHT))}
    tuned = autmarg.transform(crossed, nongaussian="whiten").tune(draws)
    assert tuned.plan().groups[0].pieces == (("b",), ("c", "u"), ("v",))
    assert autmarg.verify(tuned, points=3, quiet=True).exact


def test_refusals() -> None:
    with pytest.raises(autmarg.RequestError, match=r"nothing of 'counts' is whitened .*'whiten'"):
        autmarg.transform(counts).tune(DRAWS, G, X, Y)  # which the default leaves
    far = DRAWS | {"b": np.full(20, 1e6)}
    with pytest.raises(autmarg.RequestError, match=r"\['y'\] has no finite slopes"):
        autmarg.transform(counts, nongaussian="whiten").tune(far, G, X, Y)
