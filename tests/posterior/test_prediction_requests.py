"""What predict refuses, by the words that say what to do, and an MCMC's own arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS, Predictive

import autmarg

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
THREE = np.array([0.0, 1.0, 2.0])


def hierarchy(g, n, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("groups", n):
        u = numpyro.sample("u", dist.Normal(0, tau))
    numpyro.sample("y", dist.Normal(u[g], 1), obs=y)


G = np.arange(6) % 3
RUN = (G, 3, np.arange(6.0))
TAU = {"tau": np.ones(4)}
DRAWS = {**TAU, "u": np.arange(12.0).reshape(4, 3)}


@pytest.fixture(scope="module")
def marg():
    return autmarg.transform(hierarchy)


@pytest.mark.slow
def test_an_mcmc_knows_its_arguments(marg):
    mcmc = MCMC(NUTS(marg), num_warmup=2, num_samples=3, progress_bar=False)
    mcmc.run(KEY, *RUN)
    new = (np.array([3, 3, 0]), 4)
    apart = marg.predict(KEY, mcmc, *new, sites=["u", "y"], group_by_chain=True)
    assert apart["u"].shape == (1, 3, 4) and apart["y"].shape == (1, 3, 3)
    recovered = marg.recover(jax.random.split(KEY)[0], mcmc, *RUN)
    np.testing.assert_array_equal(apart["u"][..., :3], recovered["u"][None])
    assert np.unique(apart["u"][..., 3]).size == 3


REQUESTS = {
    "draws without effects": ((TAU, G, 3), {}, r"no draws of 'u': pass the MCMC.*fitted="),
    "fewer levels": ((DRAWS, G % 2, 2), {}, r"'u' has shape \(2,\).*new_levels=\['u'\]"),
    "another rank": (({**TAU, "u": np.ones(4)}, G, 3), {}, r"draws of 'u' have shape \(4,\)"),
    "no such site": ((DRAWS, G, 3), {"sites": ["z"]}, "asked for 'z', not a site"),
    "no such latent": ((DRAWS, G, 3), {"new_levels": ["v"]}, "new_levels has 'v', not a latent"),
    "a name": ((DRAWS, G, 3), {"new_levels": "u"}, "new_levels as a list"),
    "other draws": (({"z": np.ones(4)}, G, 3), {}, "no draws of 'tau' and 'u'"),
    "no draws": (({"tau": np.ones(0), "u": np.ones((0, 3))}, G, 3), {}, "given no draws"),
    "all data": ((DRAWS, *RUN), {}, "every observed site has data"),
    "fitted": ((TAU, G, 3), {"fitted": G}, r"as fitted=\(…\), a tuple"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_cannot_be_met_says_what_to_pass(marg, name):
    args, kwargs, words = REQUESTS[name]
    with pytest.raises(autmarg.RequestError, match=words):
        marg.predict(KEY, *args, **kwargs)


def test_an_index_out_of_range_says_how_to_predict_a_new_level(marg):
    for call in (
        lambda: marg.predict(KEY, DRAWS, np.array([0, 3]), 3),
        lambda: Predictive(marg, DRAWS)(KEY, np.array([0, 3]), 3),
    ):
        with pytest.raises(autmarg.ModelError, match=r"index 3 .*marg\.predict a larger number"):
            call()


def process(x, y=None):
    cov = jnp.exp(-((x[:, None] - x) ** 2)) + 1e-6 * jnp.eye(len(x))
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(len(x)), cov))
    numpyro.sample("y", dist.Normal(f, 0.1), obs=y)


def nested(district, n, y=None):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([n]))
    w = numpyro.sample("w", dist.Normal(a[district], 1))
    numpyro.sample("y", dist.Normal(w, 1), obs=y)


def measured(seen, y=None):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([len(seen)]))
    numpyro.sample("seen", dist.Normal(x, 0.1), obs=seen)
    numpyro.sample("y", dist.Normal(x, 0.1), obs=y)


def zero_sum(n, y=None):
    x = numpyro.sample("x", dist.ZeroSumNormal(1.0, (n,)))
    numpyro.sample("y", dist.Normal(x, 0.1), obs=y)


def masked(n, y=None):
    with handlers.mask(mask=np.arange(n) < 9):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([n]))
    numpyro.sample("y", dist.Normal(x, 0.1), obs=y)


def flat(n, y=None):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (n,), ()))
    numpyro.sample("y", dist.Normal(x, 0.1), obs=y)


def renamed(name, y=None):
    x = numpyro.sample(name, dist.Normal(0, 1).expand([3]))
    numpyro.sample("y", dist.Normal(x, 0.1), obs=y)


def loop(steps, y=()):
    last = 1.0
    phi = numpyro.sample("phi", dist.Normal(0, 1).expand([3]))
    for t in range(steps):
        seen = y[t] if t < len(y) else None
        last = numpyro.sample(f"y{t}", dist.Normal(phi.sum() * last, 0.1), obs=seen)


def hidden(steps, y=None):
    def step(last, seen):
        x = numpyro.sample("x", dist.Normal(last, 1))
        numpyro.sample("y", dist.Normal(x, 1), obs=seen)
        return x, None

    with handlers.scope(prefix="a", divider="/"):
        scan(step, 0.0, y, length=steps)


WRONG = {
    "inputs in another order": (process, "f", (np.r_[9.0, THREE],), (THREE, THREE), "not the one"),
    "a known level moved": (
        nested, "w", (np.array([0, 1, 2]), 3), (np.array([0, 1, 1]), 2, THREE), "depends on new",
    ),
    "data that inform": (measured, "x", (np.arange(4.0),), (THREE, THREE), "'seen' has a value"),
    "coupled for good": (zero_sum, "x", (4,), (3, THREE), "new elements of a ZeroSumNormal"),
    "masked": (masked, "x", (4,), (3, THREE), "a mask on its density"),
    "improper": (flat, "x", (4,), (3, THREE), "has no draws"),
    "another name": (renamed, "x", ("z",), ("x", THREE), "has 'z' with these.*had 'x'"),
    "replicates as a past": (loop, "phi", (4,), (2, THREE[:2]), "Pass the data of 'y1'"),
    "out of reach": (hidden, "a/x", (3,), None, "cannot give 'hidden' its draws"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_number_that_would_be_wrong_is_an_error(name):
    model, site, new, run, words = WRONG[name]
    draws = {site: np.array([THREE, THREE])}
    if model is nested:
        draws["a"] = np.ones((2, 2))
    with pytest.raises(autmarg.RequestError, match=words):
        autmarg.transform(model).predict(KEY, draws, *new, fitted=run)


def test_categories_have_no_mean():
    """NumPyro's is NaN."""

    def votes(n, y=None):
        u = numpyro.sample("u", dist.Normal(0, 1))
        cuts = jnp.array([-1.0, 1.0])
        with numpyro.plate("rows", n):
            numpyro.sample("y", dist.OrderedLogistic(u, cuts).mask(True), obs=y)

    run = (3, np.arange(3))
    with pytest.raises(autmarg.RequestError, match="numbers of 'y' are categories"):
        autmarg.transform(votes).predict(KEY, {"u": np.zeros(5)}, 3, fitted=run, mean=True)


def test_categories_begin_with_those_of_the_fit():
    pandas = pytest.importorskip("pandas")

    def coded(g, y=None):
        hierarchy(g.cat.codes.to_numpy(), len(g.cat.categories), y)

    def column(names):
        return pandas.Series(pandas.Categorical(names, categories=dict.fromkeys(names)))

    marg, run = autmarg.transform(coded), (column(["a", "b", "c"]), THREE)
    found = marg.predict(KEY, DRAWS, column(["a", "b", "c", "d"]), fitted=run, mean=True)["y"]
    np.testing.assert_array_equal(found[:, :3], DRAWS["u"])
    with pytest.raises(autmarg.RequestError, match=r"argument 1 are \['b', 'a', 'c'\]"):
        marg.predict(KEY, DRAWS, column(["b", "a", "c"]), fitted=run)
