"""Proposals fitted to weighted points: maximum likelihood of folded t mixtures by EM.

A point x of weight w belongs to an image (component m, signs e) by the share r of that term in
q(x), and counts there with u = (ν + p)/(ν + d²), d its distance (Peel & McLachlan 2000; for weights
Hoogerheide et al. 2012). Then

    μ_m = Σ w r u (e ∘ x) / Σ w r u,    L_m L_mᵀ = Σ w r u (e ∘ x - μ_m)(e ∘ x - μ_m)ᵀ / Σ w r,

the sums being over points and the images of m.
"""

from __future__ import annotations

import numpy as np

from autmarg.sampling.proposal import Proposal, log_sum, log_t

Array = np.ndarray

_FREEDOM = (4.0, 6.0, 10.0)  # more would leave the tails to chance
_ITERATIONS, _NEAR = 15, 1e-3  # nats a point, from which EM goes on
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
    here = weights > 1e-2 / len(x)
    x, weights = x[here], weights[here] / weights[here].sum()
    before, found = -np.inf, start
    for _ in range(_ITERATIONS):
        terms, distance = found.terms(x)
        whole = log_sum(terms)
        likelihood = float(weights @ whole)
        if likelihood - before < _NEAR:
            break
        before = likelihood
        shares = np.exp(terms - whole[:, None]) * weights[:, None]
        found = _maximised(found, x, weights, shares, distance, positive)
    return found


def _maximised(
    now: Proposal, x: Array, weights: Array, shares: Array, distance: Array, positive: Array
) -> Proposal:
    """One step of EM from shares w r [n, J] and squared distances [n, J]."""
    owner, signs = now.images
    p = now.size
    own = np.array([shares[:, owner == m].sum() for m in range(len(now.weight))])
    least = _POINTS * p * float(np.square(weights).sum())
    kept = [m for m in range(len(own)) if own[m] > least] or [int(np.argmax(own))]
    ridge = _RIDGE * np.diag(weights @ np.square(x - weights @ x))
    locs, scales, freedoms = [], [], []
    for m in kept:
        images, v = np.flatnonzero(owner == m), now.freedom[m]
        counts = shares[:, images] * (v + p) / (v + distance[:, images])  # w r u
        loc = np.einsum("jp,jp->p", signs[images], counts.T @ x) / counts.sum()
        scale = ridge.copy()
        for j, count in zip(images, counts.T, strict=True):
            apart = signs[j] * x - loc
            scale += (apart * count[:, None]).T @ apart / own[m]
        locs.append(loc)
        scales.append(scale)
        freedoms.append(_freedom(shares[:, images], distance[:, images], p))
    return Proposal.of(
        own[kept] / own[kept].sum(), np.stack(locs), np.stack(scales), np.array(freedoms), positive
    )


def _freedom(shares: Array, distance: Array, p: int) -> float:
    """The degrees of freedom of most likelihood, of a few."""
    likelihood = [float((shares * log_t(distance, v, p)).sum()) for v in _FREEDOM]
    return _FREEDOM[int(np.argmax(likelihood))]


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
    apart = zero[:, None] ^ np.eye(len(mean), dtype=bool) & zero[:, None]
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
