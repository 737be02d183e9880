"""Independence Metropolis: chains over proposals that were drawn and weighed beforehand.

A chain at weight w goes to a proposal of weight w' with probability min(1, w'/w), so it stays with
probability λ(w) = E_q[1 - min(1, w'/w)], for m proposals with λᵐ. Draws m proposals apart are worth

    1 / E_p[(1 + λᵐ) / (1 - λᵐ)]

independent ones each: the spectrum of the chain is the values of λ (Liu 1996).
"""

from __future__ import annotations

import numpy as np

from autmarg.sampling.weights import normalised

Array = np.ndarray

WORTH = 0.9  # independent draws that each draw should be worth


def staying(log_weights: Array) -> Array:
    """λ at each of some points from the proposal, [n]."""
    weights = normalised(log_weights)
    order = np.argsort(weights)
    ordered = weights[order]
    # E min(1, w'/w): those above w count one, those below w'/w.
    below = np.cumsum(ordered) - ordered
    count = len(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(ordered > 0, below / ordered, 0.0)
    accepted = (ratio + count - np.arange(count)) / count
    found = np.empty(count)
    found[order] = np.clip(1 - accepted, 0.0, 1 - 1 / count)
    return found


def acceptance(log_weights: Array) -> float:
    """Share of proposals that chains accept."""
    return float(1 - normalised(log_weights) @ staying(log_weights))


def proposals_for(log_weights: Array, worth: float) -> int:
    """Proposals for each draw with which it is worth so many independent ones."""
    weights, stay = normalised(log_weights), staying(log_weights)
    low, high = 0, 1

    def enough(m: int) -> bool:
        return bool(weights @ ((1 + stay**m) / (1 - stay**m)) <= 1 / worth)

    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def chains(log_weights: Array, start: Array, every: int, random: np.random.Generator) -> Array:
    """Places of the proposals that chains are at, [chains, draws]; -1 is where a chain started.

    Args:
        log_weights: of the proposals, [chains, draws · every].
        start: log weights at which chains start, [chains].
        every: proposals for each draw.
        random: of what is accepted.
    """
    noise = np.log(random.random(log_weights.shape))
    found = np.empty((len(start), log_weights.shape[1] // every), int)
    for c, own in enumerate(start.tolist()):
        now, place, places = own, -1, []
        offers = log_weights[c].tolist()
        for k, (offer, u) in enumerate(zip(offers, noise[c].tolist(), strict=True)):
            if u < offer - now:
                now, place = offer, k
            if (k + 1) % every == 0:
                places.append(place)
        found[c] = places
    return found


__all__ = ["WORTH", "acceptance", "chains", "proposals_for", "staying"]
