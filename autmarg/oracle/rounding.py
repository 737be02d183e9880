"""What rounding a program's own numbers does to its log-density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.numpyro import compute_log_probs

TRIES = 4  # of moving all numbers at random
RELATIVE = 2e-13  # of Σ|log p_i|: a thousand roundings in double precision
MOVED = 1e-9  # of it at moved scales: where more is lost, a density is NaN (gaussian/schedule.py)

Model = Callable[..., Any]


class Terms(NamedTuple):
    """log p(θ, u, y) of a program, site by site, the rounding of their sum, and Σ|log p_i|."""

    sites: dict[str, Any]
    rounding: Any
    magnitude: Any


def terms_of(
    source: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any], values: Mapping[str, Any]
) -> Terms:
    """The log-densities of a program's sites at values of its latents, and how they round.

    All numbers move up or down by one step ε at random, the most of :data:`TRIES` tries counts:
    derivatives, which some functions lack, are not needed. The rounding is

        |log p(x ± εx) - log p(x)| + Σ_i |log p_i(± ε) - log p_i| + ε Σ_i |log p_i|,

    x the latents, i the elements of sites, each with its own parameters and value.
    """

    def at(k: Any) -> tuple[dict[str, Any], Any, Any, Any]:
        moved = {n: _moved(x, k, j) for j, (n, x) in enumerate(sorted(values.items()))}
        logs, trace = compute_log_probs(source, args, dict(kwargs), moved, sum_log_prob=False)
        sites = {name: jnp.sum(log) for name, log in logs.items()}
        own = (_own_change(trace[name], log, k) for name, log in logs.items())
        sizes = [jnp.abs(x).sum() for x in logs.values()]
        epsilons = sum(_epsilon(x) * size for x, size in zip(logs.values(), sizes, strict=True))
        return sites, sum(own), epsilons, sum(sizes)

    # One body for the program as it is (k = 0) and with its numbers moved: it is compiled once.
    sites, changes, epsilons, sizes = jax.lax.map(at, jnp.arange(1 + TRIES))
    total = sum(sites.values(), jnp.zeros(1 + TRIES))
    change = jnp.max(jnp.abs(total[1:] - total[0]) + changes[1:])
    return Terms({n: x[0] for n, x in sites.items()}, change + epsilons[0], sizes[0])


def _own_change(site: Mapping[str, Any], log: Any, k: Any) -> Any:
    """Σ |log p_i(± ε) - log p_i| over a site's elements, its parameters and value moved."""
    leaves, structure = jax.tree.flatten((site["fn"], site["value"]))
    moved = [_moved(leaf, k, 1000 + j) for j, leaf in enumerate(leaves)]
    fn, value = jax.tree.unflatten(structure, moved)
    terms = fn.log_prob(value)
    if site["scale"] is not None:
        terms = terms * site["scale"]
    return jnp.abs(terms - log).sum()


def _moved(leaf: Any, k: Any, salt: int) -> Any:
    """An array of floats, each entry a step up or down, by signs that k chooses; k = 0 for none."""
    number = isinstance(leaf, jax.Array | np.ndarray | float)
    if not number or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    x = jnp.asarray(leaf)
    # The 13th bit of a multiple of 2³² / φ: spread evenly, and a few operations to compile.
    index = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape) + jnp.uint32(salt)
    bit = (index * jnp.uint32(2654435761) * (2 * k.astype(jnp.uint32) + 1)) >> 13 & 1
    sign = jnp.where(k == 0, 0, 2 * bit.astype(jnp.int32) - 1).astype(x.dtype)
    return x * (1 + _epsilon(x) * sign)


def _epsilon(x: Any) -> Any:
    dtype = jnp.result_type(x)
    return jnp.finfo(dtype).eps if jnp.issubdtype(dtype, jnp.floating) else 0.0
