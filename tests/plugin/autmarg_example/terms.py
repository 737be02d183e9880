"""A term of the energy that keeps its rows as a matrix, as in a textbook."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.terms import Placed, Term


@dataclass(frozen=True, eq=False)
class FewRows(Term, Placed):
    """Rows r = A δ + c of one site, of which there are three at most, with precision ω each.

    It is its own ``Placed``: ``places`` are where its products go in G.
    """

    columns: int
    rows: object
    places: tuple = ()
    how: str = "kept as a matrix"

    @property
    def known(self):
        return {}

    @classmethod
    def take(cls, form, rows):
        few = [each for each in rows if each.n <= 3]
        return (cls(form.columns, few[0]), [r for r in rows if r is not few[0]]) if few else None

    @property
    def n(self):
        return self.rows.n if self.rows.counted else 0

    def pairs(self):
        return np.triu_indices(self.columns)

    def place(self, source, target, size):
        return FewRows(self.columns, self.rows, (source, target, size))

    def __call__(self, point):
        source, target, size = self.places
        constant = jnp.zeros(self.columns + 1).at[-1].set(1.0)
        c = self.rows.evaluate(point.omega, constant)
        matrix = jnp.stack(
            [
                self.rows.evaluate(point.omega, constant.at[k].set(1.0)) - c
                for k in range(self.columns)
            ],
            axis=1,
        )
        weighted = point.omega[self.rows.precision][:, None] * matrix
        products = (weighted.T @ matrix)[np.triu_indices(self.columns)]
        entries = jnp.zeros(size).at[target].add(products[source])
        return entries, -weighted.T @ c

    def squares(self, point, v):
        r = self.rows.evaluate(point.omega, v)
        return jnp.sum(point.omega[self.rows.precision] * r**2)

    by_row = squares

    def lost(self, point, v):
        return 0.0

    def log_weight(self, point):
        logs = jnp.log(point.omega[self.rows.precision])
        return jnp.broadcast_to(logs, self.rows.n).sum() if self.rows.counted else 0.0
