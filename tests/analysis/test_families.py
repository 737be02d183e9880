"""Gaussian families as priors, in both roles and in their wrappings; and what is no family."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.linalg
from numpyro import handlers
from numpyro.distributions import transforms
from numpyro.infer.reparam import CircularReparam, LocScaleReparam, TransformReparam
from numpyro.infer.util import log_density
from scipy import sparse
from scipy.stats import multivariate_normal

import autmarg
from tests.support.families import (
    ADJACENCY,
    CORRELATED,
    FACTOR,
    ROWS,
    SEEN,
    WHERE,
    circle,
    exact,
    row_factor,
)
from tests.support.lanes import lanes
from tests.support.programs import scale

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Each family with one parameter t, as NumPyro has it and as numpy has its covariance.
FAMILIES = {
    "MultivariateNormal": (
        lambda m, t: dist.MultivariateNormal(m, covariance_matrix=t * CORRELATED),
        lambda t: t * CORRELATED,
    ),
    "LowRank": (
        lambda m, t: dist.LowRankMultivariateNormal(m, FACTOR, t * jnp.arange(1.0, 5.0)),
        lambda t: FACTOR @ FACTOR.T + t * np.diag(np.arange(1.0, 5.0)),
    ),
    "Matrix": (
        lambda m, t: dist.MatrixNormal(m.reshape(2, 2), row_factor(t), 0.7 * jnp.eye(2)),
        lambda t: np.kron(row_factor(t) @ row_factor(t).T, 0.49 * np.eye(2)),
    ),
    "CAR": (
        lambda m, t: dist.CAR(m, 0.9 * jnp.tanh(t), 2 * t, ADJACENCY),
        lambda t: np.linalg.inv(2 * t * (np.diag(ADJACENCY.sum(1)) - 0.9 * np.tanh(t) * ADJACENCY)),
    ),
    "Circulant": (
        lambda m, t: dist.CirculantNormal(m, covariance_row=circle(t)),
        lambda t: scipy.linalg.circulant(circle(t)),
    ),
    "ZeroSum": (
        lambda m, t: dist.ZeroSumNormal(t, (2, 2)),
        lambda t: t**2 * np.kron(np.eye(2) - 0.5, np.eye(2) - 0.5),
    ),
}


def both_roles(family):
    """``u`` has the family as its prior, and ``w`` as its likelihood where it has a mean."""

    def model(seen=None, w=None):
        z, t = numpyro.sample("z", dist.Normal(0.5, 2.0)), scale("t")
        u = numpyro.sample("u", family(jnp.arange(4.0), t))
        numpyro.sample("y", dist.Normal(jnp.ravel(u)[WHERE] + z, 0.7), obs=seen)
        if w is not None:
            numpyro.sample("w", family(z * jnp.array([1.0, -1.0, 2.0, 0.5]), t), obs=w)

    return model


def dense(covariance, t, mean):
    """Mean and covariance of (y, w) by hand; without ``mean`` there is no ``w``."""
    pick, slope = np.eye(4)[WHERE], np.array([1.0, -1.0, 2.0, 0.5])
    design = np.concatenate([np.ones(7), slope]) if mean else np.ones(7)
    total = 4.0 * np.outer(design, design)
    total[:7, :7] += pick @ covariance(t) @ pick.T + 0.49 * np.eye(7)
    if mean:
        total[7:, 7:] += covariance(t)
    centre = 0.5 * design
    centre[:7] += pick @ np.arange(4.0) if mean else 0.0
    return centre, total


# Of the others test_family_likelihoods.py and tests/programs/test_dense.py have both roles.
@pytest.mark.parametrize("name", lanes(FAMILIES, ["MultivariateNormal"]))
def test_as_prior_and_as_likelihood(name):
    """The identity, the marginal against a dense Gaussian, its gradient against differences."""
    family, covariance = FAMILIES[name]
    mean = name != "ZeroSum"
    shape = (2, 2) if name == "Matrix" else (4,)
    data = {"seen": SEEN, "w": ROWS[0].reshape(shape) if mean else None}
    marg = exact(both_roles(family), {"u", "z"}, **data)

    @jax.jit
    def density(t):
        return log_density(marg, (), data, {"t": t})[0]

    t, values = 0.8, np.concatenate([SEEN, ROWS[0]]) if mean else SEEN
    centre, total = dense(covariance, t, mean)
    expected = multivariate_normal(centre, total).logpdf(values)
    prior = dist.HalfNormal(1.0).log_prob(t)
    np.testing.assert_allclose(density(t) - prior, expected, rtol=1e-11)
    numeric = (density(t + 1e-5) - density(t - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(density)(t), numeric, rtol=1e-6)


@pytest.mark.parametrize("name", lanes(["CAR", "ZeroSum"], quick=["ZeroSum"]))
def test_in_single_precision(name):
    data = {"seen": SEEN.astype(np.float32)}
    if name != "ZeroSum":
        data["w"] = ROWS[0].astype(np.float32)
    with jax.enable_x64(False):
        exact(both_roles(FAMILIES[name][0]), {"u", "z"}, **data)


def test_conditional_moments_of_a_singular_family():
    """Zero-sum effects: moments against the dense conditional, and draws that sum to zero."""
    marg = autmarg.transform(both_roles(FAMILIES["ZeroSum"][0]), keep=["z"])
    samples = {"t": np.array([0.8]), "z": np.array([0.2])}
    moments = marg.recover(jax.random.key(0), samples, SEEN, moments=True)["u"]
    prior, pick = FAMILIES["ZeroSum"][1](0.8), np.eye(4)[WHERE]
    gain = prior @ pick.T @ np.linalg.inv(pick @ prior @ pick.T + 0.49 * np.eye(7))
    np.testing.assert_allclose(moments["mean"][0].ravel(), gain @ (SEEN - 0.2), atol=1e-12)
    variance = np.diag(prior - gain @ pick @ prior)
    np.testing.assert_allclose(moments["var"][0].ravel(), variance, rtol=1e-10)
    drawn = marg.recover(jax.random.key(0), samples, SEEN)["u"]
    np.testing.assert_allclose(drawn.sum(axis=-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(drawn.sum(axis=-2), 0.0, atol=1e-12)


def latents(*priors):
    """Latents u0, u1, … with these priors, each of which the data read."""

    def model(seen=None):
        mean = 0.0
        for k, prior in enumerate(priors):
            u = jnp.ravel(numpyro.sample(f"u{k}", prior()))
            mean = mean + u[np.arange(7) % u.size]
        numpyro.sample("y", dist.Normal(mean, scale()), obs=seen)

    return model, {f"u{k}" for k in range(len(priors))}


def in_plate(prior):
    def sample():
        with numpyro.plate("plate", 3):
            return prior()

    return sample


PRIORS = {
    "CAR": (
        lambda: dist.CAR(
            0.3,
            numpyro.sample("r", dist.Uniform(0, 1).expand([2])),
            1.0,
            sparse.csr_matrix(ADJACENCY),
            is_sparse=True,
        ),
        lambda: dist.CAR(np.arange(4), 0.5, scale("q"), ADJACENCY).expand([3]),
    ),
    "LowRank, batched": (
        lambda: dist.LowRankMultivariateNormal(
            jnp.zeros((3, 4)), FACTOR, scale("q") * jnp.ones((3, 1, 4))
        ).to_event(1),
    ),
    "Matrix, batched": (
        lambda: dist.MatrixNormal(jnp.ones((2, 3)), row_factor(scale("q")), jnp.eye(3)).expand([2]),
    ),
    "ZeroSum": (
        lambda: dist.ZeroSumNormal(scale("q"), (4,)),
        lambda: dist.ZeroSumNormal(scale("p"), (3, 2)),
        lambda: dist.ZeroSumNormal(1.0, (3,)).expand([2]).to_event(1),
    ),
    "Circulant": (
        lambda: dist.CirculantNormal(
            jnp.ones(5), covariance_rfft=scale("q") * jnp.array([1.0, 2.0, 0.5])
        ),
        lambda: dist.CirculantNormal(jnp.ones((2, 4)), covariance_row=circle(1.0)),
    ),
    "Multivariate": (
        lambda: dist.MultivariateNormal(0.0, precision_matrix=scale("q") * CORRELATED).expand([2]),
        lambda: dist.MultivariateNormal(
            jnp.zeros(4), scale_tril=np.arange(1.0, 3)[:, None, None] * np.eye(4)
        ),
    ),
    "affine": (
        lambda: dist.TransformedDistribution(
            dist.Normal(0, 1).expand([4]), transforms.AffineTransform(scale("m"), -scale("q"))
        ),
        lambda: dist.TransformedDistribution(
            dist.Normal(1.0, 2.0).expand([2]).to_event(1),
            [
                transforms.LowerCholeskyAffine(jnp.ones(2), np.array([[1.0, 0], [0.5, 2]])),
                transforms.AffineTransform(0.5, np.array([1.0, -3.0])),
            ],
        ),
        lambda: dist.TransformedDistribution(
            dist.Normal(1.0, scale("p")).expand([4]).to_event(1),
            [transforms.DiscreteCosineTransform(), transforms.AffineTransform(2.0, -0.5)],
        ),
    ),
    "Normal, broadcast": (
        lambda: dist.Normal(np.array(2), scale("q") * np.ones((3, 1))).expand([3, 2]),
        lambda: dist.Normal(jnp.ones((2, 1)), jnp.ones(3) * scale("p")).to_event(2),
    ),
}


QUICK = ["Normal, broadcast"]  # the others are above, unwrapped


@pytest.mark.parametrize("name", lanes(PRIORS, QUICK))
def test_wrapped_prior(name):
    model, sites = latents(*PRIORS[name])
    exact(model, sites, seen=SEEN)


def centred(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(mu, scale("tau")).expand([4]))
    with numpyro.plate("groups", 4):
        v = numpyro.sample(
            "v",
            dist.TransformedDistribution(
                dist.Normal(0, 1), transforms.AffineTransform(mu, scale("q"))
            ),
        )
    numpyro.sample("y", dist.Normal((u + v)[WHERE], 0.7), obs=y)


@pytest.mark.parametrize("amount", lanes([0, 1, 0.3, None, "latent"], quick=["latent"]))
def test_reparameterised_by_hand(amount):
    """LocScaleReparam with a known, learned or latent centring, and TransformReparam."""

    def config(site):
        if site["name"] == "v":
            return TransformReparam()
        learned = amount in (None, "latent")
        return LocScaleReparam(None if learned else amount) if site["name"] == "u" else None

    model = handlers.reparam(centred, config=config)
    if amount == "latent":
        model = handlers.lift(model, prior={"u_centered": dist.Uniform(0, 1)})
    gone = {"mu", "u" if amount == 1 else "u_decentered", "v_base"}
    exact(model, gone, y=SEEN)


def test_equal_plans_for_equal_sparse_matrices():
    """A sparse adjacency matrix is compared by content: no new plan at each call."""

    def model(matrix):
        d = dist.CAR(0.0, 0.5, scale("q"), sparse.csr_matrix(matrix), is_sparse=True)
        numpyro.sample("y", dist.Normal(numpyro.sample("u", d)[WHERE], 1.0), obs=SEEN)

    marg = autmarg.transform(model)
    assert marg.plan(ADJACENCY) is marg.plan(ADJACENCY.copy())
    assert marg.plan(ADJACENCY) is not marg.plan(ADJACENCY + np.eye(4)[::-1])


def test_single_precision_parameters_in_a_double_precision_program():
    """NumPyro takes log(scale) in single precision then: verify's tolerance follows the source."""

    def model(y):
        u = numpyro.sample("u", dist.Normal(np.float32(1.0), np.full(4, 1.3, np.float32)))
        numpyro.sample("y", dist.Normal(u[WHERE], np.float32(0.7)), obs=y)

    report = autmarg.verify(model, SEEN, points=2, quiet=True)
    assert report.exact and report.tolerance == pytest.approx(1e-4 * 11)


