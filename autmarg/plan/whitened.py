"""Whether latents are better whitened, and in pieces, by what a draw is predicted to take."""

from __future__ import annotations

from dataclasses import replace

from autmarg.plan.prediction import Prediction

# Latents are whitened where the source's draw costs twice as much, and a thousand effective draws
# of it _LONG seconds more: planning takes a few.
_WHITE, _LONG = 0.5, 5.0
# Latents in pieces take _APART times as many steps as a map that knows all of them at every θ (0.9
# to 1.7 on crossed factors).
_APART = 1.4


def takes_long(source: Prediction) -> bool:
    """Whether whitening could save enough.

    Groups are not known here, so that chains are predicted several times too short.
    """
    return 5 * 1000 * source.draw > _LONG


def takes_whitened(source: Prediction, whitened: Prediction) -> bool:
    """Whether latents are better whitened."""
    saved = source.draw - whitened.draw
    return whitened.draw < _WHITE * source.draw and 1000 * saved > _LONG


def in_pieces(predicted: Prediction, lag: float = 0.0) -> Prediction:
    """What is predicted for latents that are whitened apart.

    Args:
        predicted: for a map of their noise that knows all they have to do with one another.
        lag: by how many standard deviations of the noise its mean moves while θ does by one of its
            own: θ given the noise is narrower by √(1 + lag²) than θ, which is worth the square of
            that in steps.
    """
    return replace(predicted, steps=predicted.steps * _APART * (1 + lag**2))


__all__ = ["in_pieces", "takes_long", "takes_whitened"]
