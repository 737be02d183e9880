"""Marginalisation written by hand, as people do without a compiler.

For a linear Gaussian model whose rows read one level of a grouping factor each,

    y_i = m_i + z_iᵀ δ_l(i) + ε_i,    δ_l ~ N(0, T_l T_lᵀ),    ε_i ~ N(0, σ_i²),

with m_i the mean where the effects are at their prior mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from examples.models.reference import Model


@dataclass(frozen=True, eq=False)
class Factor:
    """A grouping factor: its effects' sites, each row's level [N], and their columns [N, d]."""

    effects: tuple[str, ...]
    level: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, effects: str, level: Any, columns: Sequence[Any]) -> Factor:
        """From names with blanks between them, and columns of which None is one of ones."""
        ones = np.ones(len(level))
        stacked = np.column_stack([ones if c is None else c for c in columns])
        return cls(tuple(effects.split()), np.asarray(level), stacked)

    @property
    def levels(self) -> int:
        return int(self.level.max()) + 1

    @property
    def size(self) -> int:
        """Levels times effects of a level."""
        return self.levels * self.columns.shape[1]


def _plain(fn: Any) -> Any:
    """A distribution without expansion and event dimensions."""
    while isinstance(fn, dist.ExpandedDistribution | dist.Independent):
        fn = fn.base_dist
    return fn


def _cholesky(fns: Sequence[Any], levels: int) -> Any:
    """T [levels, d, d] of the effects of one factor."""
    plain = [_plain(fn) for fn in fns]
    if isinstance(plain[0], dist.MultivariateNormal):
        tril = plain[0].scale_tril
        return jnp.broadcast_to(tril, (levels, *tril.shape[-2:]))
    scales = jnp.stack([jnp.broadcast_to(fn.scale, (levels,)) for fn in plain], axis=-1)
    return scales[:, :, None] * jnp.eye(len(plain))


class _Apart(numpyro.primitives.Messenger):
    """Hides the effects (at their prior mean) and the observed site, and keeps both."""

    def __init__(self, fn: Model, effects: Sequence[str], observed: str) -> None:
        super().__init__(fn)
        self.names, self.sites = {*effects, observed}, {}
        self.observed = observed

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg.get("name") in self.names:
            if msg["name"] != self.observed:
                msg["value"] = jnp.broadcast_to(msg["fn"].mean, msg["fn"].shape())
            msg["stop"] = True
            self.sites[msg["name"]] = msg


def _apart(model: Model, factors: Sequence[Factor], observed: str, args: Any) -> Any:
    """(residual [N], sd [N], log-Jacobian, T of each factor, means of each factor's effects)."""
    apart = _Apart(model, [e for f in factors for e in f.effects], observed)
    apart(*args)
    site = apart.sites[observed]
    fn, y = _plain(site["fn"]), jnp.asarray(site["value"])
    jacobian = 0.0
    if isinstance(fn, dist.LogNormal):
        y, fn = jnp.log(y), dist.Normal(fn.loc, fn.scale)
        jacobian = -y.sum()
    sd = jnp.broadcast_to(fn.scale, y.shape)
    trils = [_cholesky([apart.sites[e]["fn"] for e in f.effects], f.levels) for f in factors]
    means = [[apart.sites[e]["value"] for e in f.effects] for f in factors]
    return y - fn.loc, sd, jacobian, trils, means


def _posterior(factor: Factor, residual: Any, sd: Any, T: Any) -> tuple[Any, Any]:
    """Cholesky factor of I + TᵀΣzzᵀ/σ²T and Tᵀ Σ z r/σ², of each level: a pass over all rows."""
    d = factor.columns.shape[1]
    z = jnp.asarray(factor.columns) / sd[:, None]
    zz = jnp.zeros((factor.levels, d, d)).at[factor.level].add(z[:, :, None] * z[:, None, :])
    zr = jnp.zeros((factor.levels, d)).at[factor.level].add(z * (residual / sd)[:, None])
    M = jnp.eye(d) + jnp.swapaxes(T, -1, -2) @ zz @ T
    return jnp.linalg.cholesky(M), jnp.einsum("lji,lj->li", T, zr)


def single_class(model: Model, factor: Factor, observed: str) -> Model:
    """The model with one grouping factor integrated out by hand, the rest as it is.

    The integration of one class of effects of Lai, Domke and Sheldon (2024), section 3: at each
    step every row is scattered into its level's d×d matrix.
    """

    def marginal(*args: Any) -> None:
        residual, sd, jacobian, (T,), _ = _apart(model, [factor], observed, args)
        L, h = _posterior(factor, residual, sd, T)
        half = jax.scipy.linalg.solve_triangular(L, h[..., None], lower=True)
        log_det = 2 * jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1)).sum()
        rows = dist.Normal(0.0, sd).log_prob(residual).sum() + jacobian
        numpyro.factor(observed, rows + 0.5 * ((half**2).sum() - log_det))

    return marginal


def recover_single_class(model: Model, factor: Factor, observed: str, key: Any, draws: Any, args):
    """Draws of the effects that :func:`single_class` integrated out, beside those given."""

    def one(key: Any, kept: dict[str, Any]) -> dict[str, Any]:
        with handlers.block():
            given = handlers.seed(handlers.substitute(model, data=kept), 0)
            residual, sd, _, (T,), (means,) = _apart(given, [factor], observed, args)
        L, h = _posterior(factor, residual, sd, T)
        noise = jax.random.normal(key, h.shape)
        half = jax.scipy.linalg.solve_triangular(L, h[..., None], lower=True) + noise[..., None]
        z = jax.scipy.linalg.solve_triangular(L, half, trans=1, lower=True)
        delta = (T @ z)[..., 0]
        if len(factor.effects) == 1:
            return {factor.effects[0]: means[0] + delta.reshape(jnp.shape(means[0]))}
        return {
            e: m + delta[:, k] for k, (e, m) in enumerate(zip(factor.effects, means, strict=True))
        }

    keys = jax.random.split(key, len(next(iter(draws.values()))))
    return {**draws, **jax.jit(jax.vmap(one))(keys, draws)}


def dense(model: Model, factors: Sequence[Factor], observed: str) -> Model:
    """The model with all random effects in one N×N covariance matrix of the data."""
    same = [jnp.asarray(f.level[:, None] == f.level[None, :]) for f in factors]

    def marginal(*args: Any) -> None:
        residual, sd, jacobian, trils, _ = _apart(model, factors, observed, args)
        covariance = jnp.diag(sd**2)
        for factor, T, both in zip(factors, trils, same, strict=True):
            z = jnp.einsum("nd,nde->ne", factor.columns, T[factor.level])
            covariance += jnp.where(both, z @ z.T, 0.0)
        normal = dist.MultivariateNormal(0.0, covariance)
        numpyro.factor(observed, normal.log_prob(residual) + jacobian)

    return marginal
