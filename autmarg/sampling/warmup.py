"""Warm-up of NUTS chains: windows at whose ends the metric is learned anew, and step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autmarg.compat.kernels import Place, averaging_from, step_size_of
from autmarg.sampling.metric import Frame, learned
from autmarg.sampling.steps import Chain, Stepper, Steps

_FIRST = 10  # steps of the first window, at least
_LAST = 50  # steps after the last window, at most, in which only the step size adapts


def windows(count: int) -> list[int]:
    """Lengths of the windows of so many steps of warm-up, each twice the one before.

    What they leave of the steps, a third or 50, is for the step size alone.
    """
    total = count - min(_LAST, count // 3)
    number = int(np.log2(total / _FIRST + 1)) if total > 0 else 0
    shares = [int(total * 2**k / (2**number - 1)) for k in range(number)]
    return [*shares[:-1], total - sum(shares[:-1])] if shares else []


def warmed(
    stepper: Stepper, chains: list[Chain], frames: list[Frame], count: int,
    watch: Callable[[int], Any] = lambda _: None,
) -> tuple[list[Chain], list[Frame], int]:  # fmt: skip
    """Chains after warm-up, in the frames learned there, and how many gradients it took.

    Args:
        stepper: takes the steps.
        chains: one for each frame, which they are in.
        frames: to start from.
        count: steps of warm-up.
        watch: called with the number of steps just taken.
    """
    gradients, lengths = 0, windows(count)
    for k, length in enumerate([*lengths, count - sum(lengths)]):
        chains, taken = stepper.take(chains, frames, length, adapting=True, watch=watch)
        gradients += sum(int(steps.num_steps.sum()) for steps in taken)
        if k < len(lengths):
            moved = [_moved(*each) for each in zip(chains, frames, taken, strict=True)]
            chains, frames = [c for c, _ in moved], [f for _, f in moved]
    sizes = [step_size_of(chain.averaging, average=True) for chain in chains] if count else []
    settled = [c._replace(step_size=s) for c, s in zip(chains, sizes, strict=False)]
    return settled or chains, frames, gradients


def _moved(chain: Chain, frame: Frame, steps: Steps) -> tuple[Chain, Frame]:
    """The chain in a frame about its place, in which what it drew is round."""
    draws, gradients = np.asarray(steps.draws), np.asarray(steps.gradients)
    block, scales = learned(draws, gradients, len(frame.block))
    place = Place(*map(np.asarray, chain.place))
    turned = Frame(np.zeros_like(place.point), block, scales)
    here = frame._replace(origin=frame.z(place.point))
    size = step_size_of(chain.averaging, average=True)
    pulled = np.asarray(turned.pulled(place.gradient), place.point.dtype)
    moved = chain._replace(
        place=Place(np.zeros_like(place.point), place.energy, pulled),
        averaging=averaging_from(size),
    )
    return moved, here.stretched(block, scales)


__all__ = ["warmed", "windows"]
