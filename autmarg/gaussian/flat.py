"""Whether the data determine what has a flat prior.

With a flat prior on the columns F, ∫ p(y | z) dz is finite where no direction in F leaves all rows
unchanged: where A_F has full column rank, since every other column has zᵀz. Opaque factors take
generic values here. Where a direction is free for these, it is free for all others too.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from autmarg.gaussian.affine import AffineForm, Rows

_LARGE = 2000  # columns of one connected set, above which only evaluation tells
_ZERO = (
    8.0 * np.finfo(np.float64).eps
)  # times the number of columns: an eigenvalue that is rounding
_PART = 1e-6  # of a free direction of length one, from which a column has a part in it


def undetermined(form: AffineForm) -> frozenset[str]:
    """Members with a flat prior on a direction that no row depends on (but for rounding)."""
    if not form.flat.any():
        return frozenset()
    columns = np.flatnonzero(form.flat)
    free = columns[_free(_reads(form, columns))]
    return frozenset(m.name for m in form.members if np.isin(m.columns, free).any())


def _reads(form: AffineForm, columns: np.ndarray) -> csr_array:
    """[rows, F] how the rows of data depend on some columns, through recurrences as well."""
    omega = np.random.default_rng(0).uniform(0.5, 1.5, form.slots)
    omega[0] = 1.0
    rows = [csr_array((0, form.columns)), *(_matrix(r, omega, form.columns) for r in form.rows)]
    whole = _stacked(rows, form.columns)
    unit = _unit(form.columns, columns)
    if not form.recurrences:
        return csr_array(whole @ unit)
    means = csc_array((form.columns, form.columns))
    for member, mean in zip(form.members, form.means, strict=True):
        if not form.explicit[member.offset]:
            own = _unit(form.columns, member.columns.reshape(-1))
            means = csc_array(means + own @ _matrix(mean, omega, form.columns))
    states = splu(csc_array(eye_array(form.columns) - means)).solve(unit.toarray())
    return csr_array(whole @ csc_array(states))


def _unit(size: int, columns: np.ndarray) -> csc_array:
    """[size, C] unit vectors."""
    entries = (np.ones(len(columns)), (columns, np.arange(len(columns))))
    return csc_array(entries, shape=(size, len(columns)))


def _stacked(parts: list[csr_array], columns: int) -> csr_array:
    data = np.concatenate([p.data for p in parts])
    indices = np.concatenate([p.indices for p in parts])
    counts = np.concatenate([np.diff(p.indptr) for p in parts])
    starts = np.concatenate([[0], np.cumsum(counts)])
    return csr_array((data, indices, starts), shape=(len(counts), columns))


def _matrix(rows: Rows, omega: np.ndarray, columns: int) -> csr_array:
    """[n, columns] the coefficients of rows at ω, without the constant column."""
    total = csr_array((rows.n, columns))
    for term in rows.terms:
        column, known, slot = term.full(rows.n)
        at, k = np.nonzero((column < columns) & (known != 0))
        entries = known[at, k] * omega[slot[at, k]]
        part = csr_array((entries, (at, column[at, k])), shape=(rows.n, columns))
        total = csr_array(total + part)
    return total


def _free(reads: csr_array) -> np.ndarray:
    """[F] whether a column has a part in a direction that no row reads."""
    gram = csr_array(reads.T @ reads)
    size = np.sqrt(gram.diagonal())
    free = size == 0
    inverse = diags_array(1.0 / np.where(free, 1.0, size))
    gram = csr_array(inverse @ gram @ inverse)
    count, labels = connected_components(gram, directed=False)
    order = np.argsort(labels, kind="stable")
    for own in np.split(order, np.searchsorted(labels[order], np.arange(1, count))):
        own = own[~free[own]]
        if 1 < len(own) <= _LARGE:
            values, vectors = np.linalg.eigh(gram[own][:, own].toarray())
            null = vectors[:, values < _ZERO * len(own)]
            free[own] |= (np.abs(null) > _PART).any(axis=1)
    return free


__all__ = ["undetermined"]
