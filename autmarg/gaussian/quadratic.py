"""The quadratic form of a linear Gaussian system in scaled coordinates.

With δ = L z, z ~ N(0, I) a priori, and rows r = A δ + c of precision W,

    log p(y, z) = const - ½ (rᵀW r + zᵀz) = const - ½ (cᵀW c - 2 hᵀz + zᵀ G z),
    G = I + Lᵀ Aᵀ W A L,    h = -Lᵀ Aᵀ W c,

which stays finite as a prior scale tends to zero (Bates et al. 2015, Fitting Linear Mixed-Effects
Models Using lme4, J. Stat. Softw. 67(1), section 3). Where a prior is flat there is no 1 on the
diagonal and no z² in zᵀz. G is kept as its non-zero entries, blocks of
pairs of members side by side, component-major.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.affine import Member, Point
from autmarg.gaussian.chains.recurrence import Dynamics
from autmarg.gaussian.pieces import gather_pieces

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class QuadraticForm(NamedTuple):
    """zᵀGz - 2hᵀz.

    ``values`` are the entries of G on a :class:`~autmarg.gaussian.pattern.Pattern`, in pieces.
    ``h`` [columns] is over all columns, eliminated ones included; ``log_det`` is what the columns
    eliminated so far contributed to log|G|, and ``error`` an estimate of its rounding error (see
    :func:`lost`), ``filtered`` that of rows filtered one by one; ``diagonal`` [columns] is that of
    G before any elimination, a constant for derivatives. Columns of a recurrence are unscaled (its
    states); ``dynamics`` says how its innovations make them, ``point`` is where the form is.
    """

    values: tuple[Float[Array, "..."], ...]
    h: Float[Array, "columns"]
    log_det: Float[Array, ""]
    diagonal: Float[Array, "columns"]
    dynamics: tuple[Dynamics, ...] = ()
    point: Point | None = None
    error: Float[Array, ""] | float = 0.0
    filtered: Float[Array, ""] | float = 0.0

    def read(self, index: Int[np.ndarray, "*places"]) -> Float[Array, "*places"]:
        """Entries of G by their place in the pattern, 0 where the place is -1."""
        return gather_pieces(self.values, index)


def lost(large: Float[Array, "*pivots"], pivots: Float[Array, "*pivots"]) -> Float[Array, ""]:
    """The rounding error of log|G| that its pivots make.

    A pivot is what is left of a number as ``large``, the diagonal of G, of which each subtraction
    leaves the rounding: its relative error is ε G_ii / pivot, and that of log|G| their sum (Higham
    2002, Accuracy and Stability of Numerical Algorithms, section 10.1). NaN where a pivot is.
    """
    large, pivots = jax.lax.stop_gradient(large), jax.lax.stop_gradient(pivots)
    return 2 * jnp.finfo(pivots.dtype).eps * (large / pivots).sum()


def scale(
    member: Member, prior: Float[Array, "#blocks *dd"], z: Float[Array, "blocks*size"]
) -> Float[Array, "blocks*size"]:
    """L z for one member: [blocks · size] from [blocks · size]."""
    z = z.reshape(member.blocks, member.size)
    if prior.ndim == 1:
        return (prior[:, None] * z).reshape(-1)
    if prior.shape[0] == 1:
        return jnp.dot(z, prior[0].T, precision="highest").reshape(-1)
    upper = jnp.moveaxis(prior, 0, -1).swapaxes(0, 1)
    return small.multiply_transposed(upper, z.T[:, None])[:, 0].T.reshape(-1)


def unscale(
    member: Member, prior: Float[Array, "#blocks *dd"], delta: Float[Array, "blocks*size"]
) -> Float[Array, "blocks*size"]:
    """L⁻¹ δ for one member: [blocks · size] from [blocks · size]."""
    delta = delta.reshape(member.blocks, member.size)
    if prior.ndim == 1:
        return (delta / prior[:, None]).reshape(-1)
    matrices = jnp.broadcast_to(prior, (member.blocks, *prior.shape[1:]))
    return jnp.linalg.solve(matrices, delta[..., None])[..., 0].reshape(-1)


def log_scale(member: Member, prior: Float[Array, "#blocks *dd"]) -> Float[Array, ""]:
    """log|L| over all blocks of one member that a density counts."""
    counted = member.counted
    if prior.shape[0] > 1 and len(counted) < member.blocks:
        prior = prior[counted]
    logs = jnp.log(prior) if prior.ndim == 1 else jnp.linalg.slogdet(prior)[1]
    return logs.sum() * (len(counted) if prior.shape[0] == 1 else 1)
