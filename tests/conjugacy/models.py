"""Programs with conjugacies: two spellings of every rule, each a function of its own sites.

``FIRST`` are plates of parents, one child each, as NumPyro's documentation would write them;
``SECOND`` have other spellings, shapes, exposures, masks and indices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logit

G = np.array([0, 2, 1, 1, 0, 2, 2, 3])  # element 4 of a parent has no child
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(3.0, 8)
SIZES = COUNTS + RNG.poisson(2.0, 8)
BINARY = RNG.integers(0, 2, 8)
REALS = RNG.normal(size=8)
POSITIVES = RNG.gamma(2.0, size=8)
LABELS = RNG.integers(0, 3, 8)
TABLE = RNG.multinomial(9, [0.2, 0.3, 0.5], 4)
EXPOSURE = np.linspace(0.5, 2.0, 8)


PARENTS = {"bb", "bb_flat", "bi", "ge", "nb", "dc", "dm", "gx", "gg", "gn", "gp", "in", "pu"}


def hyper(name, scale=2.0):
    return numpyro.sample(name, dist.LogNormal(0.0, 0.3)) * scale


def beta_bernoulli():
    with numpyro.plate("bb_g", 5):
        p = numpyro.sample("bb", dist.Beta(hyper("bb_a"), 1.5))
    numpyro.sample("bb_y", dist.Bernoulli(p[G]), obs=BINARY)


def beta_bernoulli_by_logits():
    p = numpyro.sample("bb", dist.Beta(hyper("bb_a"), hyper("bb_b")))
    q = numpyro.sample("bb_flat", dist.Uniform(0, 1))  # Beta(1, 1)
    with numpyro.plate("bb_rows", 8):
        numpyro.sample("bb_y", dist.Bernoulli(logits=logit(p)), obs=BINARY)
        numpyro.sample("bb_z", dist.Bernoulli(logits=jnp.log(q) - jnp.log1p(-q)), obs=BINARY)


def beta_binomial():
    a, b = hyper("bi_a"), hyper("bi_b")
    with numpyro.plate("bi_g", 8):
        p = numpyro.sample("bi", dist.Beta(a, b))
        numpyro.deterministic("bi_odds", p / (1 - p))
        numpyro.sample("bi_y", dist.Binomial(SIZES, p), obs=COUNTS)


def beta_binomial_by_logits():
    p = numpyro.sample("bi", dist.Beta(hyper("bi_a"), np.arange(1.0, 6.0)).to_event(1))
    fn = dist.Binomial(SIZES, logits=jnp.log(p[G] / (1 - p[G]))).mask(G < 3)
    numpyro.sample("bi_y", fn, obs=COUNTS)


def beta_geometric():
    with numpyro.plate("ge_g", 5):
        p = numpyro.sample("ge", dist.Beta(hyper("ge_a"), 2.0))
    numpyro.sample("ge_y", dist.Geometric(p[G]), obs=COUNTS)


def beta_geometric_by_logits():
    p = numpyro.sample("ge", dist.Beta(hyper("ge_a"), 2.0), sample_shape=(2, 4))
    odds = p / (1.0 - p)
    numpyro.sample("ge_y", dist.Geometric(logits=jnp.log(odds)), obs=COUNTS.reshape(2, 4))


def beta_negative_binomial():
    with numpyro.plate("nb_g", 5):
        p = numpyro.sample("nb", dist.Beta(hyper("nb_a"), 2.0))
    numpyro.sample("nb_y", dist.NegativeBinomialProbs(hyper("nb_r"), p[G]), obs=COUNTS)


def beta_negative_binomial_by_logits():
    p = numpyro.sample("nb", dist.Beta(2.0, hyper("nb_b")))
    with numpyro.plate("nb_rows", 8):
        numpyro.sample("nb_y", dist.NegativeBinomialLogits(EXPOSURE, logit(p)), obs=COUNTS)


def dirichlet_categorical():
    p = numpyro.sample("dc", dist.Dirichlet(hyper("dc_a") * jnp.ones(3)))
    with numpyro.plate("dc_rows", 8):
        numpyro.sample("dc_y", dist.Categorical(p), obs=LABELS)


def dirichlet_categorical_by_logits():
    a = hyper("dc_a")
    with numpyro.plate("dc_g", 5):
        p = numpyro.sample("dc", dist.Dirichlet(a * jnp.array([1.0, 2.0, 0.5])))
    numpyro.sample("dc_y", dist.Categorical(logits=jnp.log(p)[G]), obs=LABELS)


def dirichlet_multinomial():
    a = hyper("dm_a")
    with numpyro.plate("dm_g", 4):
        p = numpyro.sample("dm", dist.Dirichlet(a * jnp.ones(3)))
        numpyro.sample("dm_y", dist.Multinomial(TABLE.sum(1), p, total_count_max=9), obs=TABLE)


def dirichlet_multinomial_by_logits():
    p = numpyro.sample("dm", dist.Dirichlet(hyper("dm_a") * jnp.ones((2, 3))).to_event(1))
    fn = dist.Multinomial(
        TABLE.sum(1), logits=jnp.log(p)[np.array([0, 1, 1, 0])], total_count_max=9
    )
    numpyro.sample("dm_y", fn, obs=TABLE)


def gamma_poisson():
    with numpyro.plate("gp_g", 8):
        x = numpyro.sample("gp", dist.Gamma(hyper("gp_a"), hyper("gp_b")))
        numpyro.sample("gp_y", dist.Poisson(EXPOSURE * x), obs=COUNTS)


def gamma_poisson_with_a_latent_exposure():
    """Exposure by a regression, two child sites of one parent, the other way round."""
    x = numpyro.sample("gp", dist.Gamma(2.0, hyper("gp_b")).expand([5]).to_event(1))
    beta = numpyro.sample("gp_beta", dist.Normal(0, 0.5))
    numpyro.sample("gp_y", dist.Poisson(jnp.exp(jnp.log(x)[G] + beta * EXPOSURE)), obs=COUNTS)
    numpyro.sample("gp_z", dist.Poisson(x[0] / hyper("gp_c")), obs=3)
    numpyro.sample("gp_t", dist.Exponential(2 * x[1:3]), obs=POSITIVES[:2])


def gamma_exponential():
    with numpyro.plate("gx_g", 5):
        x = numpyro.sample("gx", dist.Gamma(hyper("gx_a"), hyper("gx_b")))
    numpyro.sample("gx_y", dist.Exponential(x[G]), obs=POSITIVES)


def gamma_exponential_by_scale():
    x = numpyro.sample("gx", dist.Exponential(hyper("gx_b")))  # Gamma(1, b)
    numpyro.sample("gx_y", dist.Exponential(x * EXPOSURE), obs=POSITIVES)


def gamma_gamma():
    with numpyro.plate("gg_g", 5):
        x = numpyro.sample("gg", dist.Gamma(hyper("gg_a"), hyper("gg_b")))
    numpyro.sample("gg_y", dist.Gamma(2.5, x[G]), obs=POSITIVES)


def gamma_gamma_with_a_latent_shape():
    x = numpyro.sample("gg", dist.Gamma(hyper("gg_a"), 3.0))
    numpyro.sample("gg_y", dist.Gamma(hyper("gg_k"), EXPOSURE / (1 / x)), obs=POSITIVES)


def gamma_normal():
    with numpyro.plate("gn_g", 5):
        tau = numpyro.sample("gn", dist.Gamma(hyper("gn_a"), hyper("gn_b")))
    mu = jnp.sin(hyper("gn_m"))
    numpyro.sample("gn_y", dist.Normal(mu, 1 / jnp.sqrt(tau[G])), obs=REALS)


def gamma_normal_in_other_words():
    """Four children of one precision, each with a scale in a spelling of its own."""
    tau = numpyro.sample("gn", dist.Gamma(hyper("gn_a"), 2.0))
    numpyro.sample("gn_y", dist.Normal(0.3, tau**-0.5), obs=REALS)
    numpyro.sample("gn_z", dist.Normal(0.3, jax.lax.rsqrt(tau) * EXPOSURE), obs=REALS)
    numpyro.sample("gn_u", dist.Normal(0.3, jnp.exp(-0.5 * jnp.log(tau))), obs=REALS)
    numpyro.sample("gn_w", dist.Normal(0.3, jnp.sqrt(4 / tau) / hyper("gn_c")), obs=REALS)


def inverse_gamma_normal():
    with numpyro.plate("in_g", 5):
        v = numpyro.sample("in", dist.InverseGamma(hyper("in_a"), hyper("in_b")))
    numpyro.sample("in_y", dist.Normal(0.0, jnp.sqrt(v)[G]), obs=REALS)


def inverse_gamma_normal_with_weights():
    v = numpyro.sample("in", dist.InverseGamma(3.0, hyper("in_b")))
    with numpyro.plate("in_rows", 8):
        numpyro.sample("in_y", dist.Normal(hyper("in_m"), (v / EXPOSURE) ** 0.5), obs=REALS)


def pareto_uniform():
    with numpyro.plate("pu_g", 5):
        x = numpyro.sample("pu", dist.Pareto(hyper("pu_m"), hyper("pu_k")))
    numpyro.sample("pu_y", dist.Uniform(0.0, x[G]), obs=jnp.asarray(POSITIVES))


def pareto_uniform_of_one():
    x = numpyro.sample("pu", dist.Pareto(0.5, hyper("pu_k")))
    numpyro.sample("pu_y", dist.Uniform(0, x).expand([8]), obs=jnp.asarray(POSITIVES))


FIRST = (
    beta_bernoulli, beta_binomial, beta_geometric, beta_negative_binomial, dirichlet_categorical,
    dirichlet_multinomial, gamma_exponential, gamma_gamma, gamma_normal, gamma_poisson,
    inverse_gamma_normal, pareto_uniform,
)  # fmt: skip
SECOND = (
    beta_bernoulli_by_logits, beta_binomial_by_logits, beta_geometric_by_logits,
    beta_negative_binomial_by_logits, dirichlet_categorical_by_logits,
    dirichlet_multinomial_by_logits, gamma_exponential_by_scale, gamma_gamma_with_a_latent_shape,
    gamma_normal_in_other_words, gamma_poisson_with_a_latent_exposure,
    inverse_gamma_normal_with_weights, pareto_uniform_of_one,
)  # fmt: skip


def values_of(latents, seed=0):
    """A possible value for each latent of these programs."""
    rng = np.random.default_rng(seed)
    out = {}
    for node in latents:
        prior, own = node.name.split("_")[0], node.name in PARENTS
        if own and prior in ("bb", "bi", "ge", "nb"):
            value = rng.uniform(0.05, 0.95, node.shape)
        elif own and prior in ("dc", "dm"):
            value = rng.dirichlet(np.ones(3), node.shape[:-1])
        elif own and prior == "pu":
            value = POSITIVES.max() + rng.uniform(0.1, 3, node.shape)
        else:
            value = rng.uniform(0.4, 2.5, node.shape)
        out[node.name] = jnp.asarray(value)
    return out
