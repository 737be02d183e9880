"""``summary``: which row a latent is in, however the program is written, and the rows' numbers."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.analysis.roles import roles
from autmarg.trace.capture import trace_program

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore::FutureWarning:arviz"),
]
az, xarray = pytest.importorskip("arviz"), pytest.importorskip("xarray")

RNG = np.random.default_rng(2)
LEAD = (2, 20)
G = np.arange(12) % 4
X = RNG.normal(size=12)
Y = RNG.normal(size=12)
TAU = np.exp(RNG.normal(size=(*LEAD, 2)))
RHO = np.tanh(RNG.normal(size=LEAD))
CHOL = np.zeros((*LEAD, 2, 2))
CHOL[..., 0, 0], CHOL[..., 1, 0], CHOL[..., 1, 1] = 1, RHO, np.sqrt(1 - RHO**2)
BASE = {
    "alpha": RNG.normal(size=LEAD), "sigma": np.exp(RNG.normal(size=LEAD)), "tau": TAU,
    "u": RNG.normal(size=(*LEAD, 4, 2)) + np.array([[0.0, 0], [0, 9], [0, 0], [-4, 0]]),
}  # fmt: skip


def rows(u, y):
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("rows", 12):
        mean = alpha + u[G, 0] + u[G, 1] * X
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def scales():
    return numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))


def factor(y=None):
    tau, chol = scales(), numpyro.sample("chol", dist.LKJCholesky(2))
    with numpyro.plate("groups", 4):
        prior = dist.MultivariateNormal(jnp.zeros(2), scale_tril=tau[:, None] * chol)
        u = numpyro.sample("u", prior)
    rows(u, y)


def covariance(y=None):
    tau, corr = scales(), numpyro.sample("corr", dist.LKJ(2))
    with numpyro.plate("groups", 4):
        prior = dist.MultivariateNormal(jnp.zeros(2), tau[:, None] * corr * tau)
        u = numpyro.sample("u", prior)
    rows(u, y)


def by_hand(y=None):
    tau, chol = scales(), numpyro.sample("chol", dist.LKJCholesky(2))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([4, 2]).to_event(2))
    rows(numpyro.deterministic("u", z @ (tau[:, None] * chol).T), y)


def summary(model, draws, **options):
    return autmarg.transform(model).summary(draws, Y, **options)


@pytest.mark.parametrize(
    ("model", "extra"),
    [(factor, {"chol": CHOL}), (covariance, {"corr": CHOL @ np.swapaxes(CHOL, -1, -2)})],
)
def test_standard_deviations_and_correlations_of_the_prior(model, extra):
    """As parameters make them, not as the parameters are."""
    found = summary(model, {**BASE, **extra}, largest=2)
    names = ["sd(u[0]) = tau[0]", "sd(u[1]) = tau[1]", "cor(u[0], u[1])"]
    assert list(found.groups.index) == names
    expected = [TAU[..., 0].mean(), TAU[..., 1].mean(), RHO.mean()]
    np.testing.assert_allclose(found.groups["mean"], expected, rtol=1e-9)
    assert list(found.population.index) == ["alpha"] and list(found.noise.index) == ["sigma"]
    assert not len(found.other) and found.left_out == 6
    units = np.abs(BASE["u"].mean((0, 1))) / TAU.mean((0, 1))
    first, second = np.argsort(-units.reshape(-1))[:2]
    assert list(found.effects.index) == [f"u[{k // 2}, {k % 2}]" for k in (first, second)]


def test_a_form_that_is_non_centred_by_hand():
    """A factor that no prior reads has the rows of its correlation matrix."""
    draws = {k: v for k, v in BASE.items() if k != "u"}
    z = RNG.normal(size=(*LEAD, 4, 2))
    found = summary(by_hand, {**draws, "chol": CHOL, "z": z})
    assert list(found.groups.index) == ["tau[0]", "tau[1]", "cor(chol[0], chol[1])"]
    np.testing.assert_allclose(found.groups["mean"].iloc[2], RHO.mean())
    assert {name[0] for name in found.effects.index} == {"z"}
    assert list(found.population.index) == ["alpha"]


def test_numbers_are_those_of_the_draws_and_of_arviz():
    found = summary(factor, {**BASE, "chol": CHOL}, prob=0.9).population.loc["alpha"]
    alpha = BASE["alpha"]
    np.testing.assert_allclose(found[["5%", "95%"]], np.quantile(alpha, [0.05, 0.95]))
    np.testing.assert_allclose(found["sd"], alpha.std(ddof=1))
    data = xarray.Dataset({"x": (("chain", "draw"), alpha)})
    for name, value in (
        ("ess_bulk", az.ess(data, method="bulk")), ("ess_tail", az.ess(data, method="tail")),
        ("r_hat", az.rhat(data)), ("mcse", az.mcse(data, method="mean")),
    ):  # fmt: skip
        np.testing.assert_allclose(found[name], value["x"])


def test_it_prints_every_row_with_the_names_of_levels():
    marg, names = autmarg.transform(factor), {"groups": ["a", "b", "c", "d"], "term": ["i", "x"]}
    found = marg.summary(
        {**BASE, "chol": CHOL}, Y, largest=8, coords=names, dims={"u": ["groups", "term"]}
    )
    text, page = str(found), found._repr_html_()
    every = [name for table in found.sections.values() for name in table.index]
    assert "u[b, x]" in every and "cor(u[i], u[x])" in every and len(every) == 13
    assert all(name in text and name in page for name in every)
    assert text.startswith("factor: 2 chains of 20 draws; integrated out: u, alpha")
    lines = [line for line in text.splitlines() if "  mean" in line or "[" in line]
    assert len(lines) == 12 and len({len(line) for line in lines}) == 1


def other_places(y=None):
    """A centred mean, a relative scale, scales by level, a missing response, a factor's latent."""
    mu = numpyro.sample("mu", dist.StudentT(3.0, 0.0, 2.0))
    s, r = numpyro.sample("s", dist.HalfNormal(1)), numpyro.sample("r", dist.HalfNormal(1))
    p = numpyro.sample("p", dist.Beta(1, 1))
    with numpyro.plate("groups", 4):
        a = numpyro.sample("a", dist.Normal(mu, s * r))
        lam = numpyro.sample("lam", dist.HalfCauchy(1))
        b = numpyro.sample("b", dist.Normal(0, lam))
        t = numpyro.sample("t", dist.StudentT(4.0, 0.0, r))
    with numpyro.plate("rows", 12):
        mean = (a + b + t)[G] + jnp.log(p)
        numpyro.sample("y", dist.Normal(mean, s), obs=y, obs_mask=X > -0.5)


