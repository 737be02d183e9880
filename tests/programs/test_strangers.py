"""Models as in public tutorials and textbooks, small: each latent that can go goes, exactly."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from tests.support.lanes import lanes
from tests.support.programs import scale
from tests.support.strangers import check, normal, registers

pytestmark = pytest.mark.usefixtures("quick_compilation")

_RNG = np.random.default_rng(8)
N = 12
X, Y, D = _RNG.normal(size=N), _RNG.normal(size=N), _RNG.normal(size=(N, 3))
G, H = np.arange(N) % 4, np.arange(N) // 4
COUNT, BIT = _RNG.poisson(2.0, N), _RNG.integers(0, 2, N)

CASES = {}
goes = registers(CASES)


@goes("mu", "theta")
def eight_schools_centred():
    mu, tau = normal("mu", 0, 5), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("J", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, np.arange(8) + 9.0), obs=Y[:8])


@goes("mu", "theta_decentered")
def eight_schools_reparam():
    mu, tau = normal("mu", 0, 5), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("J", 8), numpyro.handlers.reparam(config={"theta": LocScaleReparam(0)}):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
    with numpyro.plate("J", 8):
        numpyro.sample("obs", dist.Normal(theta, np.arange(8) + 9.0), obs=Y[:8])


@goes("mu", "theta_base")
def eight_schools_transform_reparam():
    mu, tau = normal("mu", 0, 5), numpyro.sample("tau", dist.HalfCauchy(5))
    fn = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(mu, tau)
    )
    with numpyro.plate("J", 8):
        with numpyro.handlers.reparam(config={"theta": TransformReparam()}):
            theta = numpyro.sample("theta", fn)
        numpyro.sample("obs", dist.Normal(theta, np.arange(8) + 9.0), obs=Y[:8])


@goes("loc")
def baseball_partial_pooling():
    loc = normal("loc", -1, 1)
    with numpyro.plate("players", N):
        alpha = numpyro.sample("alpha", dist.Normal(loc, scale("sd")))
        numpyro.sample("hits", dist.Binomial(10, logits=alpha), obs=COUNT)


@goes("unscaled_betas")
def horseshoe_noncentred():
    lambdas = numpyro.sample("lambdas", dist.HalfCauchy(jnp.ones(3)))
    tau = numpyro.sample("tau", dist.HalfCauchy(jnp.ones(1)))
    unscaled = numpyro.sample("unscaled_betas", dist.Normal(0.0, jnp.ones(3)))
    betas = numpyro.deterministic("betas", tau * lambdas * unscaled)
    prec = numpyro.sample("prec_obs", dist.Gamma(3.0, 1.0))
    numpyro.sample("Y", dist.Normal(jnp.dot(D, betas), 1.0 / jnp.sqrt(prec)), obs=Y)


@goes("alpha", "beta")
def finnish_horseshoe():
    c2, tau = numpyro.sample("c2", dist.InverseGamma(2.0, 4.0)), scale("tau")
    lam = numpyro.sample("lam", dist.HalfCauchy(1.0).expand([3]))
    shrunk = jnp.sqrt(c2) * lam / jnp.sqrt(c2 + tau**2 * lam**2)
    alpha, beta = normal("alpha"), numpyro.sample("beta", dist.Normal(0, tau * shrunk))
    numpyro.sample("y", dist.Normal(alpha + D @ beta, scale()), obs=Y)


@goes("beta", "intercept")
def hsgp():
    amplitude, length = scale("amplitude"), numpyro.sample("length", dist.InverseGamma(3, 1))
    m, ell = np.arange(1, 6), 3.0
    phi = np.sin(np.pi * m * (X[:, None] + ell) / (2 * ell)) / np.sqrt(ell)
    omega = m * np.pi / (2 * ell)
    spd = (
        amplitude * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * length) * jnp.exp(-((length * omega) ** 2) / 4)
    )
    with numpyro.plate("basis", 5):
        beta = numpyro.sample("beta", dist.Normal(0, 1))
    f = numpyro.deterministic("f", phi @ (spd * beta))
    numpyro.sample("y", dist.Normal(normal("intercept") + f, scale()), obs=Y)


@goes("mu_a", "mu_b", "a", "b")
def osic():
    mu_a, mu_b, sa, sb, s = normal("mu_a"), normal("mu_b"), scale("sa"), scale("sb"), scale()
    with numpyro.plate("patients", 4):
        a = numpyro.sample("a", dist.Normal(mu_a, sa))
        b = numpyro.sample("b", dist.Normal(mu_b, sb))
    with numpyro.plate("data", N):
        numpyro.sample("obs", dist.Normal(a[G] + b[G] * X, s), obs=Y)


@goes("a", "b")
def ucb_admissions():
    a, b, sigma = normal("a", 0, 10), normal("b"), scale("sigma")
    with numpyro.plate("departments", 4):
        ab = numpyro.sample(
            "ab", dist.MultivariateNormal(jnp.stack([a, b]), jnp.diag(jnp.stack([sigma, sigma])))
        )
    logits = ab[G, 0] + ab[G, 1] * BIT
    numpyro.sample("admit", dist.Binomial(10, logits=logits), obs=COUNT)


@goes("w2")
def bayesian_neural_net():
    with numpyro.plate("out", 4, dim=-1), numpyro.plate("in", 3, dim=-2):
        w1 = numpyro.sample("w1", dist.Normal(0, 1))
    with numpyro.plate("one", 1, dim=-1), numpyro.plate("hidden", 4, dim=-2):
        w2 = numpyro.sample("w2", dist.Normal(0, 1))
    prec = numpyro.sample("prec", dist.Gamma(3.0, 1.0))
    with numpyro.plate("data", N):
        y = (jnp.tanh(D @ w1) @ w2).squeeze(-1)
        numpyro.sample("y", dist.Normal(y, 1 / jnp.sqrt(prec)), obs=Y)


@goes()
def mixture():
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("components", 2):
        locs = numpyro.sample("locs", dist.Normal(0, 10))
    mixing, parts = dist.Categorical(weights), dist.Normal(locs, scale())
    with numpyro.plate("data", N):
        numpyro.sample("obs", dist.MixtureSameFamily(mixing, parts), obs=Y)


@goes()
def bradley_terry():
    skill = numpyro.sample("skill", dist.Normal(0, scale("sd")).expand([4]))
    logits = skill[G] - skill[(G + 1 + H) % 4]
    numpyro.sample("won", dist.Bernoulli(logits=logits), obs=BIT)


@goes("a", "bA", "bM", "D_true")
def measurement_error_waffle():
    a, ba, bm = normal("a", 0, 0.2), normal("bA", 0, 0.5), normal("bM", 0, 0.5)
    mu = a + ba * X + bm * D[:, 0]
    true = numpyro.sample("D_true", dist.Normal(mu, numpyro.sample("s", dist.Exponential(1))))
    numpyro.sample("D_obs", dist.Normal(true, np.linspace(0.3, 1, N)), obs=Y)


@goes("age_mu", "age_missing", "a")
def age_imputed():
    mu, sd, missing = normal("age_mu", 0, 3), scale("age_sd"), np.array([1, 5, 6])
    inside = numpyro.sample("age_missing", dist.Normal(mu, sd).expand([3]).to_event(1))
    age = jnp.asarray(X).at[missing].set(inside)
    numpyro.sample("age", dist.Normal(mu, sd).mask(~np.isin(np.arange(N), missing)), obs=X)
    b = normal("b")
    numpyro.sample("y", dist.Normal(normal("a") + b * age, scale()), obs=Y)


@goes("beta", "phi")
def car_areal():
    adjacent = np.eye(N, k=1) + np.eye(N, k=-1)
    alpha, tau = (
        numpyro.sample("alpha", dist.Uniform(0, 0.95)),
        numpyro.sample("tau", dist.Gamma(2, 2)),
    )
    phi = numpyro.sample("phi", dist.CAR(0.0, alpha, tau, adjacent))
    numpyro.sample("y", dist.Normal(normal("beta") + phi, scale()), obs=Y)


@goes("a", "b")
def phylogenetic():
    c = np.exp(-np.abs(X[:, None] - X)) + 1e-6 * np.eye(N)
    mu, s = normal("a") + normal("b") * D[:, 0], scale()
    numpyro.sample("y", dist.MultivariateNormal(mu, covariance_matrix=s**2 * c), obs=Y)


@goes()
def poststratification():
    sd, b = scale("sd"), normal("b", 0, 2)
    eth = numpyro.sample("eth", dist.Normal(b, sd).expand([4]))
    numpyro.sample("yes", dist.Bernoulli(logits=eth[G] + b), obs=BIT)


@goes("poll", "mu", "eth", "age")
def poststratification_gaussian():
    mu, eth = normal("mu"), numpyro.sample("eth", dist.Normal(0, scale("s1")).expand([4]))
    age = numpyro.sample("age", dist.Normal(0, scale("s2")).expand([3]))
    poll = numpyro.sample("poll", dist.Normal(mu + eth[:, None] + age, scale("s3")))
    numpyro.deterministic("share", jnp.sum(poll * np.full((4, 3), 1 / 12)))
    numpyro.sample("y", dist.Normal(poll[G, H], scale()), obs=Y)


@goes("x")
def funnel():
    y = normal("y", 0, 3)
    numpyro.sample("x", dist.Normal(0, jnp.exp(y / 2)).expand([9]).to_event(1))
    numpyro.sample("seen", dist.Normal(0.0, jnp.exp(y)), obs=1.0)


@goes("beta", "u", "w")
def reading_times():
    beta, u = normal("beta", 0, 10, (2,)), normal("u", 0, scale("su"), (4,))
    w, slope = normal("w", 0, scale("sw"), (3,)), np.where(BIT == 1, 1.0, -1.0)
    mu = beta[0] + u[G] + w[H] + beta[1] * slope
    numpyro.sample("rt", dist.LogNormal(mu, scale()), obs=np.exp(Y))


@goes("ability", "hard")
def item_response_gaussian():
    ability, hard = normal("ability", 0, 1, (4,)), normal("hard", 0, 1, (3,))
    slope = numpyro.sample("slope", dist.LogNormal(0.0, 0.5).expand([3]))
    numpyro.sample("score", dist.Normal(slope[H] * (ability[G] - hard[H]), scale()), obs=Y)


@goes("home", "atts", "defs")
def football_by_score_differences():
    home, s1, s2 = normal("home"), scale("s1"), scale("s2")
    with numpyro.plate("teams", 4):
        atts, defs = (numpyro.sample(n, dist.Normal(0, s)) for n, s in (("atts", s1), ("defs", s2)))
    atts, defs = atts - atts.mean(), defs - jnp.mean(defs)
    numpyro.sample("goals", dist.Normal(home + atts[G] - defs[(G + 1 + H) % 4], 1.5), obs=Y)


@goes("mu", "Z")
def factor_analysis():
    mu, psi, w = normal("mu", 0, 1, (3,)), scale("psi"), normal("W", 0, 1, (3, 2))
    with numpyro.plate("n", N):
        z = numpyro.sample("Z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("Y", dist.Normal(mu + z @ w.T, psi).to_event(1), obs=D)


@goes("W")
def tasks_with_correlated_coefficients():
    rows, columns = (numpyro.sample(n, dist.LKJCholesky(k)) for n, k in (("U", 3), ("V", 2)))
    w = numpyro.sample("W", dist.MatrixNormal(jnp.zeros((3, 2)), rows, columns))
    numpyro.sample("Y", dist.Normal(D @ w, scale()).to_event(2), obs=np.stack([X, Y], 1))


@goes("gr", "m")
def social_relations():
    m, sd = normal("m"), numpyro.sample("sd", dist.Exponential(1).expand([2]))
    gr = numpyro.sample("gr", dist.Normal(0, 1).expand([2, 4]))
    gives, gets = (jnp.diag(sd) @ numpyro.sample("L", dist.LKJCholesky(2))) @ gr
    i, j = np.triu_indices(4, 1)
    numpyro.sample("ab", dist.Normal(m + gives[i] + gets[j], 1.0), obs=Y[:6])
    numpyro.sample("ba", dist.Normal(m + gives[j] + gets[i], 1.0), obs=Y[6:])


# Their structures are in other tests, too.
REPEATED = {
    "ucb_admissions",
    "bayesian_neural_net",
    "social_relations",
    "tasks_with_correlated_coefficients",
    "factor_analysis",
    "baseball_partial_pooling",
    "eight_schools_reparam",
    "eight_schools_transform_reparam",
    "finnish_horseshoe",
    "osic",
    "poststratification",
    "bradley_terry",
    "phylogenetic",
    "reading_times",
    "football_by_score_differences",
    "horseshoe_noncentred",
    "hsgp",
    "measurement_error_waffle",
    "age_imputed",
    "car_areal",
    "poststratification_gaussian",
    "item_response_gaussian",
}


@pytest.mark.parametrize("name", lanes(CASES, CASES.keys() - REPEATED))
def test_stranger(name):
    check(*CASES[name])
