"""The quadratic form of a linear Gaussian system in scaled coordinates.

With δ = L z, z ~ N(0, I) a priori, and rows r = c - A δ of precision W,

    log p(y, z) = const - ½ (rᵀW r + zᵀz) = const - ½ (cᵀW c - 2 hᵀz + zᵀ G z),
    G = I + Lᵀ Aᵀ W A L,    h = Lᵀ Aᵀ W c,

which stays finite as a prior scale tends to zero (Bates et al. 2015, Fitting Linear Mixed-Effects
Models Using lme4, J. Stat. Softw. 67(1), section 3). Where a prior is flat there is no 1 on the
diagonal and no z² in zᵀz. G is kept as its non-zero entries, blocks of
pairs of members side by side, component-major.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian import small
from autmarg.gaussian.affine import Member
from autmarg.gaussian.pieces import gather_pieces
from autmarg.gaussian.recurrence import Dynamics


class QuadraticForm(NamedTuple):
    """zᵀGz - 2hᵀz with ``values`` the entries of G on a :class:`Pattern`, in pieces end to end.

    ``h`` [columns] is over all columns, eliminated ones included; ``log_det`` is what the columns
    eliminated so far contributed to log|G|, and ``error`` an estimate of its rounding error (see
    :func:`lost`), ``filtered`` that of rows filtered one by one; ``diagonal`` [columns] is that of
    G before any elimination, a constant for derivatives. Columns of a recurrence are unscaled (its
    states); ``dynamics`` says how its innovations make them, ``point`` is where the form is.
    """

    values: tuple[Any, ...]
    h: Any
    log_det: Any
    diagonal: Any
    dynamics: tuple[Dynamics, ...] = ()
    point: Any = None
    error: Any = 0.0
    filtered: Any = 0.0

    def read(self, index: np.ndarray) -> Any:
        """Entries of G by their place in the pattern, 0 where the place is -1."""
        return gather_pieces(self.values, index)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which entries of G may differ from zero.

    ``first`` and ``second`` are the columns of each entry; an unordered pair may be listed twice
    (the two triangles of a diagonal block), then both entries are equal.
    """

    columns: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def lookup(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Position of each unordered pair (i, j), or -1.

        Where the pairs are a run of the entries in order, so are their positions: a slice of the
        values, and not a gather.
        """
        order, keys = self._sorted
        i, j = np.broadcast_arrays(i, j)
        wanted = np.minimum(i, j) * self._stride + np.maximum(i, j)
        if not len(keys) or not wanted.size:
            return np.full(wanted.shape, -1)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[at] == wanted, order[at], -1)
        run = found.flat[0] + np.arange(found.size)
        if run[0] < 0 or run[-1] >= len(keys):
            return found
        ordered = np.array_equal(self.first[run], i.reshape(-1))
        ordered = ordered and np.array_equal(self.second[run], j.reshape(-1))
        return run.reshape(found.shape) if ordered else found

    @property
    def _stride(self) -> int:
        return int(self.columns.max(initial=0)) + 1

    @property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        cached = self.__dict__.get("_cache")
        if cached is None:
            low = np.minimum(self.first, self.second)
            keys = low * self._stride + np.maximum(self.first, self.second)
            order = np.argsort(keys, kind="stable")
            cached = (order, keys[order])
            self.__dict__["_cache"] = cached
        return cached


def lost(large: Any, pivots: Any) -> Any:
    """The rounding error of log|G| that its pivots make.

    A pivot is what is left of a number as ``large``, the diagonal of G, of which each subtraction
    leaves the rounding: its relative error is ε G_ii / pivot, and that of log|G| their sum (Higham
    2002, Accuracy and Stability of Numerical Algorithms, section 10.1). NaN where a pivot is.
    """
    large, pivots = jax.lax.stop_gradient(large), jax.lax.stop_gradient(pivots)
    return 2 * jnp.finfo(pivots.dtype).eps * (large / pivots).sum()


def scale(member: Member, prior: Any, z: Any) -> Any:
    """L z for one member: [blocks · size] from [blocks · size]."""
    z = z.reshape(member.blocks, member.size)
    if prior.ndim == 1:
        return (prior[:, None] * z).reshape(-1)
    if prior.shape[0] == 1:
        return jnp.dot(z, prior[0].T, precision="highest").reshape(-1)
    upper = jnp.moveaxis(prior, 0, -1).swapaxes(0, 1)
    return small.multiply_transposed(upper, z.T[:, None])[:, 0].T.reshape(-1)


def unscale(member: Member, prior: Any, delta: Any) -> Any:
    """L⁻¹ δ for one member: [blocks · size] from [blocks · size]."""
    delta = delta.reshape(member.blocks, member.size)
    if prior.ndim == 1:
        return (delta / prior[:, None]).reshape(-1)
    matrices = jnp.broadcast_to(prior, (member.blocks, *prior.shape[1:]))
    return jnp.linalg.solve(matrices, delta[..., None])[..., 0].reshape(-1)


def log_scale(member: Member, prior: Any) -> Any:
    """log|L| over all blocks of one member."""
    logs = jnp.log(prior) if prior.ndim == 1 else jnp.linalg.slogdet(prior)[1]
    return logs.sum() * (member.blocks if prior.shape[0] == 1 else 1)
