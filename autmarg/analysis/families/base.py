"""What a family says of a distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autmarg.analysis.wording import a


@dataclass(frozen=True, eq=False)
class Gaussian:
    """x = bijection(loc + S ε), ε ~ N(0, I), with S in one of three forms.

    * ``scale``: independent elements.
    * ``scale_tril`` [..., d, d]: S along the last ``event_dim`` axes, flattened to d elements;
      lower-triangular (what stands above its diagonal is not read), the covariance is S Sᵀ.
    * ``basis`` [..., d, k] and ``scale`` [..., k]: S = basis · diag(scale) along the same axes. The
      basis must not depend on latents. Where k < d its columns must be orthonormal, the Gaussian is
      singular, and its density is that over the subspace that the basis spans.

    Attributes:
        loc: array that broadcasts against the value (before the bijection).
        scale: standard deviations that broadcast against the value, or against [..., k].
        scale_tril: see above, or None.
        basis: see above, or None.
        event_dim: axes that ``scale_tril`` or ``basis`` spans; 0 with ``scale`` alone.
        bijection: transforms from the Gaussian to the value, innermost first.
        mask: boolean array that broadcasts against the value, or None.
        proper: false for a flat prior that cannot be drawn from; its ``mask`` is False.
        past: value → what its own earlier elements add to the mean of each element, or None; the
            value is then a chain, x = bijection(loc + past(x) + S ε), in the order of its elements.
    """

    loc: Any
    scale: Any = None
    scale_tril: Any = None
    basis: Any = None
    event_dim: int = 0
    bijection: tuple[Any, ...] = ()
    mask: Any = None
    proper: bool = True
    past: Callable[[Any], Any] | None = None


class NotGaussian(Exception):
    """A distribution that is not Gaussian; the message names its class."""

    verdict = "not Gaussian"

    def __str__(self) -> str:
        name = super().__str__()
        return f"{a(name)}, {self.verdict}"


class Unread(NotGaussian):
    """A distribution that may be Gaussian, in a form that no family reads."""

    verdict = "which autmarg does not know as Gaussian (autmarg.register_gaussian teaches it)"


Family = Callable[[Any], Gaussian]


__all__ = ["Family", "Gaussian", "NotGaussian", "Unread"]
