"""Ticks on grouse chicks: broods nested in locations, with unknown group means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Brood and location of each chick, year, centred height, and the number of ticks."""
    data = load("grouseticks")
    return tuple(data[c] for c in ("brood", "location", "year", "cheight", "ticks"))


def group_priors():
    """Means and scales of the two grouping factors, and the scale of the noise."""
    m_b = numpyro.sample("m_b", dist.Normal(0, 1))
    s_b = numpyro.sample("s_b", dist.HalfCauchy(5))
    m_l = numpyro.sample("m_l", dist.Normal(0, 1))
    s_l = numpyro.sample("s_l", dist.HalfCauchy(5))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(5))
    return m_b, s_b, m_l, s_l, sigma


def covariate_effects():
    """The effects of year and of height."""
    return numpyro.sample("y", dist.Normal(0, 1)), numpyro.sample("h", dist.Normal(0, 1))


def plates(brood_of, location_of, year, cheight, ticks=None):
    """Each random effect in a plate of its own, centred."""
    m_b, s_b, m_l, s_l, sigma = group_priors()
    y, h = covariate_effects()
    with numpyro.plate("broods", len(np.unique(brood_of))):
        brood = numpyro.sample("brood", dist.Normal(m_b, s_b))
    with numpyro.plate("locations", len(np.unique(location_of))):
        location = numpyro.sample("location", dist.Normal(m_l, s_l))
    with numpyro.plate("chicks", len(year)):
        mean = brood[brood_of] + location[location_of] + year * y + cheight * h
        numpyro.sample("ticks", dist.Normal(mean, sigma), obs=ticks)


def sample_shape(brood_of, location_of, year, cheight, ticks=None):
    """Random effects drawn with a sample shape."""
    m_b, s_b, m_l, s_l, sigma = group_priors()
    y, h = covariate_effects()
    n_broods, n_locations = len(np.unique(brood_of)), len(np.unique(location_of))
    brood = numpyro.sample("brood", dist.Normal(m_b, s_b), sample_shape=(n_broods,))
    location = numpyro.sample("location", dist.Normal(m_l, s_l), sample_shape=(n_locations,))
    mean = brood[brood_of] + location[location_of] + year * y + cheight * h
    numpyro.sample("ticks", dist.Normal(mean, sigma), obs=ticks)


def to_event(brood_of, location_of, year, cheight, ticks=None):
    """Random effects as event dimensions, read with ``take``."""
    m_b, s_b, m_l, s_l, sigma = group_priors()
    y, h = covariate_effects()
    n_broods, n_locations = len(np.unique(brood_of)), len(np.unique(location_of))
    brood = numpyro.sample("brood", dist.Normal(m_b, s_b).expand([n_broods]).to_event(1))
    location = numpyro.sample("location", dist.Normal(m_l, s_l).expand([n_locations]).to_event(1))
    mean = jnp.take(brood, brood_of) + jnp.take(location, location_of) + year * y + cheight * h
    numpyro.sample("ticks", dist.Normal(mean, sigma).to_event(1), obs=ticks)


def noncentred(brood_of, location_of, year, cheight, ticks=None):
    """Standard normal sites times their scales."""
    m_b, s_b, m_l, s_l, sigma = group_priors()
    y, h = covariate_effects()
    with numpyro.plate("broods", len(np.unique(brood_of))):
        z_brood = numpyro.sample("z_brood", dist.Normal(0, 1))
        brood = m_b + s_b * z_brood
    with numpyro.plate("locations", len(np.unique(location_of))):
        z_location = numpyro.sample("z_location", dist.Normal(0, 1))
        location = m_l + s_l * z_location
    with numpyro.plate("chicks", len(year)):
        mean = brood[brood_of] + location[location_of] + year * y + cheight * h
        numpyro.sample("ticks", dist.Normal(mean, sigma), obs=ticks)


def nested(brood_of, location_of, year, cheight, ticks=None):
    """Broods centred on their location, since each brood lies in one."""
    m_b, s_b, m_l, s_l, sigma = group_priors()
    y, h = covariate_effects()
    _, first_chick = np.unique(brood_of, return_index=True)
    location_of_brood = location_of[first_chick]
    with numpyro.plate("locations", len(np.unique(location_of))):
        location = numpyro.sample("location", dist.Normal(m_l, s_l))
    with numpyro.plate("broods", len(location_of_brood)):
        brood = numpyro.sample("brood", dist.Normal(m_b + location[location_of_brood], s_b))
    with numpyro.plate("chicks", len(year)):
        mean = brood[brood_of] + year * y + cheight * h
        numpyro.sample("ticks", dist.Normal(mean, sigma), obs=ticks)


def design_matrix(brood_of, location_of, year, cheight, ticks=None):
    """Fixed effects as ``X @ beta``, random effects through indicator columns."""
    m_b, s_b, m_l, s_l, sigma = group_priors()
    X = np.column_stack([year, cheight])
    Z_brood = jax.nn.one_hot(brood_of, len(np.unique(brood_of)))
    Z_location = jax.nn.one_hot(location_of, len(np.unique(location_of)))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
    brood = numpyro.sample("brood", dist.Normal(m_b, s_b).expand([Z_brood.shape[1]]))
    location = numpyro.sample("location", dist.Normal(m_l, s_l).expand([Z_location.shape[1]]))
    with numpyro.plate("chicks", len(year)):
        mean = X @ beta + Z_brood @ brood + Z_location @ location
        numpyro.sample("ticks", dist.Normal(mean, sigma), obs=ticks)


GROUSETICKS = Reference(
    name="grouseticks",
    arguments=arguments,
    spellings={
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "noncentred": noncentred,
        "nested": nested,
        "design_matrix": design_matrix,
    },
    integrated={
        "plates": sites("brood location m_b m_l y h"),
        "sample_shape": sites("brood location m_b m_l y h"),
        "to_event": sites("brood location m_b m_l y h"),
        "noncentred": sites("z_brood z_location m_b m_l y h"),
        "nested": sites("brood location m_b m_l y h"),
        "design_matrix": sites("brood location m_b m_l beta"),
    },
)
