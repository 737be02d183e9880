"""A factorised system G z = h: what a sequence of stages makes of a quadratic form.

Each stage takes its columns out. With L the product of what they do to a vector, one after the
other,

    G = L Lᵀ,   log|G| = 2 log|L|,   z* = G⁻¹h = L⁻ᵀ(L⁻¹h),   z* + L⁻ᵀξ ~ N(z*, G⁻¹)

(Rue & Held 2005, Gaussian Markov Random Fields, section 2.3). A stage says how it applies L⁻ᵀ,
which is linear once it has its factor. L⁻¹ is the transpose, and JAX derives that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.base import AnyStage

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Solver:
    """The factors of a form, made by :func:`factorise`.

    Attributes:
        stages, factors: in the order of elimination; factors depend on G alone.
        own: what the form's right-hand side h left at each stage.
        form: what is left: no columns, log|G| and how far it can be trusted.
    """

    stages: tuple[AnyStage, ...]
    factors: tuple[Any, ...]
    own: tuple[Any, ...]
    form: QuadraticForm

    @property
    def log_det(self) -> Float[Array, ""]:
        """log|G|, a scalar."""
        return self.form.log_det

    def mean(self) -> Float[Array, "columns"]:
        """z* = G⁻¹h [columns] of the form's own h.

        Columns of chains whose rows are filtered one by one stay zero: the sum of squares at their
        mean is known without them (:meth:`draw` with noise zero has them).
        """
        z = jnp.zeros_like(self.form.h)
        for stage, factor, own in self._backwards(self.own):
            z = stage.mean(factor, own, z)
        return z

    def rooted(self) -> Solver:
        """The same with all that the methods below need."""
        pairs = zip(self.stages, self.factors, strict=True)
        return replace(self, factors=tuple(stage.rooted(factor) for stage, factor in pairs))

    def draw(self, noise: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """z* + L⁻ᵀξ [columns] from noise ξ [columns], for the form's own h.

        It is differentiable in the form and in the noise.
        """
        return self._drawn(self.own, noise)

    def back(self, noise: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """L⁻ᵀξ [columns]."""
        return self._drawn(jax.tree.map(jnp.zeros_like, self.own), noise)

    def half_solve(self, rhs: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """L⁻¹h [columns] of any right-hand side h [columns], in the coordinates of z."""
        return jax.linear_transpose(self.back, rhs)(rhs)[0]

    def solve(self, rhs: Float[Array, "columns"]) -> Float[Array, "columns"]:
        """G⁻¹h [columns] of any right-hand side h [columns], in the coordinates of z."""
        return self.back(self.half_solve(rhs))

    def _drawn(self, own: Sequence[Any], noise: Float[Array, "columns"]) -> Float[Array, "columns"]:
        z = jnp.zeros_like(noise)
        for stage, factor, left in self._backwards(own):
            z = stage.back(factor, left, z, noise)
        return z

    def _backwards(self, own: Sequence[Any]) -> Iterator[tuple[AnyStage, Any, Any]]:
        """Stage, factor and what is left of h, the last stage first."""
        whole = zip(self.stages, self.factors, own, strict=True)
        return reversed(tuple(whole))


def factorise(stages: Sequence[AnyStage], form: QuadraticForm) -> Solver:
    """Eliminate all columns of a form, stage by stage."""
    factors, left = [], []
    for stage in stages:
        with jax.named_scope(f"eliminate {stage.name}"):  # names for profiles and HLO
            factor, own, form = stage.eliminate(form)
        factors.append(factor)
        left.append(own)
    return Solver(tuple(stages), tuple(factors), tuple(left), form)
