"""Draws by independence Metropolis from an adapted proposal, and the grounds to trust them.

Every density is evaluated beforehand, many at a time; the chains only choose among them. The method
knows when it fails: what it refuses is told in words and left to NUTS.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from autmarg.sampling.adapt import Round, adapted, refined
from autmarg.sampling.coordinates import Kind
from autmarg.sampling.metropolis import WORTH, acceptance, chains, proposals_for
from autmarg.sampling.mode import Mode, modes
from autmarg.sampling.target import Target
from autmarg.sampling.warp import Warped
from autmarg.sampling.weights import log_mean, normalised, pareto_shape

Array = np.ndarray

MOST_DIMENSIONS = 12
# Proposals for each draw, with more than which a proposal, or a density, is given up.
MANY_PROPOSALS, MOST_PROPOSALS = 10, 20
_PARETO, _RHAT, _FEW_DRAWS = 0.5, 0.02, 20.0
_HOPELESS = 0.6  # k̂ of one proposal for each draw, with which there are no more
_TRIES = 4  # proposals that are sampled from
_OTHER_MODE = 7.0  # nats of mass, below the largest mode's, from which another one matters
_LOST = 0.01  # share of proposals without a density, where it should have one


@dataclass(frozen=True)
class Unfit:
    """Why independence sampling was not trusted.

    Attributes:
        reason: in words, a clause that begins in lower case.
    """

    reason: str


def too_many(dimensions: int) -> Unfit:
    """The refusal of so many dimensions."""
    return Unfit(
        f"{dimensions} dimensions are left to sample, and proposals for all of them at once are "
        f"hardly accepted beyond {MOST_DIMENSIONS}"
    )


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws in the sampler's coordinates, and how good they are.

    Attributes:
        points: [chains, draws, p].
        drawn: all proposals with their weights.
        every: proposals for each draw.
        wanted: those that the weights ask for.
        acceptance: share of proposals that the chains accepted.
        pareto_shape: k̂ of the weights.
        rhat, ess: the largest R̂ and the least effective sample size over the coordinates.
        log_evidence, error: log of the mean weight in nats, and its standard error.
        evaluations: of the density, for everything.
        seconds: by phase.
    """

    points: Array
    drawn: Round
    every: int
    wanted: int
    acceptance: float
    pareto_shape: float
    rhat: float
    ess: float
    log_evidence: float
    error: float
    evaluations: int
    seconds: dict[str, float] = field(default_factory=dict)


def sampled(
    target: Target, random: np.random.Generator, num_chains: int, num_samples: int
) -> Draws | Unfit:
    """Draws of a target, or why not."""
    seconds: dict[str, float] = {}
    last = adaptation(target, random, seconds, num_chains * num_samples)
    if isinstance(last, Unfit):
        return last
    started = time.perf_counter()
    rounds, size = [last], (num_chains, num_samples)
    draws = _drawn(target, last, random, size, MANY_PROPOSALS)
    for k in range(1, _TRIES):
        if isinstance(_trusted(target, draws), Draws):
            break
        # What was drawn is many more points to fit a proposal to.
        rounds.append(draws.drawn)
        most = MANY_PROPOSALS if k < _TRIES - 1 else MOST_PROPOSALS
        draws = _drawn(target, refined(target, rounds, random), random, size, most)
    _lap(seconds, "sample", started)
    draws.seconds.update(seconds)
    return _trusted(target, draws)


def adaptation(
    target: Target, random: np.random.Generator, seconds: dict[str, float], draws: int
) -> Round | Unfit:
    """The best round of adaptation, or why there is none.

    Args:
        target: the density.
        random: of everything.
        seconds: gets those of each phase.
        draws: how many are wanted.
    """
    if target.size > MOST_DIMENSIONS:
        return too_many(target.size)
    discrete = [c.name for c in target.coordinates if c.kind is Kind.DISCRETE]
    if discrete:
        return Unfit(f"the sampled site '{discrete[0]}' is discrete")
    started = time.perf_counter()
    target.log_density(np.zeros((1, target.size)))
    started = _lap(seconds, "compile", started)
    found = _modes(target, random)
    if isinstance(found, Unfit):
        return found
    started = _lap(seconds, "mode", started)
    last = adapted(target, found[0], random, draws)
    _lap(seconds, "adapt", started)
    if not np.isfinite(last.log_weights).any():
        return Unfit("no proposal has a finite density")
    if proposals_for(last.log_weights, WORTH) > MOST_PROPOSALS:
        return _refused(last.log_weights)
    return last


def _lap(seconds: dict[str, float], phase: str, started: float) -> float:
    now = time.perf_counter()
    seconds[phase] = now - started
    return now