def test_roles_follow_from_where_a_latent_is_read():
    found = roles(trace_program(other_places, (Y,), {})[0])
    assert found.population == ("mu",) and found.noise == ("s",)
    assert list(found.effects) == ["a", "b", "t"]
    assert found.covariance == ("s", "r", "lam")
    assert found.other == ("p", "y_unobserved")


def test_deviations_are_from_prior_means_and_scales_are_what_they_come_to():
    one = np.ones(LEAD)
    draws = {
        "mu": 100 * one, "s": 2 * one, "r": RNG.gamma(3, size=LEAD), "p": one / 2,
        "a": 100 + np.arange(4) + RNG.normal(size=(*LEAD, 4)), "lam": np.ones((*LEAD, 4)),
        "b": RNG.normal(size=(*LEAD, 4)), "t": RNG.normal(size=(*LEAD, 4)),
        "y_unobserved": RNG.normal(size=(*LEAD, 12)),
    }  # fmt: skip
    draws["lam"] = draws["lam"] * np.arange(1, 5) + RNG.uniform(size=(*LEAD, 4))
    found = summary(other_places, draws, largest=99)
    names = ["sd(a)", *(f"sd(b[{k}]) = lam[{k}]" for k in range(4)), "scale(t) = r"]
    assert list(found.groups.index) == names
    np.testing.assert_allclose(found.groups["mean"]["sd(a)"], 2 * draws["r"].mean())
    np.testing.assert_allclose(found.effects["mean"]["a[3]"], draws["a"][..., 3].mean() - 100)
    missing = [f"y_unobserved[{k}]" for k in np.flatnonzero(X <= -0.5)]
    assert list(found.other.index) == ["p", *missing]


def products(y=None):
    """A slope times what is no effect; scales in one site, one of which a prior reads."""
    threshold = numpyro.sample("threshold", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.LogNormal(0, 1))
    mean = numpyro.sample("mean", dist.Normal(0, 1).expand([2]))
    rho = numpyro.sample("rho", dist.Uniform(0, 1))
    sds = numpyro.sample("sds", dist.HalfNormal(1).expand([3]).to_event(1))
    with numpyro.plate("groups", 4):
        a = numpyro.sample("a", dist.Normal(0, sds[0]))
        first = numpyro.sample("first", dist.Normal(0, sds[2] / jnp.sqrt(1 - rho**2)))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([4]))
    effect = mean[0] + sds[1] * (z - 0.0 * mean[1])
    at = slope * (X - threshold) + (a + first + effect)[G]
    numpyro.sample("y", dist.Normal(at, 1), obs=y)


def test_every_latent_has_a_row_where_a_reader_looks_for_it():
    found = roles(trace_program(products, (Y,), {})[0])
    assert found.population == ("threshold", "mean")
    assert list(found.effects) == ["a", "first", "z"] and found.standardised == {"z"}
    assert found.multipliers == ("sds",) and found.other == ("slope",)
    draws = {n: RNG.uniform(size=LEAD) for n in ("threshold", "slope", "rho")}
    draws |= {"mean": RNG.normal(size=(*LEAD, 2)), "sds": RNG.uniform(size=(*LEAD, 3))}
    draws |= {n: RNG.normal(size=(*LEAD, 4)) for n in ("a", "first", "z")}
    table = summary(products, draws)
    assert list(table.groups.index) == ["sd(a) = sds[0]", "sd(first)", "sds[1]", "sds[2]"]
    assert list(table.other.index) == ["slope", "rho"]


def test_draws_by_themselves_know_no_arguments():
    def rows_of(x, y=None):
        numpyro.sample("y", dist.Normal(numpyro.sample("b", dist.Normal(0, 1)) * x, 1), obs=y)

    with pytest.raises(
        autmarg.RequestError, match="pass its arguments 'x' and 'y' after the draws"
    ):
        autmarg.transform(rows_of).summary({"b": RNG.normal(size=LEAD)})


def test_a_probability_that_is_none():
    with pytest.raises(autmarg.RequestError, match="between 0 and 1"):
        summary(factor, BASE, prob=95)


def tempered(y=None):
    tau = scales()
    with numpyro.plate("groups", 4), numpyro.handlers.scale(scale=4.0):
        u = numpyro.sample("u", dist.Normal(0, tau).to_event(1))
    rows(u, y)


def test_a_prior_of_which_the_program_writes_no_deviation_has_no_such_row():
    """Under a power of its density the effects' deviation is half of what is written."""
    found = summary(tempered, BASE)
    assert not len(found.groups) and list(found.other.index) == ["tau[0]", "tau[1]"]
