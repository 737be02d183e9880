"""The root of rows: what is left, by orthogonal transformations of its rows.

With rows r = B z + c, each divided by its noise, and z ~ N(0, I),

    zᵀz + |B z + c|² = |T z - g|² + rest,    Qᵀ [I 0; B c] = [T -g; 0 c'],

T upper triangular with TᵀT = G. No pivot of T is below one, for a row of the identity is taken
into each. (Golub & Van Loan 2013, Matrix Computations, 4th ed., sections 5.2 and 6.1.4.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.quadratic import QuadraticForm, lost
from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.cost import Cost, dense_root

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Factor(NamedTuple):
    """T [R, R] and the rows B [M, R]."""

    upper: Float[Array, "R R"]
    rows: Float[Array, "M R"]


@dataclass(frozen=True, eq=False)
class TriangularRoot(Stage[Factor, Array]):
    """The only stage of a form that is given by rows: ``columns`` [R] are all its columns.

    ``identity`` [R] is one, and zero where the prior is flat.
    """

    columns: Int[np.ndarray, "R"]
    identity: Float[np.ndarray, "R"]
    name: str = "dense root"

    @property
    def size(self) -> int:
        return len(self.columns)

    @property
    def cost(self) -> Cost:
        """That of a dense matrix of as many columns."""
        return dense_root(self.size)

    def eliminate(self, form: QuadraticForm) -> tuple[Factor, Float[Array, "R"], QuadraticForm]:
        """Integrate everything out; what the rows' constants leave is g [R]."""
        rows, constant = form.values
        upper, g, slope = factorise(rows, constant, self.identity)
        pivots = jnp.abs(jnp.diagonal(upper))
        size = jnp.sqrt(self.identity + jnp.square(rows).sum(axis=0))
        error = form.error + lost(size, pivots)
        log_det = form.log_det + _log_det(rows, upper, slope)
        return Factor(upper, rows), g, form._replace(values=(), log_det=log_det, error=error)

    def back(
        self,
        factor: Factor,
        own: Float[Array, "R"],
        z: Float[Array, "columns"],
        noise: Float[Array, "columns"],
    ) -> Float[Array, "columns"]:
        """z = T⁻¹(g + ξ)."""
        return jax.scipy.linalg.solve_triangular(factor.upper, own + noise)

    def slope(
        self, factor: Factor, at: Float[Array, "M"], z: Float[Array, "R"], rest: Float[Array, "R"]
    ) -> Float[Array, "R"]:
        """Half the slope of the sum of squares at z + ``rest``, where rows at z are ``at`` [M]."""
        rows = at + jnp.dot(factor.rows, rest, precision="highest")
        return jnp.dot(rows, factor.rows, precision="highest") + self.identity * (z + rest)


def factorise(
    rows: Float[Array, "M p"], constant: Float[Array, "M"], identity: Float[np.ndarray, "p"]
) -> tuple[Float[Array, "p p"], Float[Array, "p"], Float[Array, "M p"]]:
    """T [p, p], g [p] and B G⁻¹ [M, p] of rows B [M, p] and c [M].

    ``identity`` [p] is the diagonal of I.
    """
    # Large rows first: the identity's rows then keep their digits beside them (Higham 2002,
    # Accuracy and Stability of Numerical Algorithms, section 19.4).
    own = jnp.diag(jnp.asarray(identity, rows.dtype))
    q, upper = jnp.linalg.qr(jnp.concatenate([rows, own]))
    # With a positive diagonal it is unique: draws do not depend on how rows were added up.
    signs = jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0).astype(rows.dtype)
    q, upper = q * signs, upper * signs[:, None]
    own, other = q[: len(rows)], q[len(rows) :]  # B T⁻¹, T⁻¹
    if not identity.all():
        eye = jnp.eye(len(upper), dtype=rows.dtype)
        other = jax.scipy.linalg.solve_triangular(upper, eye)
    slope = jnp.dot(own, other.T, precision="highest")
    return upper, -jnp.dot(constant, own, precision="highest"), slope


@jax.custom_jvp
def _log_det(
    rows: Float[Array, "M p"], upper: Float[Array, "p p"], slope: Float[Array, "M p"]
) -> Float[Array, ""]:
    """log|G| of G = I + BᵀB = TᵀT; d log|G| = 2 tr((B G⁻¹)ᵀ dB), of which ``slope`` is B G⁻¹."""
    return 2.0 * jnp.log(jnp.abs(jnp.diagonal(upper))).sum()


@_log_det.defjvp
def _log_det_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    slope, change = primals[2], tangents[0]
    return _log_det(*primals), 2.0 * jnp.sum(slope * change)
