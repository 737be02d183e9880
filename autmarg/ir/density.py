"""What a marginal node and its recovery node ask of the density that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


class Density(Protocol):
    """log p(y | θ) and p(members | y, θ), as functions of the kept latents θ by name.

    Members' arrays have their sites' elements, in any shape. A prior that a mask takes out of the
    program is counted by neither.
    """

    def log_density(self, values: Mapping[str, Any]) -> Any:
        """log p(y | θ), a scalar."""
        ...

    def draw(
        self, values: Mapping[str, Any], key: Any, stretch: float = 1.0
    ) -> tuple[dict[str, Any], Any]:
        """An exact draw of the members, and its log-density.

        With ``stretch`` above one, a point that many conditional standard deviations away (then
        nothing is said of its log-density).
        """
        ...

    def log_conditional(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Any:
        """log p(members | y, θ) at any values of the members."""
        ...

    def moments(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Conditional mean and variance of each member."""
        ...


@runtime_checkable
class Numerical(Density, Protocol):
    """A density that is a sum over the nodes of a quadrature rule."""

    @property
    def nodes(self) -> int:
        """Of each integral."""
        ...

    @property
    def work(self) -> int:
        """How many elements of log-densities are evaluated."""
        ...

    def change(self, values: Mapping[str, Any]) -> Any:
        """By how many nats more nodes over a wider range change the log-density."""
        ...