# A user's own family: what docs/using.md shows.


class Exchangeable(dist.Distribution):
    """d elements of variance s² with equal correlations r."""

    support = dist.constraints.real_vector
    pytree_data_fields = ("s", "r")
    pytree_aux_fields = ("d",)

    def __init__(self, s, r, d):
        self.s, self.r, self.d = s, r, d
        super().__init__((), (d,))

    def normal(self):
        covariance = self.s**2 * (self.r + (1 - self.r) * jnp.eye(self.d))
        return dist.MultivariateNormal(jnp.zeros(self.d), covariance_matrix=covariance)

    def sample(self, key, sample_shape=()):
        return self.normal().sample(key, sample_shape)

    def log_prob(self, value):
        return self.normal().log_prob(value)


def test_a_registered_family():
    def model(y):
        u = numpyro.sample("u", Exchangeable(scale("s"), 0.5, 4))
        numpyro.sample("y", dist.Normal(u[WHERE], 0.7), obs=y)

    (refusal,) = [r for r in autmarg.transform(model).plan(SEEN).refusals if r.site == "u"]
    assert "is an Exchangeable, which autmarg does not know as Gaussian" in str(refusal)

    def family(d):
        return autmarg.Gaussian(0.0, scale_tril=d.normal().scale_tril, event_dim=1)

    autmarg.register_gaussian(Exchangeable, family)
    exact(model, {"u"}, y=SEEN)
    for known in (Exchangeable, dist.Normal, dist.LogNormal):
        with pytest.raises(autmarg.ModelError, match="registered already"):
            autmarg.register_gaussian(known, family)


