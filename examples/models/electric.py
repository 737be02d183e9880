"""The electric company experiment: matched pairs of classes in four grades.

The log-scale of the noise is a latent of its own for each grade; it sits inside a scale and stays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Pair, grade and treatment of each class, the grade of each pair, and the test scores."""
    data, pairs = load("electric"), load("electric_pairs")
    return data["pair"], data["grade"], data["treatment"], pairs["grade_pair"], data["y"]


def plates(pair, grade, treatment, grade_pair, y=None):
    """Grades and pairs in plates."""
    with numpyro.plate("grades", 4):
        mua = numpyro.sample("mua", dist.Normal(0, 1))
        b = numpyro.sample("b", dist.Normal(0, 100))
        ls = numpyro.sample("ls", dist.Normal(0, 1))
    with numpyro.plate("pairs", len(grade_pair)):
        a = numpyro.sample("a", dist.Normal(100 * mua[grade_pair], 1))
    with numpyro.plate("classes", len(pair)):
        mean = a[pair] + b[grade] * treatment
        numpyro.sample("y", dist.Normal(mean, jnp.exp(ls[grade])), obs=y)


def sample_shape(pair, grade, treatment, grade_pair, y=None):
    """Latents drawn with a sample shape; the scale is taken after the exponential."""
    mua = numpyro.sample("mua", dist.Normal(0, 1), sample_shape=(4,))
    b = numpyro.sample("b", dist.Normal(0, 100), sample_shape=(4,))
    ls = numpyro.sample("ls", dist.Normal(0, 1), sample_shape=(4,))
    a = numpyro.sample("a", dist.Normal((100 * mua)[grade_pair], 1))
    sigma = jnp.exp(ls)
    numpyro.sample("y", dist.Normal(a[pair] + treatment * b[grade], sigma[grade]), obs=y)


def to_event(pair, grade, treatment, grade_pair, y=None):
    """Latents as event dimensions, read with ``take``."""
    mua = numpyro.sample("mua", dist.Normal(0, 1).expand([4]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, 100).expand([4]).to_event(1))
    ls = numpyro.sample("ls", dist.Normal(0, 1).expand([4]).to_event(1))
    a = numpyro.sample("a", dist.Normal(100 * jnp.take(mua, grade_pair), 1).to_event(1))
    mean = jnp.take(a, pair) + jnp.take(b, grade) * treatment
    sigma = jnp.exp(jnp.take(ls, grade))
    numpyro.sample("y", dist.Normal(mean, sigma).to_event(1), obs=y)


def noncentred(pair, grade, treatment, grade_pair, y=None):
    """Pairs and treatment effects as scaled standard normal sites."""
    with numpyro.plate("grades", 4):
        mua = numpyro.sample("mua", dist.Normal(0, 1))
        z_b = numpyro.sample("z_b", dist.Normal(0, 1))
        ls = numpyro.sample("ls", dist.Normal(0, 1))
    with numpyro.plate("pairs", len(grade_pair)):
        z_a = numpyro.sample("z_a", dist.Normal(0, 1))
    a = 100 * mua[grade_pair] + z_a
    b = 100 * z_b
    with numpyro.plate("classes", len(pair)):
        mean = a[pair] + b[grade] * treatment
        numpyro.sample("y", dist.Normal(mean, jnp.exp(ls[grade])), obs=y)


def design_matrix(pair, grade, treatment, grade_pair, y=None):
    """Pairs and treatment effects through the columns of design matrices."""
    Z = jax.nn.one_hot(pair, len(grade_pair))
    X = jax.nn.one_hot(grade, 4) * treatment[:, None]
    with numpyro.plate("grades", 4):
        mua = numpyro.sample("mua", dist.Normal(0, 1))
        b = numpyro.sample("b", dist.Normal(0, 100))
        ls = numpyro.sample("ls", dist.Normal(0, 1))
    with numpyro.plate("pairs", len(grade_pair)):
        a = numpyro.sample("a", dist.Normal(jax.nn.one_hot(grade_pair, 4) @ (100 * mua), 1))
    with numpyro.plate("classes", len(pair)):
        numpyro.sample("y", dist.Normal(Z @ a + X @ b, jnp.exp(ls[grade])), obs=y)


ELECTRIC = Reference(
    name="electric",
    arguments=arguments,
    spellings={
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "noncentred": noncentred,
        "design_matrix": design_matrix,
    },
    integrated={
        "plates": sites("a b mua"),
        "sample_shape": sites("a b mua"),
        "to_event": sites("a b mua"),
        "noncentred": sites("z_a z_b mua"),
        "design_matrix": sites("a b mua"),
    },
)
