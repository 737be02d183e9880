"""Rows of an affine form, and what is traced of a point: slots of ω, noise factors, constant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, Opaque
from autmarg.analysis.noise import SMALL, factors, inverses, log_diagonals, log_factors, multiply
from autmarg.analysis.rules.contraction import linear_map
from autmarg.gaussian.affine import Member, Rows, RowTerm
from autmarg.gaussian.like_terms import collected


class RowWriter:
    """Writes rows with their noise, while traced.

    Attributes:
        constant: log-density terms that no column enters, so far.
        bases: opaque arrays of ω, ``starts`` the slot of each by its id, ``slots`` their length.
        factors: of large correlated noise.
        members: whose columns rows may read, ``total`` columns in all.
    """

    def __init__(self) -> None:
        self.constant: Any = jnp.zeros((), float)
        self.bases: list[Any] = [jnp.ones(1, float)]
        self.starts: dict[int, int] = {}
        self.slots = 1
        self.members: dict[str, Member] = {}
        self.total = 0
        self.factors: list[Any] = []

    def temper(
        self, power: np.ndarray, n: int, size: int, logs: Any, which: np.ndarray | None = None
    ) -> None:
        """What s log N(r; 0, Σ) has beyond log N(r; 0, Σ/s), whose factor S has log|S| = ``logs``,

            (s - 1) (-k/2 log 2π - log|S|) - k s/2 log s,

        added up over ``n`` groups of k = ``size`` elements; ``which`` has the place in ``logs`` of
        each group's, by default one after the other (or one of all)."""
        power = np.broadcast_to(power, n)
        known = (power - 1) * np.log(2 * np.pi) + power * np.log(power)
        if which is None:
            which = np.zeros(n, np.int64) if len(logs) == 1 else np.arange(n)
        weights = np.bincount(which, power - 1, minlength=len(logs))
        self.constant -= 0.5 * size * float(known.sum())
        self.constant -= jnp.dot(jnp.asarray(weights, float), logs)

    def noisy_rows(self, name: str, residual: Affine, noise: Any, power: np.ndarray | None) -> Rows:
        """Rows with independent noise, ``power`` its known power (one, or one a row)."""
        n = residual.size
        if power is not None and isinstance(noise, Opaque):
            used, which = np.unique(noise.rows(), return_inverse=True)
            self.temper(power, n, 1, jnp.log(noise.flat[used]), which)
        elif power is not None:
            self.temper(power, n, 1, np.log(np.asarray(noise, np.float64).reshape(-1)))
        if isinstance(noise, Opaque):
            slot = self._slot(jnp.ravel(noise.base) ** -2.0) + noise.rows()
            slot = slot[:1] if n and (slot == slot[0]).all() else slot
        else:
            scale = np.asarray(noise, np.float64).reshape(-1)
            self.constant -= float(np.log(scale).sum())
            residual = residual.times(1.0 / scale)
            slot = np.zeros(1, np.int64)
        return self.rows(name, residual, slot)

    def correlated_rows(
        self,
        name: str,
        residual: Affine,
        tril: Any,
        keep: np.ndarray | None,
        power: np.ndarray | None,
    ) -> Rows:
        """Rows with a triangular noise factor [G|1, d, d]."""
        d = tril.shape[-1]
        groups, keep = residual.size // d, None if keep is None else keep[::d] // d
        if power is not None and len(power) > 1 and keep is not None:
            power = power[keep]
        if isinstance(tril, np.ndarray):
            tril = tril if keep is None or len(tril) == 1 else tril[keep]
            logs = np.log(np.abs(np.diagonal(tril, axis1=-2, axis2=-1))).sum(-1)
            self.constant -= float(logs.sum()) * (groups // max(len(tril), 1))
            if power is not None:
                self.temper(power, groups, d, logs)
            residual = multiply(np.linalg.inv(tril), residual)
            return self.rows(name, residual, np.zeros(1, np.int64))
        lower, which = factors(tril, keep)
        self.constant -= log_diagonals(lower, which, groups)
        if power is not None:
            self.temper(power, groups, d, log_factors(lower), np.broadcast_to(which, groups))
        if d <= SMALL:
            shaped = replace(residual, shape=(groups, d))
            white = linear_map(inverses(lower, which), shaped)
            return self.rows(name, white, np.zeros(1, np.int64))
        self.factors.append(lower if len(lower) == 1 else lower[which])
        return replace(self.rows(name, residual), block=d)

    def basis_rows(
        self,
        name: str,
        residual: Affine,
        basis: np.ndarray,
        scale: Any,
        keep: np.ndarray | None,
        power: np.ndarray | None,
    ) -> Rows:
        """Rows with noise basis · diag(scale): independent, seen in the basis [G|1, d, d]."""
        d = basis.shape[-1]
        groups = residual.size // d
        if keep is not None and len(basis) > 1:
            basis = basis[keep[::d] // d]
        logs = np.linalg.slogdet(basis)[1]
        self.constant -= float(logs.sum()) * (groups // max(len(basis), 1))
        if power is not None:
            power = power[keep[::d] // d] if len(power) > 1 and keep is not None else power
            excess = np.broadcast_to(power - 1, groups) * logs  # the scales have the rest
            self.constant -= float(excess.sum())
            power = np.repeat(power, d) if len(power) > 1 else power
        if scale.shape[0] == 1:
            scale = picked(scale, np.tile(np.arange(d), groups))
        else:
            scale = picked(scale, keep)
        return self.noisy_rows(name, multiply(np.linalg.inv(basis), residual), scale, power)

    def _slot(self, base: Any) -> int:
        """Where an opaque array starts in ω."""
        if id(base) not in self.starts:
            self.starts[id(base)] = self.slots
            self.bases.append(base)  # kept alive, so that its id stays its own
            self.slots += base.shape[0]
        return self.starts[id(base)]

    def rows(self, name: str, form: Affine, precision: np.ndarray | None = None) -> Rows:
        """An affine value as rows; ``precision`` [n|1] are the slots of their noise."""
        terms = []
        # Rows with independent noise may be many, and are kept: narrow, as their statistics are.
        narrow = np.int64 if precision is None else np.int32
        for term in form.terms:
            slot = np.zeros((1, 1), np.int64)
            if term.lookup is not None:
                slot = self._slot(term.lookup.base) + term.lookup.index
            start = self.total if term.site is None else self.members[term.site].offset
            column = start + term.column.astype(narrow)
            terms.append(RowTerm(column, term.known, slot.astype(narrow)))
        if precision is not None:
            precision = precision.astype(narrow)
        return Rows(name, form.size, tuple(collected(terms)), precision)


def picked(value: Any, keep: np.ndarray | None) -> Any:
    """Elements ``keep`` of a Known or Opaque value, flattened; all of them for None."""
    if keep is None:
        return value
    if isinstance(value, Opaque):
        return Opaque(value.base, keep.shape, value.rows()[keep])
    return value.reshape(-1)[keep]


__all__ = ["RowWriter", "picked"]
