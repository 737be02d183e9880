"""The log evidence log p(y) from posterior draws, by bridge sampling over what is sampled.

With θ the sampled sites in unconstrained space, g(θ) = p(y, θ) the marginal density that HMC sees,
and q a normal density fitted to one half of the draws,

    p(y) = E_q[g h] / E_post[q h],    h = 1 / (s₁ g + s₂ p(y) q),

solved for p(y) by iteration; s₁ and s₂ are the shares of the other half of the draws (as many as
they are effectively) and of the draws from q (Meng & Wong 1996; its relative error is that of
Frühwirth-Schnatter 2004). Few dimensions are left where most is integrated out, which is what makes
the estimate sharp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import init_to_uniform
from numpyro.infer.util import potential_energy, unconstrain_fn

from autmarg.compat import programs
from autmarg.compat.numpyro import unwrapped
from autmarg.errors import RequestError, named
from autmarg.posterior.draws import Draws
from autmarg.posterior.levels import is_read

if TYPE_CHECKING:
    from autmarg.posterior.after_fit import AfterFit

_LEAST = 20  # draws for each dimension, below which no normal density is fitted
_WORST = 0.5  # nats of standard error, above which an estimate is none
_TOLERANCE, _ITERATIONS = 1e-12, 1000


@dataclass(frozen=True)
class Evidence:
    """An estimate of the log evidence.

    Attributes:
        log_evidence: log p(y) in nats.
        error: its Monte Carlo standard error in nats; zero where nothing is sampled.
        dimensions: over which it integrates numerically.
    """

    log_evidence: float
    error: float
    dimensions: int

    def __str__(self) -> str:
        over = f"{self.dimensions} dimension{'' if self.dimensions == 1 else 's'}"
        return f"log p(y) = {self.log_evidence:.3f} ± {self.error:.3f} nats (over {over})"


def log_evidence(
    marg: AfterFit, key: Any, draws: Draws, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Evidence:
    """See :meth:`autmarg.MarginalizedModel.log_evidence`; ``draws`` are grouped by chain."""
    compiled, traced = marg.compiled(*args, **kwargs)
    _check_proper(marg, args, kwargs)
    sampled = compiled.plan.sampled
    emitted: Any = marg
    model = handlers.seed(emitted, jax.random.key(0))  # of models that draw keys of their own
    if not sampled:
        return Evidence(-float(potential_energy(model, args, kwargs, {})), 0.0, 0)
    lead, flat = compiled.recovery.points(draws.samples, traced, draws.lead, "log_evidence")
    params = {n.name for n in compiled.recovery.inputs}
    points, unravel = _unconstrained(
        model, args, kwargs, {name: x for name, x in flat.items() if name not in params}
    )

    @programs.compiled
    def at_each(points: Any) -> Any:
        return jax.lax.map(lambda z: -potential_energy(model, args, kwargs, unravel(z)), points)

    def log_density(points: Any) -> np.ndarray:
        return np.asarray(at_each(points), np.float64)

    chains = lead[0] if len(lead) > 1 else 1
    points = np.asarray(points, np.float64).reshape(chains, len(points) // chains, -1)
    return _bridge(points, log_density, key)


def _unconstrained(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], flat: dict[str, Any]
) -> tuple[Any, Callable[[Any], Any]]:
    """Draws in unconstrained space [S, p], and what unravels a row."""

    def of(point: dict[str, Any]) -> dict[str, Any]:
        found = unconstrain_fn(model, args, kwargs, point)
        return {name: found[name] for name in point}

    moved = programs.compiled(jax.vmap(of))(flat)
    first, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], moved))
    points = jax.vmap(lambda z: ravel_pytree(z)[0])(moved)
    if not np.isfinite(points).all():
        raise RequestError(
            "some draws lie on the boundary of their support, so that they have no unconstrained "
            "value: log_evidence needs draws inside"
        )
    if len(points) < _LEAST * first.size:
        raise RequestError(
            f"log_evidence integrates over {first.size} sampled dimensions and needs at least "
            f"{_LEAST} draws for each, found {len(points)}: run longer, or integrate more out"
        )
    return points, unravel


def _bridge(points: np.ndarray, log_density: Callable[[Any], np.ndarray], key: Any) -> Evidence:
    """From draws [chains, draws, p]."""
    chains, each, p = points.shape
    half = each // 2
    fitted = points[:, :half].reshape(-1, p)
    ours = points[:, half:].reshape(-1, p)
    mean, factor = fitted.mean(0), np.linalg.cholesky(np.atleast_2d(np.cov(fitted.T)))
    noise = np.asarray(jax.random.normal(key, ours.shape), np.float64)
    theirs = mean + noise @ factor.T

    def log_q(x: np.ndarray) -> np.ndarray:
        z = np.linalg.solve(factor, (x - mean).T)
        log_det = np.log(np.diag(factor)).sum()
        return -0.5 * np.square(z).sum(0) - log_det - 0.5 * p * math.log(2 * math.pi)

    l1 = log_density(jnp.asarray(ours)) - log_q(ours)
    l2 = log_density(jnp.asarray(theirs)) - log_q(theirs)
    if np.isnan(l1).any() or np.isnan(l2).any():
        lost = int(np.isnan(l1).sum() + np.isnan(l2).sum())
        raise RequestError(
            f"the density is NaN at {lost} of {len(l1) + len(l2)} points around the posterior, so "
            "that log_evidence has no value"
        )
    shift = float(np.median(l1))
    g1, g2 = np.exp(np.clip(l1 - shift, -700, 700)), np.exp(np.clip(l2 - shift, -700, 700))
    effective = _effective(g1.reshape(chains, -1))
    s1 = effective / (effective + len(g2))
    s2 = 1.0 - s1
    r = 1.0
    for _ in range(_ITERATIONS):
        f2, f1 = g2 / (s1 * g2 + s2 * r), 1.0 / (s1 * g1 + s2 * r)
        before, r = r, float(f2.mean() / f1.mean())
        if abs(r - before) <= _TOLERANCE * r:
            break
    f2, f1 = g2 / (s1 * g2 + s2 * r), 1.0 / (s1 * g1 + s2 * r)
    relative = np.var(f2) / f2.mean() ** 2 / len(f2)
    relative += np.var(f1) / f1.mean() ** 2 / _effective(f1.reshape(chains, -1))
    error = math.sqrt(float(relative))
    if not error <= _WORST:
        raise RequestError(
            f"log_evidence would have a standard error of {error:.2g} nats over {p} sampled "
            "dimensions, so that it says nothing: run longer, or integrate more out"
        )
    return Evidence(shift + math.log(r), error, p)


def _effective(x: np.ndarray) -> float:
    """Effective number of draws [chains, draws], at most their number."""
    if x.shape[1] < 4 or np.ptp(x) == 0:
        return float(x.size)
    return float(min(effective_sample_size(x), x.size))


def _check_proper(marg: AfterFit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise where a prior has no density, and the evidence no scale."""
    sites = _sites(marg, args, kwargs)
    if names := _dimensions(marg, _improper(sites), args, kwargs):
        raise RequestError(
            f"{named(names)} {'has' if len(names) == 1 else 'have'} an improper prior, so "
            "that the evidence is no number: expected proper priors, and no mask on a part of a "
            "latent that others read (leave rows with missing data out)"
        )
    if names := _scaled(sites):
        raise RequestError(
            f"the log-density of {named(names)} is scaled (weights of handlers.scale, or a "
            "subsample), so that its integral is no log p(y): expected each site once"
        )


