"""The exactness oracle: log p(θ, u, y) = log p_marg(θ, y) + log p_recover(u | θ, y).

Left is the user's own program evaluated by NumPyro, right is ours. No Monte Carlo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import init_to_median
from numpyro.infer.util import log_density

from autmarg.driver import Compiled, MarginalizedModel, Model, transform
from autmarg.errors import ExactnessError
from autmarg.ir.nodes import Observe, Sample

# Conditional standard deviations by which the far points are away: what the rounding of a member
# to its own float does to log p grows with the distance, and would drown the check in float32.
FAR64, FAR32 = 10.0, 3.0


@dataclass(frozen=True)
class Report:
    """Errors of the exactness identity in nats.

    Attributes:
        errors: one at each recovery draw, then one far from each.
        log_densities: log p(θ, u, y) of the source at the same points.
        tolerance: what the largest may be.
        rows, dimensions: observed elements, and elements integrated out or sampled.
        integrated: the sites integrated out.
    """

    errors: tuple[float, ...]
    log_densities: tuple[float, ...]
    tolerance: float
    rows: int
    dimensions: int
    integrated: tuple[str, ...]

    @property
    def worst(self) -> float:
        """The largest absolute error (infinite where one is not a number)."""
        return max((abs(e) if np.isfinite(e) else np.inf for e in self.errors), default=0.0)

    @property
    def exact(self) -> bool:
        """Whether every error is within the tolerance."""
        return self.worst <= self.tolerance

    def __str__(self) -> str:
        gone = ", ".join(self.integrated) or "nothing"
        verdict = "exact" if self.exact else "NOT EXACT"
        return (
            f"verify: {verdict}; integrated out: {gone}\n"
            f"  largest error {self.worst:.2e} nats over {len(self.errors)} points, tolerance "
            f"{self.tolerance:.2e} ({self.rows} rows, {self.dimensions} dimensions)"
        )


def verify(
    model: Model | MarginalizedModel,
    *args: Any,
    points: int = 20,
    seed: int = 0,
    marginalize: str | Sequence[str] = "all",
    keep: Sequence[str] = (),
    reparameterize: str | Sequence[str] = "auto",
    kwargs: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Report:
    """Check on a model and its data that nothing changed.

    At ``points`` random values of the kept sites (medians of five prior draws, which tame heavy
    tails; uniform on (-2, 2) in unconstrained space where a prior is improper) the integrated sites
    are drawn by recovery, with the log-density that the sampler itself returns from its noise, and
    then put far from the posterior, where the conditional's formula is checked.

    Args:
        model: the source, or a transformed model (then its own options hold).
        args, kwargs: what the model is called with, data included.
        points: number of random points.
        seed: of the random points.
        marginalize, keep, reparameterize: as for ``transform``.
        quiet: do not print.

    Returns:
        The errors in nats. Tolerance: 1e-9 · (rows + dimensions) in float64, 1e-4 · in
        float32, or where a distribution's parameters are float32.

    Raises:
        ExactnessError: an error exceeds the tolerance; ``report`` has the numbers.
    """
    marg = (
        model
        if isinstance(model, MarginalizedModel)
        else transform(model, marginalize=marginalize, keep=keep, reparameterize=reparameterize)
    )
    kwargs = dict(kwargs or {})
    compiled, traced = marg.compiled(*args, **kwargs)
    errors, values = _errors(marg, compiled, traced, args, kwargs, points, seed)
    report = _report(compiled, errors, values)
    if not quiet:
        print(report)
    if not report.exact:
        raise ExactnessError(str(report), report)
    return report


def _errors(
    marg: MarginalizedModel,
    compiled: Compiled,
    traced: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    points: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors and log-densities of the source, [points, 2]: at draws, and far from them."""
    recovery = compiled.recovery
    noncentred = recovery.noncentred
    noise = {n.name: n.base.name for n in noncentred}
    names = [*compiled.plan.kept, *noise.values(), *(n.name for n in recovery.inputs)]
    far_by = FAR64 if jax.config.jax_enable_x64 else FAR32  # pyright: ignore

    def kept(key: Any) -> dict[str, Any]:
        model = handlers.substitute(
            handlers.seed(marg, key), substitute_fn=init_to_median(num_samples=5)
        )
        with handlers.block():
            sites = handlers.trace(model).get_trace(*args, **kwargs)
        return {n: sites[n]["value"] for n in names}

    # Seeded, for models that draw keys of their own; then both sides draw the same.
    def source(values: dict[str, Any]) -> Any:
        return log_density(handlers.seed(marg.source, 0), args, kwargs, values)[0]

    def marginal(values: dict[str, Any]) -> Any:
        """The transformed model's, at the sites that it samples, as a density of the user's."""
        met = {name: value for name, value in values.items() if name not in noise}
        slopes = [n.log_jacobian for n in noncentred]
        logs = compiled.program.tape.evaluate(slopes, {**traced, **values})
        return log_density(handlers.seed(marg, 0), args, kwargs, met)[0] - sum(logs)

    @jax.jit
    def at(key: Any) -> tuple[Any, Any]:
        """Errors and log-densities at a recovery draw and far from it."""
        first, second, third = jax.random.split(key, 3)
        theta = kept(first)
        drawn, conditional = recovery.draw_with_density(second, theta, traced)
        far, _ = recovery.draw_with_density(third, theta, traced, spread=far_by)
        away = recovery.log_conditional({**traced, **theta}, far)
        left = jnp.stack([source({**theta, **drawn}), source({**theta, **far})])
        return left - marginal(theta) - jnp.stack([conditional, away]), left

    pairs = [at(key) for key in jax.random.split(jax.random.key(seed), points)]
    errors, values = (np.array(x, np.float64) for x in zip(*pairs, strict=True))
    return errors, values


def _report(compiled: Compiled, errors: np.ndarray, values: np.ndarray) -> Report:
    program = compiled.plan.program
    rows = sum(n.size for n in program.nodes if isinstance(n, Observe))
    dimensions = sum(n.size for n in program.latents)
    parameters = [v for n in program.nodes if isinstance(n, Sample) for v in n.distribution.values]
    # NumPyro computes a density in the precision of the distribution's own parameters.
    single = any(program.tape.avals[v].dtype == jnp.float32 for v in parameters)
    rate = 1e-9 if jax.config.jax_enable_x64 and not single else 1e-4  # pyright: ignore
    return Report(
        tuple(errors.T.ravel().tolist()),
        tuple(values.T.ravel().tolist()),
        rate * (rows + dimensions),
        rows,
        dimensions,
        compiled.plan.integrated,
    )
