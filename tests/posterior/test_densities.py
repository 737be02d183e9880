"""Densities of effects, estimates without pooling, and their pictures, against closed forms."""

from __future__ import annotations

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import autmarg
from autmarg.posterior.inference_data import whole_fit
from autmarg.posterior.unpooled import unpooled

pytestmark = pytest.mark.usefixtures("quick_compilation")
for package in ("arviz", "xarray", "matplotlib"):
    pytest.importorskip(package)
pytestmark = [pytestmark, pytest.mark.filterwarnings("ignore::FutureWarning:arviz")]

G = np.array([0, 0, 0, 1, 1, 2])
Y = np.array([1.0, 2.0, 4.0, -1.0, 0.5, 3.0])
COUNTS = np.array([3, 0, 2, 5, 1, 1])


def normal(y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("groups", 4):
        u = numpyro.sample("u", dist.Normal(1.0, tau))
    numpyro.sample("y", dist.Normal(u[G], sigma), obs=y)


def conjugate(y=None):
    with numpyro.plate("groups", 3):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate[G]), obs=y)


MARG = autmarg.transform(normal, marginalize=["u"])
DRAWS = {"tau": np.array([0.5, 2.0]), "sigma": np.array([1.0, 0.3])}


def exact(tau, sigma):
    """Mean and variance of each group's effect: precisions add."""
    rows, total = np.bincount(G, minlength=4), np.bincount(G, Y, minlength=4)
    precision = 1 / tau**2 + rows / sigma**2
    return (1 / tau**2 + total / sigma**2) / precision, 1 / precision


@pytest.mark.parametrize("count", [1, 2])
def test_a_density_is_the_mixture_of_the_conditionals(count):
    draws = {name: values[:count] for name, values in DRAWS.items()}
    found = MARG.densities(draws, "u", Y)
    assert found["density"].dims == ("groups", "point") and found["x"].shape == (4, 201)
    parts = [exact(tau, sigma) for tau, sigma in zip(*draws.values(), strict=True)]
    expected = [norm.pdf(found["x"], m[:, None], np.sqrt(v)[:, None]) for m, v in parts]
    np.testing.assert_allclose(found["density"], np.mean(expected, 0), rtol=1e-9)


def test_a_grid_of_ones_own_and_names_of_levels():
    grid = np.linspace(-20, 20, 4001)
    found = MARG.densities(DRAWS, "u", Y, grid=grid, coords={"groups": list("abcd")})
    np.testing.assert_allclose(np.trapezoid(found["density"], grid), 1, rtol=1e-9)
    one = found.sel(groups="d")  # no rows: the prior
    expected = np.mean([norm.pdf(grid, 1, tau) for tau in DRAWS["tau"]], 0)
    np.testing.assert_allclose(one["density"], expected, rtol=1e-9)


def test_only_normal_conditionals_have_such_densities():
    with pytest.raises(autmarg.RequestError, match=r"'tau' is sampled.*expected one of \['u'\]"):
        MARG.densities(DRAWS, "tau", Y)
    with pytest.raises(autmarg.RequestError, match=r"'v' is no latent.*expected one of \['u'\]"):
        MARG.densities(DRAWS, "v", Y)
    marg = autmarg.transform(conjugate)
    assert marg.plan(COUNTS).integrated == ("rate",)
    draws = marg.recover(jax.random.key(0), {"draw": np.zeros(2)}, COUNTS)
    with pytest.raises(autmarg.RequestError, match=r"not as Gaussian \(Gamma-Poisson"):
        marg.densities(draws, "rate", COUNTS)
    with pytest.raises(autmarg.RequestError, match=r"expected a number of points"):
        MARG.densities(DRAWS, "u", Y, grid=np.ones((2, 2)))


def fit():
    return whole_fit(MARG, DRAWS, (Y,), {}, method="a test")


def test_estimates_without_pooling_are_the_means_of_the_levels_rows():
    found = unpooled(fit(), "u")
    means = np.bincount(G, Y) / np.bincount(G)
    np.testing.assert_allclose(found[:3], means, rtol=1e-5)
    assert np.isnan(found[3])


def test_a_forest_plot_and_a_shrinkage_plot_name_levels_in_order():
    pytest.importorskip("matplotlib")
    names = {"groups": ["a", "b", "c", "d"]}
    posterior = fit().posterior
    mean = posterior["u"].mean((0, 1))
    for method in (MARG.plot_effects, MARG.plot_shrinkage):
        (axes,) = method(posterior, Y, coords=names).axes
        ticks = [label.get_text() for label in axes.get_yticklabels()]
        assert ticks == [names["groups"][k] for k in np.argsort(mean)]
        dots = next(line for line in axes.lines if line.get_label() == "posterior mean")
        np.testing.assert_allclose(dots.get_xdata(), np.sort(mean))
        assert 1.0 in axes.lines[0].get_xdata()  # the prior's mean
    assert axes.get_legend_handles_labels()[1][1] == "the level alone (no pooling)"
    (axes,) = MARG.plot_effects(posterior, Y, levels=2).axes
    assert axes.get_title() == "u (2 of 4 levels)"


def test_what_cannot_be_drawn():
    with pytest.raises(autmarg.RequestError, match="no site with elements"):
        MARG.plot_effects(DRAWS, Y, sites=["tau"])
    marg = autmarg.transform(conjugate)
    draws = {"rate": np.ones((4, 3))}
    with pytest.raises(autmarg.RequestError, match="no exact estimate of 'rate' without pooling"):
        marg.plot_shrinkage(draws, COUNTS, sites="rate")