def refusal_of(prior=None, likelihood=None):
    """The words for ``u`` under this prior, or below this likelihood."""

    def model(y):
        u = numpyro.sample("u", prior() if prior else dist.Normal(0, 1).expand([4]))
        d = likelihood(u) if likelihood else dist.Normal(jnp.sum(u), 1.0)
        numpyro.sample("y", d, obs=y)

    data = np.ones(4) if likelihood else np.ones(())
    (refusal,) = [r for r in autmarg.transform(model).plan(data).refusals if r.site == "u"]
    return str(refusal)


NO_PRIORS = {
    "a Gaussian through ExpTransform": lambda: dist.LogNormal(0, 1),
    "a truncated distribution, not Gaussian": lambda: dist.TruncatedNormal(0, 1, low=0.0),
    "a truncated distribution": lambda: dist.TruncatedNormal(0, 1, low=0.0, high=1.0),
    "a folded distribution, not Gaussian": lambda: dist.FoldedDistribution(dist.Normal(0, 1)),
    "a Delta, not Gaussian": lambda: dist.Delta(0.5),
    "a MultivariateStudentT, not Gaussian": lambda: dist.MultivariateStudentT(
        4.0, jnp.zeros(2), jnp.eye(2)
    ),
    "an AbsTransform of Normal, not Gaussian": lambda: dist.TransformedDistribution(
        dist.Normal(0, 1), transforms.AbsTransform()
    ),
    "an AffineTransform of Normal, which autmarg does not know": lambda: (
        dist.TransformedDistribution(
            dist.ZeroSumNormal(1.0, (3,)), transforms.AffineTransform(0.0, 2.0)
        )
    ),
    "a transform of a masked distribution, which autmarg does not know": lambda: (
        dist.TransformedDistribution(
            dist.Normal(0, 1).mask(False), transforms.AffineTransform(0.0, 2.0)
        )
    ),
}


@pytest.mark.parametrize("words", NO_PRIORS)
def test_priors_that_are_no_family(words):
    assert f") is {words}" in refusal_of(NO_PRIORS[words])


def test_likelihoods_that_are_no_family():
    def truncated(u):
        return dist.TruncatedNormal(u, 1.0, low=0.0)

    def student(u):
        return dist.MultivariateStudentT(4.0, u, jnp.eye(4))

    def latent_structure(u):
        adjacency = ADJACENCY * jnp.exp(jnp.sum(u))
        return dist.CAR(0.0, 0.5, 1.0, adjacency)

    assert "), a truncated distribution, not Gaussian" in refusal_of(likelihood=truncated)
    assert "), a MultivariateStudentT, not Gaussian" in refusal_of(likelihood=student)
    words = "whose covariance has a structure that depends on 'u'"
    assert words in refusal_of(likelihood=latent_structure)


def test_circular_reparameterisation_is_left_alone():
    def model(y):
        u = numpyro.sample("u", dist.VonMises(0.0, 3.0))
        numpyro.sample("y", dist.Normal(jnp.sin(u), scale()), obs=y)

    plan = autmarg.transform(handlers.reparam(model, config={"u": CircularReparam()})).plan(SEEN)
    assert plan.integrated == ()
