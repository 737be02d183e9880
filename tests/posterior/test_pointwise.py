"""log p(y_i | y_-i, θ) and log p(y_g | y_-g, θ) against dense normals and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import log_likelihood
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger
from scipy import stats

import autmarg
from autmarg.posterior.units import batch_of
from tests.conjugacy import models, test_shared
from tests.programs.test_dense import CASES
from tests.support import programs
from tests.support.dense import joint, prior_draw
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")

DENSE = CASES | {f"programs: {n}": (c.model, (programs.Y,)) for n, c in programs.CASES.items()}
GROUPS = 4
RNG = np.random.default_rng(6)
N, GROUP = 8, np.array([0, 1, 2, 0, 1, 2, 0, 3])
Y = RNG.normal(size=N)
WEIGHTS = RNG.uniform(0.2, 3.0, N)
THETA = {"tau": np.array([0.7, 1.3]), "s": np.array([[0.5, 0.6, 0.7, 0.8], [1.0, 1.1, 0.3, 0.4]])}


@pytest.mark.parametrize("name", lanes(DENSE, ["programs: two_observed_sites"]))
def test_both_are_those_of_the_dense_normal(name):
    """Single observations, and random groups over all observed sites together."""
    model, args = DENSE[name]
    marg = autmarg.transform(model, marginalize="all", reparameterize="off")
    plan = marg.plan(*args)
    kept = prior_draw(model, plan.kept, *args)
    draws = {name: value[None] for name, value in kept.items()} or {"draw": np.zeros(1)}
    single = marg.log_likelihood(draws, *args, which="marginal")
    rng = np.random.default_rng(0)
    ids = {n.name: rng.integers(0, GROUPS, batch_of(n)) for n in plan.program.observed}
    groups = marg.log_likelihood(draws, *args, which="group", by=ids)
    dense = joint(model, plan.integrated, kept, *args)
    label, total = np.full(len(dense.site), -1), np.zeros(GROUPS)
    for site, value in single.items():
        if site not in dense.jacobian:  # not Gaussian
            continue
        mine = dense.site == site
        each = plan.program[site].size // value[0].size
        own = np.where(mine, dense.element // each, -1)
        found = [dense.left_out(own == i) for i in range(value[0].size)]
        expected = found + dense.jacobian[site].reshape(-1)
        np.testing.assert_allclose(np.ravel(value[0]), expected, rtol=1e-8, atol=1e-8)
        label[mine] = ids[site].reshape(-1)[own[mine]]
        total += np.bincount(ids[site].reshape(-1), dense.jacobian[site].reshape(-1), GROUPS)
    total += [dense.left_out(label == g) for g in range(GROUPS)]
    total = total[np.unique(np.concatenate([np.ravel(x) for x in ids.values()]))]
    found = sum(np.asarray(value[0]) for site, value in groups.items() if site in dense.jacobian)
    np.testing.assert_allclose(found, total, rtol=1e-8, atol=1e-8)


class Without(Messenger):
    """Masks observations of one site."""

    def __init__(self, fn, site, index):
        super().__init__(fn)
        self.site, self.index = site, index

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["name"] == self.site:
            keep = np.ones(msg["fn"].log_prob(msg["value"]).shape, bool)
            keep[self.index] = False
            msg["fn"] = msg["fn"].mask(keep)


def density(model, names, kept):
    marg = autmarg.transform(model, marginalize=names, reparameterize="off")
    return jax.jit(lambda kept: log_density(marg, (), {}, kept)[0])(kept)


SHARED = (test_shared.regression, test_shared.precision, test_shared.singular)


@pytest.mark.parametrize("model", lanes([*models.FIRST, *models.SECOND, *SHARED], ()))
def test_conjugacies_against_the_program_with_masks(model):
    """The first three observations of each site, and these as a group."""
    marg = autmarg.transform(model, reparameterize="off")
    plan = marg.plan()
    values = (models if model not in SHARED else test_shared).values_of(plan.program.latents)
    kept = {name: jnp.asarray(values[name]) for name in plan.kept}
    draws = {name: value[None] for name, value in kept.items()} or {"draw": np.zeros(1)}
    found = marg.log_likelihood(draws, which="marginal")
    whole = density(model, plan.integrated, kept)
    for site, value in found.items():
        for index in list(np.ndindex(*value.shape[1:]))[:3]:
            rest = density(Without(model, site, index), plan.integrated, kept)
            np.testing.assert_allclose(value[0][index], whole - rest, rtol=1e-8, atol=1e-8)
    if len(found) > 1 and model in SHARED:
        with pytest.raises(autmarg.RequestError, match=r"keep=\['t'\]"):
            marg.log_likelihood(draws, which="group", by={n: v[0] for n, v in found.items()})
        return
    ids = {
        name: np.arange(value[0].size).reshape(value[0].shape) < 3 for name, value in found.items()
    }
    groups = marg.log_likelihood(draws, which="group", by=ids)
    rest = model
    for site, own in ids.items():
        rest = Without(rest, site, own)
    expected = whole - density(rest, plan.integrated, kept)
    np.testing.assert_allclose(
        sum(v[0, -1] for v in groups.values()), expected, rtol=1e-8, atol=1e-8
    )


def counts(group, y=None):
    a, b = (numpyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in "ab")
    with numpyro.plate("groups", 4):
        rate = numpyro.sample("rate", dist.Gamma(a, b))
    numpyro.sample("y", dist.Poisson(rate[group]), obs=y)


def test_a_count_given_the_others_is_negative_binomial():
    y = np.array([3, 0, 2, 5, 1, 1, 400, 2])
    theta = {"a": np.array([0.5, 2.0]), "b": np.array([1.0, 0.1])}
    found = autmarg.transform(counts).log_likelihood(theta, GROUP, y, which="marginal")["y"]
    same = GROUP[:, None] == GROUP
    for k, (a, b) in enumerate(zip(*theta.values(), strict=True)):
        rest, n = same @ y - y, same.sum(1) - 1
        p = (b + n) / (b + n + 1)
        np.testing.assert_allclose(found[k], stats.nbinom(a + rest, p).logpmf(y), rtol=1e-11)


def weighted(group, y, weights=WEIGHTS):
    a, tau = numpyro.sample("a", dist.Normal(1, 2)), numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("groups", 4):
        u = numpyro.sample("u", dist.Normal(a, tau))
    s = numpyro.sample("s", dist.HalfNormal(1).expand([4]))
    with numpyro.plate("rows", N), handlers.scale(scale=weights):
        numpyro.sample("y", dist.Normal(u[group], s[group]), obs=y)


def predicted(out, theta, weights=WEIGHTS):
    """log p(y_out | the other rows, to their powers), in sixty digits."""
    with mpmath.workdps(60):

        def log_p(rows):
            s = [mpmath.mpf(float(x)) for x in theta["s"][GROUP]]
            power = [1.0 if i in out else float(weights[i]) for i in range(N)]
            between, cov = mpmath.mpf(float(theta["tau"])) ** 2, mpmath.matrix(len(rows))
            for a, i in enumerate(rows):
                for b, j in enumerate(rows):
                    cov[a, b] = 4 + between * bool(GROUP[i] == GROUP[j])
                cov[a, a] += s[i] ** 2 / power[i]
            r = mpmath.matrix([mpmath.mpf(float(Y[i])) - 1 for i in rows])
            squares = (r.T * mpmath.lu_solve(cov, r))[0]
            return (
                -(len(rows) * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(cov)) + squares) / 2
            )

        rest = [i for i in range(N) if i not in out]
        return float(log_p(sorted([*rest, *out])) - log_p(rest))


@pytest.mark.parametrize("by", lanes(["groups", "group"], ["groups"]))
def test_weights_temper_what_others_say_and_a_plate_or_an_argument_names_groups(by):
    marg = autmarg.transform(weighted)
    found = marg.log_likelihood(THETA, GROUP, Y, which="marginal")["y"]
    groups = marg.log_likelihood(THETA, GROUP, Y, which="group", by=by)["y"]
    for k in range(2):
        theta = {name: value[k] for name, value in THETA.items()}
        expected = [predicted([i], theta) for i in range(N)]
        np.testing.assert_allclose(found[k], expected, rtol=1e-10)
        expected = [predicted(list(np.flatnonzero(g == GROUP)), theta) for g in range(4)]
        np.testing.assert_allclose(groups[k], expected, rtol=1e-10)


@pytest.mark.slow
def test_no_digits_are_lost_where_a_row_alone_knows_its_effect():
    """τ/σ from 10 to 10⁹: 1 - h is 10⁻¹⁸ then, and a difference of log-densities serves."""
    marg, ones = autmarg.transform(weighted), np.ones(N)
    theta = {"tau": 10.0 ** np.arange(9), "s": np.full((9, 4), 0.1)}
    found = marg.log_likelihood(theta, GROUP, Y, ones, which="marginal")["y"]
    for k in range(9):
        at = {name: value[k] for name, value in theta.items()}
        expected = [predicted([i], at, ones) for i in range(N)]
        np.testing.assert_allclose(found[k], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_rows_under_a_scale_of_zero_have_no_number():
    def model(group, y):
        weighted(group, y, jnp.where(np.arange(N) == 2, 0.0, WEIGHTS))

    found = autmarg.transform(model).log_likelihood(THETA, GROUP, Y, which="marginal")["y"]
    assert np.isnan(found[:, 2]).all() and np.isfinite(np.delete(found, 2, axis=1)).all()


@pytest.mark.slow
def test_a_flat_prior_that_only_the_rows_left_out_determine_has_no_prediction():
    x = np.sqrt(np.arange(2.0, 2.0 + N))

    def model(y):
        b = numpyro.sample("b", dist.ImproperUniform(dist.constraints.real, (), (5,)))
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        mean = b[GROUP] + b[4] * np.where(GROUP == 2, x, 0.0)
        numpyro.sample("y", dist.Normal(mean, s), obs=y)

    marg = autmarg.transform(model)
    assert marg.plan(Y).integrated == ("b",)
    found = marg.log_likelihood({"s": np.array([0.5])}, Y, which="marginal")["y"][0]
    np.testing.assert_array_equal(np.isnan(found), np.isin(GROUP, [2, 3]))
    rest = Y[[3, 6]]
    expected = stats.norm(rest.mean(), 0.5 * np.sqrt(1 + 1 / 2)).logpdf(Y[0])
    np.testing.assert_allclose(found[0], expected)


def test_a_plate_may_have_the_name_of_its_size():
    def named(A, y):
        with numpyro.plate("A", A):
            u = numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(u[GROUP], 1), obs=y)

    marg, draws = autmarg.transform(named), {"draw": np.zeros(2)}
    found = [marg.log_likelihood(draws, 4, Y, which="group", by=by)["y"] for by in ("A", GROUP)]
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.slow
def test_conditional_is_numpyros_at_recovered_effects():
    marg, key = autmarg.transform(weighted), jax.random.key(3)
    every = marg.recover(key, THETA, GROUP, Y)
    expected = log_likelihood(weighted, every, GROUP, Y)["y"]
    for draws in (THETA, every):
        found = marg.log_likelihood(draws, GROUP, Y, rng_key=key)["y"]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    # Where nothing is integrated out, all are the same.
    off = autmarg.transform(weighted, marginalize=[])
    np.testing.assert_allclose(off.log_likelihood(every, GROUP, Y, which="marginal")["y"], expected)
    groups = off.log_likelihood(every, GROUP, Y, which="group", by="group")["y"]
    sums = [expected[:, g == GROUP].sum(axis=1) for g in range(4)]
    np.testing.assert_allclose(groups, np.stack(sums, axis=1), rtol=1e-12)


@pytest.mark.slow
def test_single_precision_is_worked_out_in_double():
    exact = autmarg.transform(weighted).log_likelihood(THETA, GROUP, Y, which="marginal")["y"]
    with jax.enable_x64(False):
        theta = {name: jnp.asarray(value, jnp.float32) for name, value in THETA.items()}
        y = Y.astype(np.float32)
        found = autmarg.transform(weighted).log_likelihood(theta, GROUP, y, which="marginal")["y"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_observed_value_may_be_computed_from_what_is_integrated_out():
    def model(y, left):
        s, x = numpyro.sample("s", dist.HalfNormal(1.0)), np.arange(1.0, 1.0 + N)
        b = numpyro.sample("b", dist.Normal(0, 1))
        mean, value = (0.0, y - b * x) if left else (b * x, y)
        numpyro.sample("y", dist.Normal(mean, s).expand([N]), obs=value)

    marg = autmarg.transform(model, marginalize="all")
    found = [marg.log_likelihood({"s": np.ones(1)}, Y, k, which="marginal")["y"] for k in (0, 1)]
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.slow
def test_leading_dimensions_and_batches():
    marg = autmarg.transform(weighted)
    draws = {name: np.repeat(value[:, None], 3, axis=1) for name, value in THETA.items()}
    found = marg.log_likelihood(draws, GROUP, Y, which="marginal", batch_size=4)["y"]
    assert found.shape == (2, 3, N)
    flat = marg.log_likelihood(THETA, GROUP, Y, which="marginal")["y"]
    np.testing.assert_allclose(found[:, 1], flat, rtol=1e-12)
    every = marg.recover(jax.random.key(0), draws, GROUP, Y)
    groups = marg.log_likelihood(every, GROUP, Y, which="group", by=GROUP)["y"]
    assert groups.shape == (2, 3, 4)


def test_what_is_refused():
    marg = autmarg.transform(weighted)

    def ask(**options):
        return marg.log_likelihood(THETA, GROUP, Y, **options)

    for options, words in (
        ({"which": "loo"}, "is none of"),
        ({"by": "group"}, "belongs to which='group'"),
        ({"which": "group"}, "needs by="),
        ({"which": "group", "by": "grupo"}, "did you mean 'group'"),
        ({"which": "group", "by": GROUP[:3]}, r"shape \(3,\) for the observed site 'y'"),
    ):
        with pytest.raises(autmarg.RequestError, match=words):
            ask(**options)
    with pytest.raises(autmarg.RequestError, match=r"log_likelihood needs draws of .* 's'"):
        marg.log_likelihood({"tau": THETA["tau"]}, GROUP, Y, which="marginal")
    off = autmarg.transform(weighted, marginalize=[])
    with pytest.raises(autmarg.RequestError, match="needs draws of"):
        off.log_likelihood(THETA, GROUP, Y)
    with pytest.raises(autmarg.RequestError, match="without data"):
        marg.log_likelihood(THETA, GROUP, None)
