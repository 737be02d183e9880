"""Rows of an affine form with their noise, before opaque numbers have their places in ω.

A row's opaque factors are lookups into arrays of the kept latents. :func:`placed` lays these arrays
one after the other, and their indices become slots of ω.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis import signs
from autmarg.analysis.domain import Affine, Lookup, Opaque
from autmarg.analysis.noise import SMALL, factors, inverses, log_diagonals, log_factors, multiply
from autmarg.analysis.rules.contraction import linear_map
from autmarg.gaussian.affine import Rows, RowTerm
from autmarg.gaussian.like_terms import collected

_ONE = np.zeros(1, np.int64)  # the slot of ω₀ = 1, for all rows
Constants = tuple[Any, ...]  # log-density terms that no column enters, in order


@dataclass(frozen=True, eq=False)
class OpenRows:
    """Rows of one site, r = value - mean or a member's mean.

    Attributes:
        name: of the site.
        form: r, divided by its noise as far as that is known.
        noise: precisions that depend on kept latents, looked up by row.
        unit: whether the noise has variance one (then ``noise`` is None).
        block: consecutive rows whose noise is correlated, with a ``factor`` [groups|1, d, d].
        constants: what the noise adds to the log-density.
    """

    name: str
    form: Affine
    noise: Lookup | None = None
    unit: bool = False
    block: int = 1
    factor: Any = None
    constants: Constants = ()

    @property
    def arrays(self) -> Iterator[Any]:
        """The arrays that the rows look up, in order."""
        if self.noise is not None:
            yield self.noise.base
        yield from (t.lookup.base for t in self.form.terms if t.lookup is not None)


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the arrays that rows look up are in ω.

    Attributes:
        arrays: [entries] each, that of ω₀ = 1 first.
        starts: the first slot of each but the first, by the array's id.
        slots: the length of ω.
    """

    arrays: tuple[Any, ...]
    starts: Mapping[int, int]
    slots: int

    def slot(self, lookup: Lookup | None) -> np.ndarray:
        """Slots of what a lookup gives; of none that of ω₀ = 1."""
        if lookup is None:
            return np.zeros((1, 1), np.int64)
        return self.starts[id(lookup.base)] + lookup.index

    def rows(self, open_rows: OpenRows, offsets: Mapping[str | None, int]) -> Rows:
        """Rows over numbered columns and slots.

        Args:
            open_rows: the rows.
            offsets: the first column of each site; of None the constant one.
        """
        precision = _ONE if open_rows.unit else None
        if open_rows.noise is not None:
            slots = self.slot(open_rows.noise)
            same = open_rows.form.size and (slots == slots[0]).all()
            precision = slots[:1] if same else slots
        # Rows with independent noise may be many, and are kept: narrow, as their statistics are.
        narrow = np.int64 if precision is None else np.int32
        terms = [
            RowTerm(
                offsets[term.site] + term.column.astype(narrow),
                term.known,
                self.slot(term.lookup).astype(narrow),
            )
            for term in open_rows.form.terms
        ]
        if precision is not None:
            precision = precision.astype(narrow)
        n, block = open_rows.form.size, open_rows.block
        return Rows(open_rows.name, n, tuple(collected(terms)), precision, block=block)


def placed(rows: Iterable[OpenRows]) -> Placed:
    """Places for all arrays that some rows look up, in the order in which they do."""
    distinct = {id(array): array for each in rows for array in each.arrays}
    lengths = [1, *(array.shape[0] for array in distinct.values())]
    starts = np.cumsum(lengths).tolist()
    arrays = (jnp.ones(1, float), *distinct.values())
    return Placed(arrays, dict(zip(distinct, starts, strict=False)), starts[-1])


def tempering(
    power: np.ndarray, n: int, size: int, logs: Any, which: np.ndarray | None = None
) -> Constants:
    """What s log N(r; 0, Σ) has beyond log N(r; 0, Σ/s), whose factor S has log|S| = ``logs``,

        (s - 1) (-k/2 log 2π - log|S|) - k s/2 log s,

    added up over ``n`` groups of k = ``size`` elements; ``which`` has the place in ``logs`` of
    each group's, by default one after the other (or one of all)."""
    power = np.broadcast_to(power, n)
    known = (power - 1) * np.log(2 * np.pi) + power * np.log(power)
    if which is None:
        which = np.zeros(n, np.int64) if len(logs) == 1 else np.arange(n)
    weights = np.bincount(which, power - 1, minlength=len(logs))
    return -0.5 * size * float(known.sum()), -jnp.dot(jnp.asarray(weights, float), logs)


