"""Small programs as strangers write them: the spellings that the analysis must see through.

Each takes ``y`` (the data, 40 rows) and is registered with the sites that must go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

_RNG = np.random.default_rng(20261123)
N = 40
# int32: an error raised inside Predictive leaves JAX with int64 indices, also in single precision.
GROUP = _RNG.integers(0, 5, N).astype(np.int32)
ITEM = _RNG.integers(0, 4, N).astype(np.int32)
X = _RNG.normal(size=N)
DESIGN = _RNG.normal(size=(N, 3))
Y = _RNG.normal(size=N)
SCHOOL_OF = np.array([0, 0, 1, 1, 2])
COUNTY = _RNG.normal(size=(5, 2))


@dataclass(frozen=True)
class Case:
    """A model of ``y`` and the latent sites that must be integrated out."""

    model: Callable[..., Any]
    integrated: frozenset[str]


CASES: dict[str, Case] = {}


def case(*integrated: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(model: Callable[..., Any]) -> Callable[..., Any]:
        CASES[model.__name__] = Case(model, frozenset(integrated))
        return model

    return register


def scale(name: str = "s") -> Any:
    return numpyro.sample(name, dist.HalfNormal(1.0))


@case("gamma", "mu", "b", "a")
def radon(y=None):
    gamma = numpyro.sample("gamma", dist.Normal(0, 1).expand([2]).to_event(1))
    mu, b = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("b", dist.Normal(0, 1))
    tau, s = scale("tau"), scale()
    with numpyro.plate("county", 5):
        a = numpyro.sample("a", dist.Normal(mu + COUNTY @ gamma, tau))
    with numpyro.plate("houses", N):
        numpyro.sample("y", dist.Normal(a[GROUP] + b * X, s), obs=y)


@case("mu", "school", "pupil")
def three_levels(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    t1, t2, s = scale("t1"), scale("t2"), scale()
    school = numpyro.sample("school", dist.Normal(mu, t1), sample_shape=(3,))
    pupil = numpyro.sample("pupil", dist.Normal(school[SCHOOL_OF], t2))
    numpyro.deterministic("effect", pupil - mu)
    numpyro.deterministic("ratio", t1 / t2)
    numpyro.sample("y", dist.Normal(pupil[GROUP], s), obs=y)


@case("mu", "u")
def heteroscedastic_groups(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    with numpyro.plate("groups", 5):
        s, u = scale(), numpyro.sample("u", dist.Normal(0, 2.0))
    with numpyro.plate("rows", N):
        numpyro.sample("y", dist.Normal(mu + u[GROUP], s[GROUP]), obs=y)


@case("b")
def distributional(y=None):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    c = numpyro.sample("c", dist.Normal(0, 0.3).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(b[0] + b[1] * X, jnp.exp(c[0] + c[1] * X)), obs=y)


@case("mu")
def kept_child(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    level = numpyro.sample("level", dist.Normal(mu, scale("tau")).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(0.0, jnp.exp(level[GROUP])), obs=y)


@case("a", "u")
def two_observed_sites(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    numpyro.sample("y", dist.Normal(a + u[GROUP], scale()), obs=y)
    numpyro.sample("w", dist.LogNormal(2 * a - u[ITEM], 0.5), obs=None if y is None else np.exp(Y))


@case("u")
def product_of_latents(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    numpyro.sample("y", dist.Normal(a * u[GROUP], scale()), obs=y)


@case("a")
def multivariate_likelihood(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([4]))
    factor = numpyro.sample("L", dist.LKJCholesky(4))
    y = None if y is None else jnp.reshape(y, (10, 4))
    with numpyro.plate("rows", 10):
        numpyro.sample("y", dist.MultivariateNormal(a, scale_tril=factor), obs=y)


@case("f")
def gaussian_process(y=None):
    t = np.linspace(0, 1, 10)
    length = numpyro.sample("length", dist.LogNormal(-1.0, 0.3))
    k = jnp.exp(-(((t[:, None] - t) / length) ** 2)) + 1e-4 * jnp.eye(10)
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(10), covariance_matrix=k))
    numpyro.sample("y", dist.Normal(jnp.tile(f, 4), scale()), obs=y)


@case("z")
def noncentred_slopes(y=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([5, 3]))
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([3]))
    factor = numpyro.sample("L", dist.LKJCholesky(3))
    u = z @ (tau[:, None] * factor).T
    numpyro.sample("y", dist.Normal(jnp.einsum("nk,nk->n", DESIGN, u[GROUP]), scale()), obs=y)


@case("u")
def masked_rows(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    with handlers.mask(mask=X > 0):
        numpyro.sample("y", dist.Normal(u[GROUP], scale()), obs=y)


@case("a", "u", "v")
def crossed_plates(y=None):
    a = numpyro.sample("a", dist.Normal(0, 3))
    s1, s2, s = scale("s1"), scale("s2"), scale()
    rows, columns = numpyro.plate("rows", 10, dim=-2), numpyro.plate("columns", 4, dim=-1)
    with rows:
        u = numpyro.sample("u", dist.Normal(0, s1))
    with columns:
        v = numpyro.sample("v", dist.Normal(0, s2))
    with rows, columns:
        y = None if y is None else jnp.reshape(y, (10, 4))
        numpyro.sample("y", dist.Normal(a + u + v, s), obs=y)


@case("e")
def random_walk(y=None):
    e = numpyro.sample("e", dist.Normal(0, 1).expand([N]))
    numpyro.sample("y", dist.Normal(jnp.cumsum(e) * scale("tau"), scale()), obs=y)


@case("u")
def sum_to_zero(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([4]))
    w = jnp.append(u, -u.sum())
    numpyro.sample("y", dist.Normal(scale("t") * (w - w.mean())[GROUP], scale()), obs=y)


@case("u", "v")
def where_and_set(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([5]))
    mean = jnp.where(X > 0, u[GROUP], v.at[3].set(0.5)[GROUP])
    numpyro.sample("y", dist.Normal(mean, scale()), obs=y)


@case("b0", "b1", "b2")
def python_loop(y=None):
    mean = 0.0
    for j in range(3):
        mean = mean + numpyro.sample(f"b{j}", dist.Normal(0, 1)) * DESIGN[:, j]
    numpyro.sample("y", dist.Normal(mean, scale()), obs=y)


@case("b")
def horseshoe(y=None):
    local = numpyro.sample("local", dist.HalfNormal(1).expand([3]))
    b = numpyro.sample("b", dist.Normal(0, local * scale("tau")))
    numpyro.sample("y", dist.Normal(jnp.dot(DESIGN, b), scale()), obs=y)


@case("u")
def one_hot(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    numpyro.sample("y", dist.Normal(np.eye(5)[GROUP] @ u, scale()), obs=y)


@case("u")
def interaction_table(y=None):
    u = numpyro.sample("u", dist.Normal(0, scale("tau")).expand([5, 4]).to_event(2))
    numpyro.sample("y", dist.Normal(u[GROUP, ITEM], scale()), obs=y)


@case("u")
def mapped_dot(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5, 3]).to_event(2))
    numpyro.sample("y", dist.Normal(jax.vmap(jnp.vdot)(DESIGN, u[GROUP]), scale()), obs=y)


@case("x", "a")
def measurement_error(y=None):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([N]))
    numpyro.sample("seen", dist.Normal(x, 0.3), obs=None if y is None else X)
    a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(a + b * x, scale()), obs=y)


@case("m", "u")
def empty_groups(y=None):
    m = numpyro.sample("m", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(m, scale("tau")).expand([9]))
    numpyro.sample("y", dist.Normal(u[GROUP], scale()), obs=y)


@case("u", "spare")
def childless(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    numpyro.sample("spare", dist.Normal(u[0], 2.0))
    numpyro.sample("y", dist.Normal(u[GROUP], scale()), obs=y)


@case("u")
def transformed_response(y=None):
    u = numpyro.sample("u", dist.Normal(0, 1).expand([5]))
    transforms = [dist.transforms.AffineTransform(1.0, 2.0), dist.transforms.SigmoidTransform()]
    fn = dist.TransformedDistribution(dist.Normal(u[GROUP], scale()), transforms)
    numpyro.sample("y", fn, obs=None if y is None else 1 / (1 + jnp.exp(-y)))


@case("u", "y_unobserved")
def missing_outcomes(y=None):
    u = numpyro.sample("u", dist.Normal(0, scale("tau")).expand([5]))
    with numpyro.plate("rows", N):
        numpyro.sample("y", dist.Normal(u[GROUP], scale()), obs=y, obs_mask=X > 0)


@case("m", "x_unobserved")
def missing_covariate(y=None):
    m, b = numpyro.sample("m", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    with numpyro.plate("rows", N):
        x = numpyro.sample("x", dist.Normal(m, 1.5), obs=X, obs_mask=ITEM > 0)
        numpyro.sample("y", dist.Normal(b * x, 0.7), obs=y)


@case("m")
def missing_covariate_of_a_count(y=None):
    m = numpyro.sample("m", dist.Normal(0, 1))
    x = numpyro.sample("x", dist.Normal(m, scale()).expand([N]), obs=X, obs_mask=ITEM > 0)
    numpyro.sample("y", dist.Poisson(jnp.exp(0.3 * x)), obs=ITEM)


@case("m", "u")
def masked_vectors_that_nothing_reads(y=None):
    m = numpyro.sample("m", dist.Normal(0, 1).expand([2]).to_event(1))
    fn = dist.MultivariateNormal(m, np.array([[1.0, 0.3], [0.3, 2.0]]))
    with numpyro.plate("groups", 5), handlers.mask(mask=np.arange(5) != 3):
        u = numpyro.sample("u", fn)
    mean = u[np.where(GROUP == 3, 2, GROUP)] @ np.array([1.0, -0.5])
    numpyro.sample("y", dist.Normal(mean, scale()), obs=y)