def is_proper(marg: AfterFit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether all priors are known to be proper, and no density scaled, by tracing the source."""
    improper: dict[str, bool] = {}
    scaled: list[str] = []

    def look() -> None:
        sites = _sites(marg, args, kwargs)
        improper.update(_improper(sites))
        scaled.extend(_scaled(sites))

    jax.eval_shape(look)
    return not scaled and not _dimensions(marg, improper, args, kwargs)


def _sites(marg: AfterFit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
    """The source's sampled and observed sites."""
    with handlers.block():
        model = handlers.substitute(handlers.seed(marg.source, 0), substitute_fn=init_to_uniform)
        sites = handlers.trace(model).get_trace(*args, **kwargs)
    return [s for s in sites.values() if s["type"] == "sample"]


def _improper(sites: list[dict[str, Any]]) -> dict[str, bool]:
    """Names of the latents whose prior is improper → whether that is by a mask alone.

    A mask that is traced counts as one.
    """
    return {
        s["name"]: not _is_improper(unwrapped(s["fn"]).base)
        for s in sites
        if not s["is_observed"] and _is_improper(s["fn"])
    }


def _dimensions(
    marg: AfterFit, improper: dict[str, bool], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[str]:
    """Names of those whose elements without a prior are dimensions of the integral.

    They are not where a latent is integrated out that no density reads (a missing response).
    """
    if not improper:
        return []
    plan = marg.plan(*args, **kwargs)
    unread = {n for n in plan.integrated if not is_read(plan.program, n)}
    return [name for name, masked in improper.items() if not (masked and name in unread)]


def _scaled(sites: list[dict[str, Any]]) -> list[str]:
    """Names of the sites whose log-density is multiplied by a number."""
    return [s["name"] for s in sites if s["scale"] is not None]


def _is_improper(fn: Any) -> bool:
    """Whether a distribution is improper, or masked in part, also inside of transforms."""
    while fn is not None:
        inner = unwrapped(fn)
        masked = not all(_leaves_all(mask) for mask, _ in inner.masks)
        if masked or isinstance(inner.base, dist.ImproperUniform):
            return True
        fn = getattr(inner.base, "base_dist", None)
    return False


def _leaves_all(mask: Any) -> bool:
    return not isinstance(mask, Tracer) and bool(np.all(np.asarray(mask)))


__all__ = ["Evidence", "is_proper", "log_evidence"]
