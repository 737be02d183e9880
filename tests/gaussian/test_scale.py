"""Many rows: statistics added up in chunks, in little memory."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import log_density

import autmarg
from autmarg.gaussian import cross_products

POINT = {"tau": 0.7, "sigma": jnp.array([0.5, 0.8, 1.1])}


def crossed(g, h, stratum, x, y):
    """Two crossed factors, a slope, and noise of three strata."""
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([30, 2]).to_event(2))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([7]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1).expand([3]).to_event(1))
    mean = b[0] + b[1] * x + u[g, 0] + u[g, 1] * x + v[h]
    numpyro.sample("y", dist.Normal(mean, sigma[stratum]), obs=y)


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    g, h, stratum = (rng.integers(0, k, n).astype(np.int32) for k in (30, 7, 3))
    return g, h, stratum, rng.normal(size=n), 100 + rng.normal(size=n)


def density(model, *args):
    return log_density(model, args, {}, POINT)[0]


def test_chunks_of_rows_add_up(monkeypatch, quick_compilation):
    whole = density(autmarg.transform(crossed), *data(500))
    monkeypatch.setattr(cross_products, "_CHUNK", 256)
    monkeypatch.setattr(cross_products, "_STRATA", 2)
    np.testing.assert_allclose(density(autmarg.transform(crossed), *data(500)), whole, rtol=1e-12)


def test_memory_of_a_plan():
    """Planning allocates at most three times the model's own arrays of one number a row."""
    n = 300_000
    args = data(n)
    u, v, mean = 8 * 2 * n, 8 * n, 8 * n
    own = sum(a.nbytes for a in args) + u + v + mean
    marg = autmarg.transform(crossed)
    tracemalloc.start()
    marg.plan(*args)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 3 * own
