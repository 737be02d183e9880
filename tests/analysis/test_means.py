"""Every way of writing an affine mean is seen through: integrated out, and exactly.

Checked against two things that know nothing of our analysis: a dense Gaussian that numpy builds
from the mean function's values at basis vectors, and JAX's derivative rules.
"""

from __future__ import annotations

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

import autmarg
from tests.support.lanes import lanes
from tests.support.means import MEANS

pytestmark = pytest.mark.usefixtures("quick_compilation")

MEMBERS = {"u": (5,), "w": (4, 3), "z": (12,), "c": ()}
THETA = {
    "t": np.array(1.1),
    "tau": np.array([0.7, 1.2, 0.4]),
    "ell": np.array(0.83),
    "p": np.array(0.37),
}
Z_MEAN = np.linspace(-1, 1, 12)
NOISE = 0.8
BATCHES = 12
NAMES = list(MEANS)


def latents():
    sample = numpyro.sample
    t = sample("t", dist.HalfNormal(1.0))
    return types.SimpleNamespace(
        u=sample("u", dist.Normal(0.3, t).expand([5])),
        w=sample("w", dist.Normal(0, 1).expand([4, 3]).to_event(1)),
        z=sample("z", dist.Normal(Z_MEAN, 2.0)),
        c=sample("c", dist.Normal(1.0, 3.0)),
        tau=sample("tau", dist.HalfNormal(1.0).expand([3])),
        ell=sample("ell", dist.LogNormal(0.0, 0.5)),
        p=sample("p", dist.Uniform(-1.0, 1.0)),
    )


def data(name, size):
    return np.random.default_rng(NAMES.index(name)).normal(size=size)


def model(names):
    """One model with an observed site for each mean: its name is in whatever goes wrong."""
    v = latents()
    for name in names:
        mean = jnp.ravel(MEANS[name](v))
        numpyro.sample(name, dist.Normal(mean, NOISE), obs=data(name, mean.size))


def stacked_means(names, flat):
    """All means of a batch at the latents ``flat`` (u, w, z, c one after the other) and θ."""
    values, start = {}, 0
    for name, shape in MEMBERS.items():
        size = int(np.prod(shape))
        values[name] = flat[start : start + size].reshape(shape)
        start += size
    v = types.SimpleNamespace(**values, **{k: jnp.asarray(x) for k, x in THETA.items()})
    return jnp.concatenate([jnp.ravel(MEANS[name](v)) for name in names])


def dense_marginal(names):
    """log N(y; A m + b, A S Aᵀ + σ²): A and b from the function at zero and at basis vectors."""
    at = jax.jit(jax.vmap(partial(stacked_means, names)))(
        np.concatenate([np.zeros((1, 30)), np.eye(30)])
    )
    offset, design = np.asarray(at[0]), np.asarray(at[1:] - at[0]).T
    mean = np.concatenate([np.full(5, 0.3), np.zeros(12), Z_MEAN, [1.0]])
    sd = np.concatenate([np.full(5, THETA["t"]), np.ones(12), np.full(12, 2.0), [3.0]])
    covariance = design @ np.diag(sd**2) @ design.T + NOISE**2 * np.eye(len(offset))
    sizes = [jnp.size(MEANS[n](_point())) for n in names]
    y = np.concatenate([data(n, k) for n, k in zip(names, sizes, strict=True)])
    return multivariate_normal(offset + design @ mean, covariance).logpdf(y)


def _point():
    values = {k: jnp.ones(shape) for k, shape in MEMBERS.items()}
    return types.SimpleNamespace(**values, **{k: jnp.asarray(x) for k, x in THETA.items()})


def kept_prior():
    """log p(θ): t and tau half-normal, ell log-normal, p uniform on (-1, 1)."""
    half = dist.HalfNormal(1.0)
    terms = [half.log_prob(THETA["t"]), half.log_prob(THETA["tau"]).sum()]
    terms += [dist.LogNormal(0.0, 0.5).log_prob(THETA["ell"]), np.log(0.5)]
    return float(sum(terms))


# Every batch has some of each kind.
@pytest.mark.parametrize("batch", lanes(range(BATCHES), quick=[0]))
def test_means_are_integrated_out_exactly(batch):
    names = NAMES[batch::BATCHES]
    marg = autmarg.transform(partial(model, names), marginalize=list(MEMBERS))
    plan = marg.plan()
    assert set(plan.integrated) == set(MEMBERS), "\n".join(map(str, plan.refusals))
    found = log_density(marg, (), {}, THETA)[0]
    np.testing.assert_allclose(found - kept_prior(), dense_marginal(names), rtol=1e-9)
