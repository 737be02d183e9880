"""Rounds of adaptation: from the mode to a proposal that is worth sampling from.

Each round draws from the proposal of the one before, weighs the points by p/q, and fits the next
proposal to them, with a component more as long as that pays. Points of the last rounds count
together, against the mixture of their proposals (Cornuet et al. 2012): by themselves those of a bad
proposal would have a few large weights that say everything. While few points count, weights are
flattened to a power (Koblents & Míguez 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autmarg.sampling.fitting import fitted, single, split
from autmarg.sampling.metropolis import WORTH, proposals_for
from autmarg.sampling.mode import Mode
from autmarg.sampling.proposal import Proposal, log_sum
from autmarg.sampling.target import Target
from autmarg.sampling.warp import Warp, Warped, warp_of
from autmarg.sampling.weights import effective, normalised

Array = np.ndarray

_FIRST, _ROUND, _EACH = 512, 1536, 192  # points of the first round, of a later one, a dimension
_ROUNDS, _POOLED, _COMPONENTS = 10, 3, 6
_GOOD, _FAIR = 0.85, 0.4  # efficiency that is good enough; below which every gain is worth a round
_FEW = 0.1  # share of points that count, below which weights are flattened


@dataclass(frozen=True, eq=False)
class Round:
    """One round.

    Attributes:
        proposal: drawn from.
        points, log_weights: [n, p] and log p/q [n].
        warp: from the points' coordinates to the target's.
    """

    proposal: Proposal
    points: Array
    log_weights: Array
    warp: Warp

    @property
    def efficiency(self) -> float:
        """Effective draws for each evaluation."""
        if not np.isfinite(self.log_weights).any():
            return 0.0
        return effective(normalised(self.log_weights)) / len(self.log_weights)


def first_proposal(target: Target, mode: Mode) -> Proposal:
    """A t density about the mode, in the sampler's coordinates.

    With z = log x of a positive coordinate, x has about x̂ times the deviations of z.
    """
    scale = np.where(target.positive, np.exp(np.minimum(mode.point, 700)), 1.0)
    loc = np.where(target.positive, scale, mode.point)
    # (a scale that the data know within a factor says little beyond that)
    deviation = np.sqrt(np.diag(mode.covariance))
    narrow = np.where(target.positive, np.minimum(1.0, 1.5 / deviation), 1.0)
    spread = mode.covariance * np.outer(scale * narrow, scale * narrow)
    spread += 1e-9 * np.diag(np.diag(spread))
    return Proposal.of(
        np.ones(1), loc[None], 1.4 * spread[None], np.array([5.0]), target.positive
    ).defended()


def adapted(target: Target, mode: Mode, random: np.random.Generator, draws: int) -> Round:
    """The best round: its proposal has the most effective draws for each evaluation.

    ``draws`` says how many are wanted: rounds go on while they save more densities than they take.
    """
    size = max(_ROUND, _EACH * target.size)
    plain = Warped(target, Warp.none(target.size))
    rounds = [_round(plain, first_proposal(target, mode), random, _FIRST)]
    space, best, bare = plain, rounds[0], None
    known = [best.efficiency]
    for k in range(_ROUNDS):
        x, log_weights = _pooled(rounds[-_POOLED:])
        if k == 1:
            # From here on in coordinates that these points choose, so that rounds start anew.
            warp = warp_of(x, _flattened(log_weights), target.positive)
            space, rounds, bare = Warped(target, warp), [], None
            x = x * warp.widths(x)
        bare = _next(space, x, log_weights, bare)
        if not bare.is_finite:
            break  # the density has no bound
        rounds.append(_round(space, bare.defended(), random, size))
        if rounds[-1].efficiency > best.efficiency:
            best = rounds[-1]
        known.append(best.efficiency)
        if best.efficiency > _GOOD or _saved(known, best, draws) < size:
            break
    return best


def _saved(known: list[float], best: Round, draws: int) -> float:
    """Densities of so many draws that the last two rounds save, by the best efficiency of each."""
    if len(known) < 3 or (known[-1] < _FAIR and known[-1] > known[-3]):
        return math.inf
    return (1 - known[-3] / known[-1]) * draws * proposals_for(best.log_weights, WORTH)


def refined(target: Target, rounds: list[Round], random: np.random.Generator) -> Round:
    """A round more, its proposal fitted to all points of some rounds; the last says where from."""
    x, log_weights = _pooled(rounds)
    space = Warped(target, rounds[-1].warp)
    bare = _next(space, x, log_weights, _undefended(rounds[-1].proposal))
    if not bare.is_finite:
        return rounds[-1]
    return _round(space, bare.defended(), random, max(_ROUND, _EACH * target.size))


def _undefended(proposal: Proposal) -> Proposal:
    """The mixture without its last component, which is the wide one."""
    weight = proposal.weight[:-1] / proposal.weight[:-1].sum()
    each = (proposal.loc, proposal.factor, proposal.freedom, proposal.folded)
    return Proposal(weight, *(array[:-1] for array in each))


def _round(space: Warped, proposal: Proposal, random: np.random.Generator, count: int) -> Round:
    y = proposal.draw(random, count)
    return Round(proposal, y, space.log_density(y) - proposal.log_density(y), space.warp)


def _pooled(rounds: list[Round]) -> tuple[Array, Array]:
    """Points of some rounds, weighed against the mixture of all their proposals."""
    x = np.concatenate([each.points for each in rounds])
    counts = np.array([len(each.points) for each in rounds])
    known = [each.proposal.log_density(x) for each in rounds]
    log_q = np.stack(known) + np.log(counts / counts.sum())[:, None]
    first = np.cumsum(counts) - counts
    density = np.concatenate([
        each.log_weights + own[k : k + n]
        for each, own, k, n in zip(rounds, known, first, counts, strict=True)
    ])  # fmt: skip
    return x, density - log_sum(log_q.T)


def _next(space: Warped, x: Array, log_weights: Array, bare: Proposal | None) -> Proposal:
    """The proposal fitted to weighed points, with a component more than ``bare``, the one before.

    While few points count, it has one component.
    """
    weights, positive = _flattened(log_weights), space.positive
    if bare is None or effective(weights) < _FEW * len(weights):
        start = single(x, weights, positive)
    elif len(bare.weight) < _COMPONENTS:
        excess = log_weights - bare.defended().log_density(x)
        start = split(bare, x, weights, excess, positive)
    else:
        start = bare
    with np.errstate(over="ignore", invalid="ignore"):  # (of a density without bound)
        return fitted(x, weights, start, positive)


def _flattened(log_weights: Array) -> Array:
    """Weights, cut at √n times their mean, to the largest power with which enough of them count."""
    finite = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    low, high = 0.0, 1.0
    if effective(normalised(finite)) < _FEW / 2 * len(finite):
        for _ in range(20):
            power = 0.5 * (low + high)
            enough = effective(normalised(power * finite)) >= _FEW / 2 * len(finite)
            low, high = (power, high) if enough else (low, power)
        finite = np.where(np.isfinite(finite), low * finite, -np.inf)
    weights = normalised(finite)
    weights = np.minimum(weights, math.sqrt(len(weights)) * weights.mean())
    return weights / weights.sum()


__all__ = ["Round", "adapted", "first_proposal", "refined"]
