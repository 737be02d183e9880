"""Proposals fitted to weighted points: maximum likelihood of folded t mixtures by EM.

A point x of weight w belongs to an image (component m, signs e) by the share r of that term in
q(x), and counts there with u = (ν + p)/(ν + d²), d its distance (Peel & McLachlan 2000; for weights
Hoogerheide et al. 2012). Then

    μ_m = Σ w r u (e ∘ x) / Σ w r u,    L_m L_mᵀ = Σ w r u (e ∘ x - μ_m)(e ∘ x - μ_m)ᵀ / Σ w r,

the sums being over points and the images of m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autmarg.sampling.proposal import Proposal, constants

Array = np.ndarray

_FREEDOM = (4.0, 6.0, 10.0)  # more would leave the tails to chance
_ITERATIONS, _NEAR = 12, 1e-3  # nats a point, from which EM goes on
_MOST = 40_000  # points that are fitted to
_POINTS = 4  # effective points for each dimension of a component, at least
_HALF_NORMAL = 1.4  # mean over deviation: 1.32 of a half-normal, more off zero
_RIDGE = 1e-3  # least variance within a component, relative to the whole


def fitted(x: Array, weights: Array, start: Proposal, positive: Array) -> Proposal:
    """The mixture of as many components as ``start`` has, fitted from there.

    Args:
        x: points [n, p].
        weights: of them [n], which add up to one.
        start: components; those of too few points are dropped.
        positive: which coordinates have no density below zero, [p].
    """
    points = _Points.of(x, weights, positive)
    before, found = -np.inf, start
    for _ in range(_ITERATIONS):
        distance = points.distances(found)
        shares, top = found.terms(distance)
        total = np.maximum(shares.sum(1), np.finfo(float).tiny)
        likelihood = top + float(points.weights @ np.log(total))
        if likelihood - before < _NEAR:
            break
        before = likelihood
        shares *= (points.weights / total)[:, None]
        found = _maximised(found, points, shares, distance)
    return found


@dataclass(frozen=True, eq=False)
class _Points:
    """Weighted points with their products, so that a step of EM is two products of matrices.

    Attributes:
        x: [n, p], less ``centre``.
        design: x_i x_j for i ≤ j, x_i, and one, of each point, [n, p (p + 1) / 2 + p + 1].
        weights: [n].
        centre: [p]; zero where signs are dropped.
        positive: [p].
    """

    x: Array
    design: Array
    weights: Array
    centre: Array
    positive: Array

    @classmethod
    def of(cls, x: Array, weights: Array, positive: Array) -> _Points:
        """The points that count, or every second of them, …, where there are many."""
        here = np.flatnonzero(weights > 1e-2 / len(x))
        here = here[:: -(-len(here) // _MOST)]
        own = weights[here] / weights[here].sum()
        centre = np.where(positive, 0.0, own @ x[here])
        x = x[here] - centre
        i, j = np.triu_indices(x.shape[1])
        design = np.concatenate([x[:, i] * x[:, j], x, np.ones((len(x), 1))], axis=1)
        return cls(x, design, own, centre, positive)

    def distances(self, proposal: Proposal) -> Array:
        """Squared distances [n, J] from the images of a proposal's components."""
        owner, signs = proposal.images
        inverse = np.linalg.inv(proposal.factor)
        precision = (inverse.transpose(0, 2, 1) @ inverse)[owner]
        precision = precision * signs[:, :, None] * signs[:, None, :]
        loc = signs * (proposal.loc - self.centre)[owner]
        slope = np.einsum("jpq,jq->jp", precision, loc)
        i, j = np.triu_indices(proposal.size)
        squares = precision[:, i, j] * np.where(i == j, 1.0, 2.0)
        ends = np.einsum("jp,jp->j", slope, loc)[:, None]
        found = self.design @ np.concatenate([squares, -2 * slope, ends], axis=1).T
        return np.maximum(found, 0.0, out=found)

    def sums(self, counts: Array) -> tuple[Array, Array, Array]:
        """Σ c, Σ c x [J, p] and Σ c x xᵀ [J, p, p] over the points, of counts c [n, J]."""
        p = self.x.shape[1]
        every = counts.T @ self.design
        i, j = np.triu_indices(p)
        second = np.empty((len(every), p, p))
        second[:, i, j] = second[:, j, i] = every[:, : len(i)]
        return every[:, -1], every[:, len(i) : -1], second


