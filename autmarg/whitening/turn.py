"""What pieces of the latents have to do with one another at the mode, as a matrix.

Where factors are crossed, a map of noise that knows their joint precision at every θ has a dense
root. Cheaper is one whose stand-ins are read by one piece of the latents each, the others at their
values at the mode: with it u = T(θ, x) piece by piece. At the mode the precision of x is then

    H = [[I, C], [Cᵀ, S]],

the identity for the largest piece. With S - CᵀC = V Λ Vᵀ and B = [-C; I] V Λ^(-½),

    x = (z₁, 0) + B z₂

is standard normal at the mode if z is. Away from it each piece still follows its own scales, and
only what pieces have to do with one another stays as it was: for scales within a factor r of the
mode's the condition is r² at most, since a precision prior + data changes by no more than the prior
does. B is a number, and any B gives the exact posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

_LEAST = 1e-8  # eigenvalue that is taken for what it is, of the largest
_NONE = 1e-9  # second derivative that is none, where one that counts is about one


@dataclass(frozen=True, eq=False)
class Turn:
    """x = (z₁, 0) + B z₂, and log |∂x/∂z|.

    Attributes:
        second: which elements of z are z₂.
        matrix: B, its rows in the order of z.
    """

    second: Bool[np.ndarray, "columns"]
    matrix: Float[np.ndarray, "columns second"]

    @cached_property
    def log_det(self) -> float:
        """log |∂x/∂z|."""
        return float(np.linalg.slogdet(self.matrix[self.second])[1])

    @cached_property
    def _runs(self) -> list[tuple[bool, int, int]]:
        """Which elements next to each other are of z₂ and which are not, from where to where."""
        ends = np.flatnonzero(np.diff(self.second)) + 1
        bounds = [0, *ends.tolist(), len(self.second)]
        return [(bool(self.second[a]), a, b) for a, b in pairwise(bounds)]

    def transposed(self, x: Float[np.ndarray, "columns"]) -> Float[np.ndarray, "columns"]:
        """(∂x/∂z)ᵀ applied to a vector."""
        z = x.copy()
        z[self.second] = self.matrix.T @ x
        return z

    def __call__(self, z: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """x. (Slices and no gathers: their derivatives are no scatters.)"""
        second = jnp.concatenate([z[a:b] for own, a, b in self._runs if own])
        first = [jnp.zeros(b - a, z.dtype) if own else z[a:b] for own, a, b in self._runs]
        matrix = jnp.asarray(self.matrix, z.dtype)
        return jnp.concatenate(first) + jnp.dot(matrix, second, precision="highest")


def turned(
    slope: Callable[[Float[np.ndarray, "columns"]], Float[np.ndarray, "columns"]],
    second: Bool[np.ndarray, "columns"],
) -> Turn:
    """The turn that the derivative of a quadratic asks for, whose Hessian is H.

    What it does not depend on (noise that makes no latent) stays as it is.
    """
    columns, start = np.flatnonzero(second), slope(np.zeros(len(second)))
    units = (1.0 * (np.arange(len(second)) == k) for k in columns)
    hessian = np.stack([slope(unit) - start for unit in units], axis=1)
    crossed, own = hessian[~second], hessian[second]
    idle = np.abs(hessian).max(axis=0) <= _NONE
    crossed[:, idle], own[idle], own[:, idle] = 0.0, 0.0, 0.0
    own[idle, idle] = 1.0
    values, vectors = np.linalg.eigh(own - crossed.T @ crossed)
    root = vectors / np.sqrt(np.maximum(values, _LEAST * np.abs(values).max(initial=1.0)))
    matrix = np.zeros((len(second), len(columns)))
    matrix[second], matrix[~second] = root, -crossed @ root
    return Turn(second, matrix)
