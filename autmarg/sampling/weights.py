"""What importance weights say of a proposal: how many draws it is worth, and if it is any good."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def normalised(log_weights: Array) -> Array:
    """Weights that add up to one; those of no density are zero, and equal where all are."""
    top = log_weights.max()
    if not np.isfinite(top):
        return np.full(len(log_weights), 1 / len(log_weights))
    weights = np.exp(log_weights - top)
    return weights / weights.sum()


def effective(weights: Array) -> float:
    """(Σ w)² / Σ w² (Kong 1992)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def log_mean(log_weights: Array) -> tuple[float, float]:
    """log of the mean of weights, which is the log evidence, and its standard error."""
    top = float(log_weights.max())
    weights = np.exp(log_weights - top)
    mean = weights.mean()
    relative = weights.std() / mean / math.sqrt(len(weights))
    return top + math.log(mean), float(relative)


def pareto_shape(log_weights: Array) -> float:
    """k̂, the shape of a generalised Pareto density fitted to the largest weights.

    Above 0.5 their variance may be infinite (Vehtari et al. 2024). The tail has min(n/5, 3√n) of
    the weights; the fit is the profile posterior mean of Zhang & Stephens (2009) with the weak
    prior on k̂ of Vehtari et al.
    """
    count = len(log_weights)
    if not np.isfinite(log_weights).any():
        return math.inf  # no point has a density
    log_weights = np.maximum(log_weights, log_weights.max() - 700.0)
    most = int(min(count / 5, 3 * math.sqrt(count)))
    ordered = np.sort(log_weights)
    tail = np.exp(ordered[-most:] - ordered[-1]) - np.exp(ordered[-most - 1] - ordered[-1])
    if most < 5 or not tail[0] < tail[-1]:
        return -math.inf  # all of them equal
    tail = tail[tail > 0]
    n = len(tail)
    grid = 30 + int(math.sqrt(n))
    steps = np.arange(1, grid + 1)
    theta = 1 / tail[-1] + (1 - np.sqrt(grid / (steps - 0.5))) / (3 * tail[max(n // 4 - 1, 0)])
    shapes = np.log1p(-theta[:, None] * tail).mean(1)
    likelihood = n * (np.log(-theta / shapes) - shapes - 1)
    weight = np.exp(likelihood - likelihood.max())
    best = float((weight * theta).sum() / weight.sum())
    shape = float(np.log1p(-best * tail).mean())
    return (n * shape + 10 * 0.5) / (n + 10)


__all__ = ["effective", "log_mean", "normalised", "pareto_shape"]
