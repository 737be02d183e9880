"""Latents that no site with a density reads: they integrate to one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg

Y = np.array([0.3, -0.2, 1.1])


def several(y: Any) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, scale).expand([2, 3]).to_event(1))
    numpyro.sample("chol", dist.LKJCholesky(3, 2.0))
    with numpyro.plate("future", 4):
        numpyro.sample("count", dist.GeometricProbs(0.5 / (1.0 + scale)))
    numpyro.sample("twice", dist.StudentT(4.0, 0.0, 1.0), sample_shape=(2,))
    numpyro.deterministic("sum", rate.sum())
    numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


UNREAD = ("rate", "chol", "count", "twice")


@pytest.mark.slow
def test_the_density_is_the_source_s_without_them() -> None:
    marg = autmarg.transform(several, reparameterize="off")
    assert marg.plan(Y).integrated == UNREAD
    found = log_density(marg, (Y,), {}, {"scale": 0.7})[0]
    wanted = dist.HalfNormal(1.0).log_prob(0.7) + dist.Normal(0.0, 0.7).log_prob(Y).sum()
    assert abs(float(found - wanted)) < 1e-12
    assert autmarg.verify(marg, Y, points=3, quiet=True).exact


def test_they_are_drawn_from_their_prior() -> None:
    marg = autmarg.transform(several)
    draws = marg.recover(jax.random.key(0), {"scale": np.full(2000, 2.0)}, Y)
    assert draws["rate"].shape == (2000, 2, 3)
    assert draws["chol"].shape == (2000, 3, 3)
    assert abs(float(draws["count"].mean()) - 5.0) < 0.3  # five standard errors
    np.testing.assert_allclose(draws["sum"], draws["rate"].sum((1, 2)), rtol=1e-12)
    moments = marg.recover(jax.random.key(0), {"scale": np.ones(2)}, Y, moments=True)
    np.testing.assert_allclose(moments["rate"]["mean"], 2.0)
    np.testing.assert_allclose(moments["count"]["var"], 12.0)
    assert np.isnan(moments["chol"]["mean"]).all()  # NumPyro has no formula


def _unlike(prior: Any) -> Any:
    def model(y: Any) -> None:
        numpyro.sample("z", prior)
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(0.0, scale), obs=y)

    return model


class _Own(dist.Gamma):
    def log_prob(self, value: Any) -> Any:
        return 2.0 * super().log_prob(value)


@pytest.mark.parametrize(
    "prior",
    [
        pytest.param(dist.Gamma(2.0, 1.0).mask(False), id="masked"),
        pytest.param(dist.ImproperUniform(dist.constraints.positive, (), ()), id="improper"),
        pytest.param(_Own(2.0, 1.0), id="a class of the user's"),
    ],
)
def test_densities_that_may_not_integrate_to_one_stay(prior: Any) -> None:
    assert "z" not in autmarg.transform(_unlike(prior)).plan(Y).integrated


def test_a_factor_reads() -> None:
    def model(y: Any) -> None:
        z = numpyro.sample("z", dist.Gamma(2.0, 1.0))
        numpyro.factor("more", -z)
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    assert autmarg.transform(model).plan(Y).integrated == ()
