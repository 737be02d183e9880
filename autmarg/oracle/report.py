"""What the oracle found, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

EXACT, NOT_EXACT, INCONCLUSIVE = "exact", "not exact", "inconclusive"
_SHOWN = 3  # points or sites that a line spells out


@dataclass(frozen=True)
class Report:
    """Errors of the exactness identity in nats.

    Attributes:
        errors: at prior draws of the kept sites that could be compared: recovery draws, then
            points far from each.
        log_densities: log p(θ, u, y) of the source at the same points.
        tolerance: what an error may be: 1e-9 (1e-4 in float32) · (rows + dimensions).
        limits: what each may be: the tolerance, or where it is more, what rounding does to a
            log-density of that size (see :func:`autmarg.verify`).
        scaled_tolerance, scaled_errors, scaled_limits: the same at recovery draws where the kept
            scales are small and large: 1e-6 (1e-4 in float32) · (rows + dimensions).
        left_out: how many points were left out because the source has no finite log-density there,
            or, at ``edge`` of them, would have none with its numbers rounded otherwise.
        reasons: why, a sentence for each site of the source that is the cause.
        lost: the kept scales at points where the source's log-density is finite and autmarg's is
            NaN, because digits would be lost.
        differing: where it is not exact: the sites whose terms differ, and by how much at worst.
        note: what else there is to say, e.g. that there are no data; or "".
        rows, dimensions: observed elements, and dimensions integrated out or sampled.
        integrated: the sites that recovery gives back.
        whitened: those of them that are functions of standard noise.
        quadrature: what is integrated out numerically, in words: then the identity says that
            recovery draws from what was integrated, and not how near the integral is.
        unfounded: where the source has no finite log-density at a prior draw and autmarg's has one:
            a sentence for each site of the source that is the cause.
    """

    errors: tuple[float, ...]
    log_densities: tuple[float, ...]
    tolerance: float
    limits: tuple[float, ...]
    left_out: int
    rows: int
    dimensions: int
    integrated: tuple[str, ...]
    scaled_tolerance: float = 0.0
    scaled_errors: tuple[float, ...] = ()
    scaled_limits: tuple[float, ...] = ()
    reasons: tuple[str, ...] = ()
    lost: tuple[Mapping[str, float], ...] = ()
    differing: tuple[tuple[str, float], ...] = ()
    note: str = ""
    whitened: tuple[str, ...] = ()
    quadrature: tuple[str, ...] = ()
    unfounded: tuple[str, ...] = ()
    edge: int = 0

    @property
    def verdict(self) -> str:
        """``"exact"``, ``"not exact"``, or ``"inconclusive"`` where no point could be compared."""
        if self.unfounded:
            return NOT_EXACT
        points = [*self._draws, *self._scaled]
        if not points:
            return INCONCLUSIVE
        return EXACT if all(size <= limit for size, limit in points) else NOT_EXACT

    @property
    def exact(self) -> bool:
        """Whether every error is within its limit, at one point at least."""
        return self.verdict == EXACT

    @property
    def worst(self) -> float:
        """The largest absolute error at prior draws (infinite where it is not a number)."""
        return max((size for size, _ in self._draws), default=np.nan)

    @property
    def _draws(self) -> list[tuple[float, float]]:
        return _sized(self.errors, self.limits)

    @property
    def _scaled(self) -> list[tuple[float, float]]:
        return _sized(self.scaled_errors, self.scaled_limits)

    def __str__(self) -> str:
        gone = ", ".join(n for n in self.integrated if n not in self.whitened) or "nothing"
        white = f"; whitened: {', '.join(self.whitened)}" if self.whitened else ""
        verdict = "NOT EXACT" if self.verdict == NOT_EXACT else self.verdict
        verdict += " but for quadrature" if self.quadrature and self.exact else ""
        lines = [f"verify: {verdict}; integrated out: {gone}{white}", *self._compared()]
        if self.differing and self.verdict == NOT_EXACT:
            sites = (f"{name} by {error:.2e} nats" for name, error in self.differing[:_SHOWN])
            lines.append(f"the terms that differ: {', '.join(sites)}")
        if self.unfounded:
            reasons = "; ".join(self.unfounded)
            lines.append(f"autmarg's density is finite where the source has none: {reasons}")
        lines += self._left_out()
        lines += self.quadrature
        lines += [self.note] if self.note else []
        return "\n  ".join(lines)

    def _compared(self) -> Iterator[str]:
        size = f" ({self.rows} rows, {self.dimensions} dimensions)"
        for points, tolerance, where in (
            (self._draws, self.tolerance, ""),
            (self._scaled, self.scaled_tolerance, " with small and large scales"),
        ):
            plain = [error for error, limit in points if limit <= tolerance]
            rounded = [(error, limit) for error, limit in points if limit > tolerance]
            if plain:
                yield (
                    f"largest error {max(plain):.2e} nats over {_points(len(plain))}{where}, "
                    f"tolerance {tolerance:.2e}{'' if where else size}"
                )
            if rounded:
                error, limit = max(rounded, key=lambda pair: pair[0] / pair[1])
                yield (
                    f"{error:.2e} nats at worst over {_points(len(rounded))}{where} at which log p "
                    f"is so large that rounding is the limit, {limit:.2e}"
                )

    def _left_out(self) -> Iterator[str]:
        if self.lost:
            some = "; ".join(_scales(scales) for scales in self.lost[:_SHOWN])
            more = f"; and {len(self.lost) - _SHOWN} more" if len(self.lost) > _SHOWN else ""
            yield (
                f"digits lost at {_points(len(self.lost))}, where autmarg's density is NaN: "
                f"{some}{more}"
            )
        if self.left_out > self.edge:
            without = _points(self.left_out - self.edge)
            yield (
                f"{without} left out: the source has no finite log-density there; "
                + "; ".join(self.reasons)
            )
        if self.edge:
            yield (
                f"{_points(self.edge)} left out: the source's log-density is finite there, and "
                "would not be if its numbers were rounded otherwise"
            )


def _sized(errors: tuple[float, ...], limits: tuple[float, ...]) -> list[tuple[float, float]]:
    sizes = (abs(e) if np.isfinite(e) else np.inf for e in errors)
    return list(zip(sizes, limits, strict=True))


def _points(count: int) -> str:
    return f"{count} point{'' if count == 1 else 's'}"


def _scales(scales: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:.2g}" for name, value in scales.items()) or "no kept scale"