def _modes(target: Target, random: np.random.Generator) -> list[Mode] | Unfit:
    """Modes in NumPyro's unconstrained space, where a scale has its logarithm."""

    def density(z: Array) -> Array:
        with np.errstate(over="ignore"):
            x = np.where(target.positive, np.exp(z), z)
        return target.log_density(x) + np.where(target.positive, z, 0.0).sum(1)

    few = target.digits < 12
    found = modes(density, target.real, random, 0.5 if few else 0.03)
    if not found:
        return Unfit("no point with a finite density was found to start from")
    others = [m for m in found[1:] if m.log_mass > found[0].log_mass - _OTHER_MODE]
    if others:
        return Unfit(
            f"searches from several starts ended at {1 + len(others)} places of like mass: the "
            "density has several modes or a curved ridge"
        )
    return found


def _drawn(
    target: Target, last: Round, random: np.random.Generator, size: tuple[int, int], most: int
) -> Draws:
    """As many proposals for each draw as the weights of all of them ask for.

    Args:
        target: the density.
        last: with the proposal, and points from it.
        random: of everything.
        size: of the draws, (chains, draws of each).
        most: proposals for each draw; if more are asked for, or if the weights have a heavy tail,
            there are no more.
    """
    space, (num_chains, num_samples) = Warped(target, last.warp), size
    every, wanted, log_weights = 0, 1, last.log_weights
    parts: list[tuple[Array, Array]] = []
    while every < wanted <= most:
        x = last.proposal.draw(random, num_chains * num_samples * (wanted - every))
        weighed = space.log_density(x) - last.proposal.log_density(x)
        parts.append((x.reshape(num_chains, -1, target.size), weighed.reshape(num_chains, -1)))
        log_weights = np.append(log_weights, weighed)  # those of the last round tell, too
        every, wanted = wanted, max(wanted, proposals_for(log_weights, WORTH))
        if pareto_shape(log_weights) > _HOPELESS:
            break
    x, weighed = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    # Chains start at points of the last round, drawn by their weights.
    first = random.choice(len(last.points), num_chains, p=normalised(last.log_weights))
    places = chains(weighed, last.log_weights[first], every, random)
    points = np.stack([
        np.where((at >= 0)[:, None], x[c][at], last.points[first[c]])
        for c, at in enumerate(places)
    ])  # fmt: skip
    drawn = Round(last.proposal, x.reshape(-1, target.size), weighed.reshape(-1), last.warp)
    found = _diagnosed(target, last.warp.x(points), drawn, log_weights)
    return replace(found, every=every, wanted=wanted)


def _diagnosed(target: Target, points: Array, drawn: Round, log_weights: Array) -> Draws:
    enough = points.shape[1] >= 4
    rhat = split_gelman_rubin(points).max(initial=1.0) if enough else np.nan
    ess = effective_sample_size(points).min(initial=np.inf) if enough else np.nan
    log_evidence, error = log_mean(log_weights)
    return Draws(
        points, drawn, 0, 0, acceptance(log_weights), pareto_shape(log_weights), float(rhat),
        float(ess), log_evidence, error, target.evaluations,
    )  # fmt: skip


def _refused(log_weights: Array) -> Unfit:
    return Unfit(
        f"{MOST_PROPOSALS} proposals for each draw would not make it an independent one (of the "
        f"best that were found {acceptance(log_weights):.0%} are accepted)"
    )


def _trusted(target: Target, draws: Draws) -> Draws | Unfit:
    """The draws, unless something says that they are wrong."""
    if draws.wanted > draws.every:
        return _refused(draws.drawn.log_weights)
    if not draws.pareto_shape <= _PARETO:  # (NaN, too)
        return Unfit(
            f"the weights of proposals have a heavy tail (k̂ = {draws.pareto_shape:.2f}, expected "
            f"at most {_PARETO})"
        )
    # (R̂ of independent draws is further from one the fewer there are)
    most = 1 + max(_RHAT, _FEW_DRAWS / draws.points.shape[1])
    if draws.points.shape[1] >= 4 and not draws.rhat <= most:
        return Unfit(f"chains disagree (R̂ = {draws.rhat:.3f}, expected at most {most:.3f})")
    if target.lost > _LOST * target.evaluations:
        return Unfit(f"the density was NaN at {target.lost / target.evaluations:.0%} of the points")
    return draws


__all__ = [
    "MOST_DIMENSIONS",
    "MOST_PROPOSALS",
    "Draws",
    "Unfit",
    "adaptation",
    "sampled",
    "too_many",
]