def _maximised(now: Proposal, points: _Points, shares: Array, distance: Array) -> Proposal:
    """One step of EM from shares w r [n, J] and squared distances [n, J]."""
    owner, signs = now.images
    p = now.size
    belongs = owner == np.arange(len(now.weight))[:, None]  # [M, J]
    counts = shares * (now.freedom[owner] + p) / (now.freedom[owner] + distance)  # w r u
    number, first, second = points.sums(counts)
    own, count = belongs @ shares.sum(0), belongs @ number
    least = _POINTS * p * float(np.square(points.weights).sum())
    kept = np.flatnonzero(own > least) if (own > least).any() else [int(np.argmax(own))]
    loc = belongs @ (signs * first) / count[:, None]
    second = np.einsum("mj,jp,jpq,jq->mpq", belongs.astype(float), signs, second, signs)
    scale = second - count[:, None, None] * loc[:, :, None] * loc[:, None, :]
    ridge = _RIDGE * np.diag(points.weights @ np.square(points.x - points.weights @ points.x))
    return Proposal.of(
        own[kept] / own[kept].sum(),
        loc[kept] + points.centre,
        scale[kept] / own[kept, None, None] + ridge,
        _freedom(shares, distance, belongs[kept], p),
        points.positive,
    )


def _freedom(shares: Array, distance: Array, belongs: Array, p: int) -> Array:
    """The degrees of freedom of most likelihood, of a few, for each component [M].

    ``belongs`` [M, J] says which images are whose. Logarithms in single precision tell enough.
    """
    shares, distance = shares.astype(np.float32), distance.astype(np.float32)
    every, each = shares.sum(0), []
    for v, constant in zip(_FREEDOM, constants(np.array(_FREEDOM), p), strict=True):
        logs = np.einsum("nj,nj->j", shares, np.log(1 + distance / np.float32(v)))
        each.append(belongs @ (constant * every - 0.5 * (v + p) * logs))
    return np.array(_FREEDOM)[np.argmax(each, axis=0)]


def single(x: Array, weights: Array, positive: Array) -> Proposal:
    """One component with the mean and the covariance of weighted points [n, p].

    A positive coordinate with the shape of a folded normal about zero gets the centre zero there,
    and by symmetry no covariance.
    """
    mean = weights @ x
    scale = _covariance(x, weights, mean)
    zero = positive & (mean < _HALF_NORMAL * np.sqrt(np.diag(scale)))
    mean = np.where(zero, 0.0, mean)
    scale = _covariance(x, weights, mean)
    apart = zero[:, None] & ~np.eye(len(mean), dtype=bool)
    scale[apart | apart.T] = 0.0
    return Proposal.of(np.ones(1), mean[None], scale[None], np.array([6.0]), positive)


def _covariance(x: Array, weights: Array, centre: Array) -> Array:
    apart = x - centre
    scale = (apart * weights[:, None]).T @ apart
    return scale + 1e-9 * np.diag(np.diag(scale))


def split(now: Proposal, x: Array, weights: Array, excess: Array, positive: Array) -> Proposal:
    """With a component more, where the density is most above the proposal's.

    Args:
        now: the mixture, without a defensive component.
        x, weights, positive: as for :func:`fitted`.
        excess: log p - log q of each point, up to a constant.
    """
    order = np.argsort(-excess)
    most = int(np.searchsorted(np.cumsum(weights[order]), 0.2))
    there = order[: max(most, 4 * now.size)]
    loc = weights[there] @ x[there] / weights[there].sum()
    one = single(x, weights, positive)
    return Proposal.of(
        np.append(0.8 * now.weight, 0.2),
        np.concatenate([now.loc, loc[None]]),
        np.concatenate([now.scale, one.scale]),
        np.append(now.freedom, 6.0),
        positive,
    )


__all__ = ["fitted", "single", "split"]