def noisy(name: str, residual: Affine, noise: Any, power: np.ndarray | None) -> OpenRows:
    """Rows with independent noise, ``power`` its known power (one, or one a row)."""
    n, constants = residual.size, ()
    if isinstance(noise, Opaque):
        if power is not None:
            used, which = np.unique(noise.rows(), return_inverse=True)
            constants = tempering(power, n, 1, jnp.log(noise.flat[used]), which)
        precision = Lookup(signs.precision(jnp.ravel(noise.base)), noise.rows())
        return OpenRows(name, residual, precision, constants=constants)
    scale = np.asarray(noise, np.float64).reshape(-1)
    if power is not None:
        constants = tempering(power, n, 1, np.log(scale))
    constants = (*constants, -float(np.log(scale).sum()))
    return OpenRows(name, residual.times(1.0 / scale), unit=True, constants=constants)


def correlated(
    name: str, residual: Affine, tril: Any, keep: np.ndarray | None, power: np.ndarray | None
) -> OpenRows:
    """Rows with a triangular noise factor [G|1, d, d]."""
    d = tril.shape[-1]
    groups, keep = residual.size // d, None if keep is None else keep[::d] // d
    if power is not None and len(power) > 1 and keep is not None:
        power = power[keep]
    if isinstance(tril, np.ndarray):
        tril = tril if keep is None or len(tril) == 1 else tril[keep]
        logs = np.log(np.abs(np.diagonal(tril, axis1=-2, axis2=-1))).sum(-1)
        constants: Constants = (-float(logs.sum()) * (groups // max(len(tril), 1)),)
        if power is not None:
            constants += tempering(power, groups, d, logs)
        white = multiply(np.linalg.inv(tril), residual)
        return OpenRows(name, white, unit=True, constants=constants)
    lower, which = factors(tril, keep)
    constants = (-log_diagonals(lower, which, groups), signs.of_factors(lower))
    if power is not None:
        each = np.broadcast_to(which, groups)
        constants += tempering(power, groups, d, log_factors(lower), each)
    if d <= SMALL:
        shaped = replace(residual, shape=(groups, d))
        white = linear_map(inverses(lower, which), shaped)
        return OpenRows(name, white, unit=True, constants=constants)
    factor = lower if len(lower) == 1 else lower[which]
    return OpenRows(name, residual, block=d, factor=factor, constants=constants)


def in_basis(
    name: str,
    residual: Affine,
    basis: np.ndarray,
    scale: Any,
    keep: np.ndarray | None,
    power: np.ndarray | None,
) -> OpenRows:
    """Rows with noise basis · diag(scale): independent, seen in the basis [G|1, d, d]."""
    d = basis.shape[-1]
    groups = residual.size // d
    if keep is not None and len(basis) > 1:
        basis = basis[keep[::d] // d]
    logs = np.linalg.slogdet(basis)[1]
    constants: Constants = (-float(logs.sum()) * (groups // max(len(basis), 1)),)
    if power is not None:
        power = power[keep[::d] // d] if len(power) > 1 and keep is not None else power
        excess = np.broadcast_to(power - 1, groups) * logs  # the scales have the rest
        constants += (-float(excess.sum()),)
        power = np.repeat(power, d) if len(power) > 1 else power
    if scale.shape[0] == 1:
        scale = picked(scale, np.tile(np.arange(d), groups))
    else:
        scale = picked(scale, keep)
    rows = noisy(name, multiply(np.linalg.inv(basis), residual), scale, power)
    return replace(rows, constants=(*constants, *rows.constants))


def picked(value: Any, keep: np.ndarray | None) -> Any:
    """Elements ``keep`` of a Known or Opaque value, flattened; all of them for None."""
    if keep is None:
        return value
    if isinstance(value, Opaque):
        return Opaque(value.base, keep.shape, value.rows()[keep])
    return value.reshape(-1)[keep]


__all__ = [
    "Constants",
    "OpenRows",
    "Placed",
    "correlated",
    "in_basis",
    "noisy",
    "picked",
    "placed",
    "tempering",
]
