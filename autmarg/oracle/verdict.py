"""From numbers at points to a report: what could be compared, what not and why, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.naming import located
from autmarg.errors import named
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.oracle.identity import Found
from autmarg.oracle.points import Points
from autmarg.oracle.report import Report
from autmarg.oracle.rounding import MOVED, RELATIVE
from autmarg.plan.plan import Plan

ROUNDINGS = 10.0  # of a program's own numbers: each of its steps, and ours, rounds as well


def report_of(
    plan: Plan, points: Points, found: Found, scopes: Mapping[str, tuple[str, ...]], note: str
) -> Report:
    """The report on what was found at all points.

    A point is left out where the source's log-density is not finite. At a draw of all latents ours
    is not finite there either, or it is another density. (Far away, a scale or a probability may
    have been rounded to zero.) Where the source's is finite and ours is NaN,
    digits were lost, which is ours to say and no error.

    Args:
        plan: of the transformed model.
        points: where the identity was held.
        found: the numbers.
        scopes: marginal → the sites whose density it has.
        note: for the report.
    """
    moved = np.any(points.exponents, axis=1)
    tolerance, scaled_tolerance = _tolerances(plan)
    error, density = found.error, found.log_density
    finite = np.isfinite(density)
    unfounded = ~finite & ~moved & (points.stretch == 1.0) & np.isfinite(found.target)
    left_out = ~finite & ~unfounded
    lost = finite & (np.isnan(error) | ~found.ours)
    used = finite & ~lost
    tolerances = np.where(moved, scaled_tolerance, tolerance)
    limits = _limits(found, moved, tolerances)
    if plan.whitened:
        # Stand-ins fitted at the mode are to a prior draw what data are to one with moved scales.
        limits = _limits(found, moved | (np.abs(error) > limits), tolerances)
    wrong = used & ~(np.abs(error) <= limits)
    edge = wrong & ~np.isfinite(found.rounding)
    used, wrong = used & ~edge, wrong & ~edge
    scaled, draws = used & moved, used & ~moved
    return Report(
        tuple(error[draws].tolist()),
        tuple(density[draws].tolist()),
        tolerance,
        tuple(limits[draws].tolist()),
        int(left_out.sum() + edge.sum()),
        _rows(plan.program),
        sum(plan.dimensions.values()),
        plan.recovered,
        scaled_tolerance,
        tuple(error[scaled].tolist()),
        tuple(limits[scaled].tolist()),
        tuple(_reasons(plan.program, found, left_out)),
        tuple({n: float(x[k]) for n, x in found.scales.items()} for k in np.flatnonzero(lost)),
        tuple(_differing(plan.program, found, scopes, wrong, limits)),
        note,
        plan.whitened,
        plan.quadrature,
        tuple(_reasons(plan.program, found, unfounded)),
        int(edge.sum()),
    )


def _rows(program: Program) -> int:
    return sum(n.size for n in program.nodes if isinstance(n, Observe))


def _tolerances(plan: Plan) -> tuple[float, float]:
    """Nats that errors may have at prior draws, and at small and large scales.

    At the latter a density that is off by more is NaN (:mod:`autmarg.gaussian.schedule`).
    """
    program = plan.program
    parameters = [v for n in program.nodes if isinstance(n, Sample) for v in n.distribution.values]
    # NumPyro computes a density in the precision of the distribution's own parameters.
    single = any(program.tape.avals[v].dtype == jnp.float32 for v in parameters)
    size = _rows(program) + sum(plan.dimensions.values())
    if single or not jax.config.read("jax_enable_x64"):
        return 1e-4 * size, 1e-4 * size
    return 1e-9 * size, 1e-6 * size


def _limits(found: Found, coarse: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """What the error may be at each point: see :func:`autmarg.verify`."""
    relative = np.where(coarse, MOVED, RELATIVE) * found.magnitude
    rounding = np.maximum(ROUNDINGS * found.rounding, relative)
    return np.maximum(np.nan_to_num(rounding, nan=0.0, posinf=0.0), tolerance)


def _reasons(program: Program, found: Found, left_out: np.ndarray) -> Iterator[str]:
    """A sentence for each site that is the first without a finite density at some point."""
    places = {n.name: n for n in program.nodes}
    order = [name for name in places if name in found.sites]
    order += [name for name in found.sites if name not in order]
    waiting = left_out.copy()
    for name in order:
        undrawn = waiting & ~found.drawn.get(name, np.ones_like(waiting))
        log = found.sites[name]
        nan, infinite = waiting & ~undrawn & np.isnan(log), waiting & ~undrawn & np.isinf(log)
        waiting &= ~(undrawn | nan | infinite)
        node = places.get(name)
        kind = node.distribution.kind if isinstance(node, Sample) else ""
        hint = " (is its covariance positive definite there?)" if "Multivariate" in kind else ""
        where = located(node) if node is not None else f"'{name}'"
        if undrawn.any():
            yield f"{where} draws no finite value from its own prior at {undrawn.sum()}{hint}"
        if nan.any():
            yield f"{where} has log-density NaN at {nan.sum()}{hint}"
        if infinite.any():
            sign = "-" if (log[infinite] < 0).all() else ""
            outside = " (its data are impossible there)" if isinstance(node, Observe) else ""
            yield f"{where} has log-density {sign}inf at {infinite.sum()}{outside}"
    if waiting.any():
        yield f"the sum of its sites' log-densities overflows at {waiting.sum()}"


def _differing(
    program: Program,
    found: Found,
    scopes: Mapping[str, tuple[str, ...]],
    wrong: np.ndarray,
    limits: np.ndarray,
) -> Iterator[tuple[str, float]]:
    """The nodes whose terms differ at points that are not exact, the worst first."""
    if not wrong.any():
        return
    worst = {}
    for name, error in found.errors.items():
        size = np.where(np.isfinite(error), np.abs(error), np.inf)
        if (size[wrong] > limits[wrong]).any():
            worst[name] = float(size[wrong].max())
    for name in sorted(worst, key=lambda name: -worst[name]):
        sites = [site for site in scopes.get(name, (name,)) if site in program]
        last = located(program[sites[-1]]) if sites else name
        words = f"{named(sites[:-1])} with {last}" if sites[1:] else last
        yield words, worst[name]
