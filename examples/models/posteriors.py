"""Models with published reference posteriors, as their authors wrote them, in NumPyro's words.

Data and references are posteriordb's (Magnusson et al. 2024, arXiv:2407.04967) and those of
inference_gym, in TensorFlow Probability. Sites have the names of the references.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan


def gp_pois_regr(x: np.ndarray, k: np.ndarray) -> None:
    """Counts with a Gaussian process as log rate (posteriordb)."""
    rho = numpyro.sample("rho", dist.Gamma(25, 4))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2))
    distance = (x[:, None] - x) / rho
    cov = alpha**2 * jnp.exp(-0.5 * distance**2) + 1e-10 * jnp.eye(len(x))
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(len(x)), cov))
    numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def item_response_theory(student: np.ndarray, question: np.ndarray, correct: np.ndarray) -> None:
    """Abilities of students and difficulties of questions (inference_gym)."""
    mean = numpyro.sample("mean_student_ability", dist.Normal(0.75, 1))
    with numpyro.plate("students", int(student.max()) + 1):
        ability = numpyro.sample("centered_student_ability", dist.Normal(0, 1))
    with numpyro.plate("questions", int(question.max()) + 1):
        difficulty = numpyro.sample("question_difficulty", dist.Normal(0, 1))
    logits = mean + ability[student] - difficulty[question]
    numpyro.sample("correct", dist.Bernoulli(logits=logits), obs=correct)


def stochastic_volatility(returns: np.ndarray) -> None:
    """Log-variances of daily returns are an autoregression around their mean (inference_gym)."""
    to_phi = dist.transforms.AffineTransform(-1.0, 2.0, domain=dist.constraints.unit_interval)
    phi_prior = dist.TransformedDistribution(dist.Beta(20.0, 1.5), to_phi)
    phi = numpyro.sample("persistence_of_volatility", phi_prior)
    mean = numpyro.sample("mean_log_volatility", dist.Cauchy(0.0, 5.0))
    shock = numpyro.sample("white_noise_shock_scale", dist.HalfCauchy(2.0))
    first = numpyro.sample("first", dist.Normal(mean, shock / jnp.sqrt(1 - phi**2)))
    numpyro.sample("first_return", dist.Normal(0.0, jnp.exp(first / 2)), obs=returns[0])

    def day(last: jax.Array, seen: jax.Array) -> tuple[jax.Array, None]:
        now = numpyro.sample("later", dist.Normal(mean + phi * (last - mean), shock))
        numpyro.sample("return", dist.Normal(0.0, jnp.exp(now / 2)), obs=seen)
        return now, None

    scan(day, first, returns[1:])


def log_gaussian_cox_process(locations: np.ndarray, counts: np.ndarray) -> None:
    """Counts on a grid, with a Matérn process as log intensity (inference_gym)."""
    amplitude = numpyro.sample("amplitude", dist.LogNormal(-1.0, 0.5))
    length = numpyro.sample("length_scale", dist.LogNormal(-1.0, 1.0))
    distance = np.linalg.norm(locations[:, None] - locations, axis=-1)
    near = jnp.sqrt(3.0) * distance / (length + 0.001)
    cov = (amplitude + 0.001) ** 2 * (1 + near) * jnp.exp(-near) + 1e-6 * np.eye(len(counts))
    mean = np.full(len(counts), np.log(counts).mean())
    f = numpyro.sample("log_intensity", dist.MultivariateNormal(mean, cov))
    numpyro.sample("counts", dist.Poisson(jnp.exp(f)), obs=counts)


def _effects(plate: str, name: str, size: int, mean, sd, centred: bool) -> jax.Array:
    """Effects N(mean, sd²), from standard noise where they are not centred."""
    with numpyro.plate(plate, size):
        if centred:
            return numpyro.sample(name, dist.Normal(mean, sd))
        noise = numpyro.sample(f"z_{name}", dist.Normal(0, 1))
        return numpyro.deterministic(name, mean + sd * noise)


def seeds(x1, x2, trials, sprouted=None, *, centred: bool = True) -> None:
    """Germination on 21 plates (posteriordb's seeds_stanified_model)."""
    a0, a1, a2, a12 = (
        numpyro.sample(f"alpha{i}", dist.Normal(0, 1)) for i in ("0", "1", "2", "12")
    )
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1))
    b = _effects("plates", "b", len(trials), 0.0, sigma, centred)
    logits = a0 + a1 * x1 + a2 * x2 + a12 * x1 * x2 + b
    numpyro.sample("n", dist.Binomial(trials, logits=logits), obs=sprouted)


def surgical(operations, deaths=None, *, centred: bool = True) -> None:
    """Deaths after operations in twelve hospitals (posteriordb's surgical_model)."""
    mu = numpyro.sample("mu", dist.Normal(0, 1000))
    variance = numpyro.sample("sigmasq", dist.InverseGamma(0.001, 0.001))
    b = _effects("hospitals", "b", len(operations), mu, jnp.sqrt(variance), centred)
    numpyro.sample("r", dist.Binomial(operations, logits=b), obs=deaths)


def falcons(year, count=None, *, centred: bool = True) -> None:
    """Counts in 40 years, a cubic trend, year effects (posteriordb's GLMM_Poisson_model)."""
    alpha = numpyro.sample("alpha", dist.Uniform(-20, 20))
    b1 = numpyro.sample("beta1", dist.Uniform(-10, 10))
    b2 = numpyro.sample("beta2", dist.Uniform(-10, 20))
    b3 = numpyro.sample("beta3", dist.Uniform(-10, 10))
    sigma = numpyro.sample("sigma", dist.Uniform(0, 5))
    eps = _effects("years", "eps", len(year), 0.0, sigma, centred)
    log_rate = alpha + b1 * year + b2 * year**2 + b3 * year**3 + eps
    numpyro.sample("C", dist.Poisson(jnp.exp(log_rate)), obs=count)


def irt_2pl(y: np.ndarray, *, centred: bool = True) -> None:
    """Two parameters for each item, persons in columns (posteriordb)."""
    items, persons = y.shape
    sigma_theta = numpyro.sample("sigma_theta", dist.HalfCauchy(2))
    theta = _effects("persons", "theta", persons, 0.0, sigma_theta, centred)
    sigma_a = numpyro.sample("sigma_a", dist.HalfCauchy(2))
    with numpyro.plate("slopes", items):
        a = numpyro.sample("a", dist.LogNormal(0, sigma_a))
    mu_b = numpyro.sample("mu_b", dist.Normal(0, 5))
    sigma_b = numpyro.sample("sigma_b", dist.HalfCauchy(2))
    b = _effects("items", "b", items, mu_b, sigma_b, centred)
    numpyro.sample("y", dist.Bernoulli(logits=a[:, None] * (theta - b[:, None])), obs=y)
