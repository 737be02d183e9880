"""Least failing programs of the generator, as it printed them or cut down by hand, once each."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.reparam import TransformReparam
from numpyro.infer.util import log_density

import autmarg
from tests.support.generator.identity import check_exact


def test_a_fit_to_nothing_but_rounding():
    """Known offsets that cancel to 1e-17 sent the least-squares fit to 1e18."""

    def model():
        u3 = numpyro.sample("u3", dist.Normal(np.linspace(-1.0, 1.0, 4), 0.9))
        u4 = numpyro.sample("u4", dist.Normal(jnp.mean(u3), 1.0).expand([2]).to_event(1))
        s5 = numpyro.sample("s5", dist.Gamma(3.0, 3.0))
        u6 = numpyro.sample("u6", dist.Normal(u4.sum(), s5).expand([12]))
        numpyro.sample("y", dist.Normal(jnp.tanh(u6), 1.0), obs=np.linspace(-1.0, 2.0, 12))

    report = autmarg.verify(model, points=2, quiet=True, marginalize="all")
    assert report.integrated == ("u3", "u4")


def test_no_row_of_a_dense_mean_is_left():
    """A mask over all rows left none to find the noise strata of."""

    def model():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([3]))
        with numpyro.handlers.mask(mask=False):
            numpyro.sample("y", dist.Normal(np.eye(4)[:, 1:] @ u, 1.0), obs=np.ones(4))

    assert autmarg.verify(model, points=2, quiet=True, marginalize="all").integrated == ("u",)


def test_a_latent_that_cancels_in_the_mean_of_a_kept_one():
    """Features of no size but rounding were fitted, to NaN."""

    def model():
        s5 = numpyro.sample("s5", dist.LogNormal(0.4, 0.4))
        moved = dist.transforms.AffineTransform(0.3, 2.0)
        with numpyro.handlers.reparam(config={"u3": TransformReparam()}):
            fn = dist.TransformedDistribution(dist.Normal(0.4, s5), moved)
            u3 = numpyro.sample("u3", fn)
        u2 = numpyro.sample("u2", dist.Normal(u3 - u3, 0.5))
        fn = dist.TransformedDistribution(dist.Normal(0.4, jnp.exp(0.5 * u2)), moved)
        u1 = numpyro.sample("u1", fn.expand([12]))
        covariance = s5**2 + 0.6 * jnp.eye(12)
        y = np.linspace(-1.0, 2.0, 12)
        numpyro.sample("y", dist.MultivariateNormal(u1.at[3].set(u3), covariance), obs=y)

    assert autmarg.verify(model, points=2, quiet=True, marginalize="all").integrated == (
        "u3_base",
        "u1",
    )


def test_a_scale_that_reads_a_latent_under_a_mask_of_everything():
    """Nothing of such a site is left, so nothing that it reads is evaluated: it was a KeyError."""

    def model():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([4]))
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([4]))
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        with numpyro.handlers.mask(mask=False):
            numpyro.sample("y", dist.LogNormal(u, jnp.exp(0.3 * w)), obs=np.arange(1.0, 5.0))
            fn = dist.MultivariateNormal(u, covariance_matrix=jnp.diag(jnp.exp(w)))
            numpyro.sample("v", fn, obs=np.arange(4.0))
        numpyro.sample("z", dist.Normal(u + w, t), obs=np.linspace(-1.0, 1.0, 4))

    assert autmarg.verify(model, points=2, quiet=True, marginalize="all").integrated == ("u", "w")


def test_a_kept_mean_that_centring_takes_out():
    """Its coefficient, 3 · (1/3) - 1, is not quite zero: the fit of the rows by itself was 1e15."""

    def model():
        s = numpyro.sample("s", dist.Laplace(0.0, 1.0))
        u = numpyro.sample("u", dist.Normal(s, 1.0).expand([3]))
        numpyro.sample("y", dist.Normal((u - u.mean())[np.array([0])], 1.0), obs=np.ones(1))

    check_exact(model, "u")


def test_a_form_without_rows_whose_members_are_correlated():
    """A reshape of no rows asked JAX to find out their number."""

    def model():
        u = numpyro.sample("u", dist.MultivariateNormal(np.zeros(2), np.eye(2) + 0.3))
        with numpyro.handlers.mask(mask=False):
            numpyro.sample("y", dist.Normal(u, 1.0), obs=np.ones(2))

    check_exact(model, "u")


def test_a_masked_latents_scale_that_reads_a_member():
    """Its prior is not met where it is flat; where nothing reads it, it is drawn from the prior."""

    def model(read):
        a = numpyro.sample("a", dist.Normal(0.4, 0.5))
        with numpyro.handlers.mask(mask=False):
            u = numpyro.sample("u", dist.Normal(0.4, jnp.exp(0.5 * a)))
        numpyro.sample("y", dist.Normal(a + u if read else 0.0, 1.0), obs=np.ones(3))

    check_exact(lambda: model(True), "a u")
    check_exact(lambda: model(False), "u")


def test_a_precision_that_underflows_is_no_infinite_density():
    """σ⁻² is zero from σ = 1e162 on, and its logarithm is no part of log p."""

    def model():
        log_noise = numpyro.sample("log_noise", dist.Normal(0.0, 100.0))
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(u, jnp.exp(log_noise)), obs=np.ones(3))

    marg = autmarg.transform(model, marginalize="all")
    assert np.isfinite(log_density(marg, (), {}, {"log_noise": 300.0})[0])
    assert np.isnan(log_density(marg, (), {}, {"log_noise": 400.0})[0])


def test_a_scale_that_is_filled_where_an_index_lies_outside():
    """A lookup that is filled with a number is none; it was taken for affine in no latent."""

    def model():
        w = numpyro.sample("w", dist.Normal(0.0, 0.5).expand([2]))
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([4]))
        log_noise = jnp.take(w, np.array([0, 1, 2, 1]), mode="fill", fill_value=0.5)
        numpyro.sample("y", dist.Normal(u, jnp.exp(log_noise)), obs=np.ones(4))

    check_exact(model, "u")


def test_means_of_groups_that_centring_takes_out():
    """Each group's mean, less a third of it three times: draws were of another centre."""

    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.plate("groups", 4):
            mean = numpyro.sample("mean", dist.Normal(0.0, scale))
        u = numpyro.sample("u", dist.Normal(mean[:, None], 1.0).expand([4, 3]).to_event(2))
        noise = np.linspace(0.4, 1.5, 12).reshape(4, 3)
        y = np.linspace(-2.0, 1.0, 12).reshape(4, 3) ** 2
        numpyro.sample("y", dist.Normal(u - u.mean(1, keepdims=True), noise), obs=y)

    check_exact(model, "mean u")


def test_summands_that_cancel_in_some_rows_alone():
    """a/3 + a/3 + b/3 - mean: where a row's three are of one group its coefficient is rounding."""

    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        u = numpyro.sample("u", dist.Normal(0.0, scale).expand([6]))
        read = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 4, 5, 3]])
        weights = np.array([1 / 3, 1 / 3, 1 / 3, -1.0]) * np.linspace(0.7, 1.9, 4)[:, None]
        mean = (u[read] * weights).sum(1)
        numpyro.sample("y", dist.Normal(mean, np.linspace(0.5, 1.5, 4)), obs=np.ones(4))

    check_exact(model, "u")
