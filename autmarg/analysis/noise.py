"""Whitening of rows whose noise is correlated within groups.

Three cases, by what is known when the plan is made: a known factor is divided out of the rows'
coefficients; a small factor that depends on kept latents becomes lookups into its inverse, so that
cross-products can still be added up over groups; a large one is left to every step
(:class:`~autmarg.gaussian.terms.whitened.Whitened`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, Lookup, Opaque, Term
from autmarg.gaussian.ragged import distinct

# Rows of a group up to which lookups into the inverse are fewer than what they save.
SMALL = 6


def multiply(matrix: np.ndarray, value: Affine) -> Affine:
    """Known matrices [G|1, d, d] times the groups of d consecutive rows of ``value``."""
    d = matrix.shape[-1]
    terms = tuple(_multiplied(matrix, term, value.size // d, d) for term in value.terms)
    return replace(value, terms=terms)


def _multiplied(matrix: np.ndarray, term: Term, groups: int, d: int) -> Term:
    """One term over the distinct (column, opaque factor) pairs of each group, added up."""
    n = groups * d
    full = term.arrays(n)
    width = full.known.shape[1]
    slot = full.lookup.index if full.lookup else np.zeros((n, width), np.int64)
    stride = int(slot.max(initial=0)) + 1
    key = (full.column.astype(np.int64) * stride + slot).reshape(-1)
    row = np.repeat(np.arange(n), width)
    table, place = distinct(row // d, key, groups)
    f = table.shape[1]
    dense = np.bincount(row * f + place, weights=full.known.reshape(-1), minlength=n * f)
    white = np.matmul(matrix, dense.reshape(groups, d, f)).reshape(n, f)
    key = np.maximum(table if groups == 1 else np.repeat(table, d, axis=0), 0)
    lookup = term.lookup and Lookup(term.lookup.base, key % stride)
    return Term(term.site, key // stride, white, lookup)


def factors(tril: Opaque, keep: np.ndarray | None) -> tuple[Any, np.ndarray]:
    """The distinct matrices [D, d, d] of an opaque [G|1, d, d], and which one each group has.

    ``keep`` are the groups to look at, or None for all.
    """
    d = tril.shape[-1]
    rows = tril.rows().reshape(-1, d * d)
    if keep is not None and len(rows) > 1:
        rows = rows[keep]
    entries, which = np.unique(rows, axis=0, return_inverse=True)
    return jnp.ravel(tril.base)[entries].reshape(-1, d, d), which.reshape(-1)


def inverses(lower: Any, which: np.ndarray) -> Opaque:
    """Inverses of triangular matrices [D, d, d], looked up by group."""
    d = lower.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(d, dtype=lower.dtype), lower.shape)
    solved = jax.scipy.linalg.solve_triangular(lower, eye, lower=True)
    index = which[:, None] * d * d + np.arange(d * d)
    return Opaque(solved, (len(which), d, d), index.reshape(-1))


def log_diagonals(lower: Any, which: np.ndarray, groups: int) -> Any:
    """Σ log|L| over the groups; ``which`` has one entry where they share a factor."""
    counts = np.bincount(which, minlength=lower.shape[0]) * (groups // max(len(which), 1))
    logs = log_factors(lower)
    return jnp.dot(jnp.asarray(counts, logs.dtype), logs)


def log_factors(lower: Any) -> Any:
    """[D] log|L| of triangular matrices [D, d, d]."""
    return jnp.log(jnp.abs(jnp.diagonal(lower, axis1=-2, axis2=-1))).sum(-1)


__all__ = ["SMALL", "factors", "inverses", "log_diagonals", "log_factors", "multiply"]
