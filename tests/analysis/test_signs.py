"""Where a standard deviation is below zero, a density is NaN before and after."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer.util import log_density

import autmarg
from tests.support.lanes import lanes

GROUP, X = np.arange(12) % 4, np.linspace(-1, 1, 12)
Y = np.random.default_rng(0).normal(size=12)
LOWER = jnp.array([[1.0, 0.0], [0.3, 1.0]])


def prior(s):
    with numpyro.plate("groups", 4):
        u = numpyro.sample("u", dist.Normal(0, s))
    numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=Y)


def noise_of_rows(s):
    u = numpyro.sample("u", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(u, 1.0 + s * X), obs=Y)


def rows_under_a_mask(s):
    """Rows that are left out may have any."""
    u = numpyro.sample("u", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(u, 1.0 + s * X).mask(X < 0.3), obs=Y)


def latents_under_a_mask(s):
    """Flat where data read them: those of the last two scales."""
    x = np.linspace(-1, 1, 4)
    u = numpyro.sample("u", dist.Normal(0, 1.0 + s * x).mask(x < 0.3))
    numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=Y)


def factor(s):
    lower = LOWER.at[1].mul(s)
    u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), scale_tril=lower))
    numpyro.sample("y", dist.Normal(u[GROUP % 2], 1.0), obs=Y)


def factor_of_noise(s):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([2]).to_event(1))
    fn = dist.MultivariateNormal(u, scale_tril=LOWER.at[1].mul(s))
    numpyro.sample("y", fn, obs=Y.reshape(6, 2))


def walk(s):
    u = numpyro.sample("u", dist.GaussianRandomWalk(s, num_steps=12))
    numpyro.sample("y", dist.Normal(u, 1.0), obs=Y)


def states(s):
    def step(state, y):
        state = numpyro.sample("u", dist.Normal(state, s))
        numpyro.sample("y", dist.Normal(state, 1.0), obs=y)
        return state, None

    scan(step, 0.0, Y)


def multiplied(s):
    """A factor of either sign is no standard deviation."""
    base = dist.MultivariateNormal(jnp.zeros(2), scale_tril=LOWER)
    transform = AffineTransform(0.0, s * jnp.array([1.0, -2.0]))
    u = numpyro.sample("u", dist.TransformedDistribution(base, transform))
    numpyro.sample("y", dist.Normal(u[GROUP % 2], 1.0), obs=Y)


def counts(s):
    with numpyro.plate("groups", 4):
        u = numpyro.sample("u", dist.Normal(0, s))
    numpyro.sample("y", dist.Poisson(jnp.exp(u[GROUP])), obs=GROUP)


FORMS = (
    prior, noise_of_rows, rows_under_a_mask, latents_under_a_mask, factor, factor_of_noise, walk,
    states, multiplied,
)  # fmt: skip
ALL, SAMPLED = {"marginalize": "all"}, {"marginalize": [], "reparameterize": "noncentred"}
CASES = {f.__name__: (f, ALL) for f in FORMS} | {
    "non-centred": (prior, SAMPLED),
    "non-centred factor": (factor, SAMPLED),
    "whitened": (counts, {"nongaussian": "whiten"}),
}


@pytest.mark.parametrize(
    "name", lanes(CASES, quick=["noise_of_rows", "rows_under_a_mask", "non-centred"])
)
def test_densities_are_numbers_at_the_same_places(name):
    form, options = CASES[name]

    def model():
        form(numpyro.sample("s", dist.Normal(0, 1)))

    marg = autmarg.transform(model, **options)
    (latent,) = (n for n in marg.plan().program.latents if n.name != "s")

    def is_number(model, values):
        sites = handlers.trace(
            handlers.substitute(handlers.seed(model, 0), data=values)
        ).get_trace()
        latents = {
            n: jnp.asarray(site["value"])
            for n, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        return bool(jnp.isfinite(log_density(model, (), {}, latents)[0]))

    with numpyro.validation_enabled(False):
        found = [
            (
                is_number(model, {"s": jnp.asarray(s), "u": jnp.full(latent.shape, 0.3)}),
                is_number(marg, {"s": jnp.asarray(s)}),
            )
            for s in (0.9, 1.3, -0.9, -1.3)
        ]
    assert all(source == ours for source, ours in found)
    assert any(source for source, _ in found)
