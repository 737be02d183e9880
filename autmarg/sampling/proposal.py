"""Proposals: mixtures of multivariate t densities, folded at zero in some coordinates.

Where a positive coordinate's mass reaches zero, a component is drawn on the whole line and the sign
dropped. With E_m the vectors of signs of its folded coordinates the density is

    q(x) = Σ_m w_m Σ_{e ∈ E_m} t(e ∘ x; ν_m, μ_m, L_m L_mᵀ),

each term of the inner sum being an image of the component. The last component is a wide one with a
share of its own: it bounds the weights p/q from above where the others' tails are too light (a
defensive mixture; Hesterberg 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray
_REACH = 4.0  # standard deviations from zero, beyond which a component is not folded
_TOGETHER = 1024  # points whose distances from all images stay in a processor's cache
_TINY = 1e-250  # a density relative to the highest, below which it is computed by logarithms
_FOLDED = 3  # coordinates of a component at most: its images are 2 to their number


@dataclass(frozen=True, eq=False)
class Proposal:
    """A mixture of folded t densities in p dimensions.

    Attributes:
        weight: of each component, [M].
        loc, factor, freedom: centre [M, p], lower triangular root of the scale matrix [M, p, p],
            and degrees of freedom [M] of each.
        folded: the coordinates of each component whose sign is dropped, [M, p].
    """

    weight: Array
    loc: Array
    factor: Array
    freedom: Array
    folded: Array

    @classmethod
    def of(
        cls, weight: Array, loc: Array, scale: Array, freedom: Array, positive: Array
    ) -> Proposal:
        """Components with scale matrices [M, p, p], folded where their mass reaches zero.

        ``positive`` says which coordinates have no density below zero, [p].
        """
        deviation = np.sqrt(np.diagonal(scale, axis1=1, axis2=2))
        ratio = np.where(positive, np.abs(loc) / deviation, np.inf)
        rank = np.argsort(np.argsort(ratio, axis=1), axis=1)
        folded = (ratio < _REACH) & (rank < _FOLDED)
        return cls(weight, loc, np.linalg.cholesky(scale), freedom, folded)

    @property
    def size(self) -> int:
        """Dimensions p."""
        return self.loc.shape[1]

    @cached_property
    def scale(self) -> Array:
        """L Lᵀ of each component, [M, p, p]."""
        return self.factor @ self.factor.transpose(0, 2, 1)

    @cached_property
    def images(self) -> tuple[Array, Array]:
        """The component [J] and the vector of signs [J, p] of each image."""
        owner: list[int] = []
        signs: list[Array] = []
        for m, folded in enumerate(self.folded):
            for choice in product((1.0, -1.0), repeat=int(folded.sum())):
                own = np.ones(self.size)
                own[folded] = choice
                owner.append(m)
                signs.append(own)
        return np.array(owner), np.array(signs)

    def distances(self, x: Any) -> Any:
        """Squared distances [n, J] of points x [n, p], an array of NumPy or of JAX, from images."""
        xp: Any = np if isinstance(x, np.ndarray) else jnp
        owner, signs = self.images
        p = self.size
        inverse = np.linalg.inv(self.factor)
        turned = inverse[owner] * signs[:, None]  # [J, p, p]
        centre = np.einsum("mij,mj->mi", inverse, self.loc)[owner]
        z = (x @ turned.reshape(-1, p).T).reshape(len(x), len(owner), p) - centre
        return xp.einsum("njp,njp->nj", z, z)

    @cached_property
    def fronts(self) -> Array:
        """log w t at the centre of each component, [M]."""
        log_det = np.log(np.abs(np.diagonal(self.factor, axis1=1, axis2=2))).sum(-1)
        return np.log(self.weight) + constants(self.freedom, self.size) - log_det

    def terms(self, distance: Array) -> tuple[Array, float]:
        """w t of each image at squared distances, [n, J], but for a factor; and its logarithm."""
        owner, top, out = self.images[0], float(self.fronts.max()), np.empty_like(distance)
        ends = np.searchsorted(owner, np.arange(len(self.weight) + 1))
        each = zip(self.fronts.tolist(), self.freedom.tolist(), pairwise(ends), strict=True)
        for front, v, (start, end) in each:
            heavy = _power(1 + distance[:, start:end] / v, v + self.size)
            np.multiply(math.exp(front - top), heavy, out=out[:, start:end])
        return out, top

    def log_terms(self, distance: Any) -> Any:
        """log w t of each image at squared distances [n, J], of an array of NumPy or of JAX."""
        xp: Any = np if isinstance(distance, np.ndarray) else jnp
        owner, v = self.images[0], self.freedom
        heavy = 0.5 * (v + self.size)[owner]
        return self.fronts[owner] - heavy * xp.log1p(distance / v[owner])

    def log_density(self, x: Any) -> Any:
        """log q at x [n, p], an array of NumPy or of JAX."""
        if not isinstance(x, np.ndarray):
            return log_sum(self.log_terms(self.distances(x)))
        rows = range(0, max(len(x), 1), _TOGETHER)
        return np.concatenate([self._log_density(x[k : k + _TOGETHER]) for k in rows])

    def _log_density(self, x: Array) -> Array:
        distance = self.distances(x)
        terms, top = self.terms(distance)
        total = terms.sum(1)
        far = ~(total > _TINY)  # (there a product is zero, or has lost digits)
        total[far] = 1.0
        found = top + np.log(total)
        if far.any():
            found[far] = log_sum(self.log_terms(distance[far]))
        return found

    @property
    def is_finite(self) -> bool:
        """Whether it is a density: points of a density without bound make none."""
        return all(np.isfinite(x).all() for x in (self.weight, self.loc, self.factor, self.freedom))

    def draw(self, random: np.random.Generator, count: int) -> Array:
        """Points [count, p]."""
        part = random.choice(len(self.weight), count, p=self.weight)
        noise = random.standard_normal((count, self.size))
        heavy = np.sqrt(self.freedom[part] / random.chisquare(self.freedom[part]))
        x = self.loc[part] + np.einsum("nij,nj->ni", self.factor[part], noise) * heavy[:, None]
        return np.where(self.folded[part], np.abs(x), x)

    def drawn(self, key: Any, count: int) -> Any:
        """The same under ``jax.jit``, from a JAX random key."""
        which, normal, chi = jax.random.split(key, 3)
        part = jax.random.choice(which, len(self.weight), (count,), p=jnp.asarray(self.weight))
        noise = jax.random.normal(normal, (count, self.size))
        half = 0.5 * jnp.asarray(self.freedom)[part]
        heavy = jnp.sqrt(half / jax.random.gamma(chi, half))
        turned = jnp.einsum("nij,nj->ni", jnp.asarray(self.factor)[part], noise)
        x = jnp.asarray(self.loc)[part] + turned * heavy[:, None]
        return jnp.where(jnp.asarray(self.folded)[part], jnp.abs(x), x)

    def defended(self, share: float = 0.15, wider: float = 1.6, freedom: float = 4.0) -> Proposal:
        """With a component of its own share, ``wider`` times as wide as all of them together."""
        mean = self.weight @ self.loc
        apart = self.loc - mean
        spread = self.scale + apart[:, :, None] * apart[:, None, :]
        whole = np.linalg.cholesky(np.einsum("m,mij->ij", self.weight, spread))
        return Proposal(
            np.append((1 - share) * self.weight, share),
            np.concatenate([self.loc, mean[None]]),
            np.concatenate([self.factor, wider * whole[None]]),
            np.append(self.freedom, freedom),
            np.concatenate([self.folded, self.folded.any(0, keepdims=True)]),
        )


def _power(base: Array, halves: float) -> Array:
    """base to the power -halves / 2: by products and a root, where halves are whole.

    Where NumPy has no vectorised logarithm, these take a fifth of the time of one.
    """
    if halves != int(halves):
        return base ** (-halves / 2)
    square = 1 / base
    found, left = (np.sqrt(square) if halves % 2 else np.ones_like(base)), int(halves) // 2
    while left:
        if left % 2:
            found *= square
        left //= 2
        if left:
            square = square * square
    return found


def constants(freedom: Array, p: int) -> Array:
    """log of the constant of a t density in p dimensions, of each component."""
    each: Sequence[float] = [
        math.lgamma((v + p) / 2) - math.lgamma(v / 2) - 0.5 * p * math.log(v * math.pi)
        for v in freedom.tolist()
    ]
    return np.array(each)


def log_sum(terms: Any) -> Any:
    """log Σ exp of the last axis, of an array of NumPy or of JAX."""
    xp: Any = np if isinstance(terms, np.ndarray) else jnp
    top = terms.max(-1, keepdims=True)
    return top[..., 0] + xp.log(xp.exp(terms - top).sum(-1))


__all__ = ["Proposal", "constants", "log_sum"]
