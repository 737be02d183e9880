"""How long an effective draw is predicted to take: a gradient's time, and how many it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autmarg.plan.order import SMALL_ROOT
from autmarg.plan.pricing import overhead

# Leapfrog steps for each effective draw, relative to everything integrated out, where the D effects
# of one factor are sampled non-centred: ONE · D^¼, the power with which the number of steps grows
# (Beskos et al. 2013, Bernoulli 19(5A)); for every further factor _FURTHER times as many. Effects
# that the data know well make the posterior of their standard noise narrow and bent along their
# scale: F/WELL times as many, F being the ratio of the variances between levels and within; as
# they are written they have a ridge with what they add up to, and take its root as many.
# From NUTS runs (docs/benchmarks.md): 1.9 to 3.1 (D = 32, F < 6), 3.0 (D = 80, F = 17), 2.6
# (D = 160, F = 71), 6.6 (D = 668, F = 32), 164 (D = 40, F = 2,350); for a further factor 1.2 to 5.
ONE, _FURTHER, WELL = 1.1, 2.0, 100.0
# Up to SMALL_ROOT effects, none of them in a chain, take no more than the few scales that are left
# without them (0.9 to 1.1 times with 6 to 9). Where each effect has a scale of its own that is
# sampled, a horseshoe's, they take LOCAL times as many (35 for 30 effects).
LOCAL = 20.0
# Under a likelihood that is not Gaussian the effects of a factor take UNWHITENED times as many in
# the better of their two forms, and whitened at the mode WHITENED times (the 13 models of
# examples/models/likelihoods.py: 1.1 to 28, median 3; 0.4 to 2.8, median 0.65).
UNWHITENED, WHITENED = 3.0, 0.65
_MOST = 1000.0  # times as many: a trajectory of NUTS has no more than 1,023 steps
BASE = 7.0  # leapfrog steps for each effective draw with everything integrated out


@dataclass(frozen=True)
class Effects:
    """What is sampled instead of a member.

    Attributes:
        name: of the member.
        count: how many effects there are.
        harder: how many times as many leapfrog steps they take, non-centred, than their number
            says.
        written: the same as they are written.
        likelihood: the same for what reads them; the most of several counts.
    """

    name: str
    count: int
    harder: float = 1.0
    written: float = 1.0
    likelihood: float = 1.0

    @property
    def as_written(self) -> bool:
        """Whether they take fewer as they are written."""
        return self.written < self.harder


def steps(sampled: Sequence[Effects], best: bool = False) -> float:
    """Leapfrog steps for each effective draw, relative to everything integrated out.

    ``best`` says that each is in the better of its two forms.
    """
    count = sum(each.count for each in sampled)
    factors = sum(each.count > SMALL_ROOT for each in sampled)
    harder = math.prod(min(e.harder, e.written) if best else e.harder for e in sampled)
    many = ONE * count**0.25 if count > SMALL_ROOT or harder > 1 else 1.0
    likelihood = max((each.likelihood for each in sampled), default=1.0)
    return min(many * _FURTHER ** max(factors - 1, 0) * harder * likelihood, _MOST)


@dataclass(frozen=True)
class Prediction:
    """What a program is predicted to take.

    Attributes:
        gradient: seconds of a value and gradient of its log-density.
        dimensions: that HMC samples.
        steps: leapfrog steps for each effective draw.
    """

    gradient: float
    dimensions: int
    steps: float

    @property
    def draw(self) -> float:
        """Seconds for each effective draw."""
        return (overhead(self.dimensions) + self.gradient) * self.steps

    def __str__(self) -> str:
        return f"{in_words(self.gradient)} per gradient, {in_words(self.draw)} per effective draw"


def in_words(value: float) -> str:
    """Seconds, in the unit that suits them."""
    return f"{value * 1e6:,.0f} µs" if value < 1e-3 else f"{value * 1e3:,.3g} ms"


__all__ = [
    "BASE", "LOCAL", "ONE", "UNWHITENED", "WELL", "WHITENED", "Effects", "Prediction", "in_words",
    "steps",
]  # fmt: skip
