"""``marg.sample``: the cheaper of independence sampling and NUTS, and what is left to either."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from autmarg.backend.given import has_value
from autmarg.backend.runs import Made
from autmarg.compat.executables import enable_usual_cache
from autmarg.compat.jaxprs import is_traced
from autmarg.errors import RequestError, named, suggestions
from autmarg.ir.nodes import Param
from autmarg.plan.plan import Plan
from autmarg.plan.pricing import overhead
from autmarg.posterior.evidence import Evidence, is_proper
from autmarg.progress import working
from autmarg.sampling.hmc import WARMUP, Asked, Run, run_nuts
from autmarg.sampling.independence import MOST_DIMENSIONS, Draws, Unfit, sampled, too_many
from autmarg.sampling.posterior import Posterior, Quality
from autmarg.sampling.space import generator_of, has_computed_sites

if TYPE_CHECKING:
    from autmarg.posterior.after_fit import AfterFit

METHODS = ("auto", "independence", "nuts")

_VALUE = 0.4  # of a gradient's time that a value takes
# (predicted over measured seconds: 0.69 to 1.9 on 9 sets, 1.07 in the geometric mean)
_PROPOSALS, _ADAPTATION = 4, 7_000  # densities for each draw, and before the first one
# NUTS, measured on the benchmark's sets beside independence sampling (4 x 1,000 draws, seconds of
# processor time): compilation beyond that of values took 2.7 to 4.1 s (median of 10 sets 3.3), of
# which 0.6 were saved since. Where effects are left to it (8 sets), an effective draw with its part
# of the warm-up took 1.3 to 5.8 times as long as predicted, 2.3 in the geometric mean.
_COMPILATION, _SLOWER = 2.7, 2.3


@dataclass(frozen=True, eq=False)
class Route:
    """A model that can be sampled, with its plan.

    Attributes:
        marg: the transformed model.
        plan: for the arguments at hand.
    """

    marg: AfterFit
    plan: Plan

    @property
    def dimensions(self) -> int:
        """That are sampled."""
        return self.plan.sampled

    def independence(self, draws: int) -> float:
        """Predicted seconds of so many draws by independence sampling."""
        if not 0 < self.dimensions <= MOST_DIMENSIONS:
            return float("inf")
        if self.plan.predicted is None:
            return 0.0
        value = _VALUE * self.plan.predicted[0].gradient
        return (_PROPOSALS * draws + _ADAPTATION) * value

    def nuts(self, draws: int) -> float:
        """Predicted seconds of so many draws by NUTS."""
        predicted = self.plan.predicted
        if predicted is None:
            return overhead(self.dimensions) * draws
        return _COMPILATION + _SLOWER * predicted[0].draw * (draws + WARMUP)


def sample(
    marg: AfterFit,
    rng_key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    num_samples: int,
    num_chains: int,
    method: str,
    num_warmup: int | None,
    progress: bool,
) -> Posterior:
    """See :meth:`autmarg.MarginalizedModel.sample`.

    Args:
        marg: the model.
        rng_key, args, kwargs, num_samples, num_chains, method, num_warmup, progress: of that
            method.
    """
    if method not in METHODS:
        expected = ", ".join(map(repr, METHODS))
        raise RequestError(f"sample takes one of the methods {expected}; found {method!r}")
    whole = isinstance(num_samples, Integral) and isinstance(num_chains, Integral)
    if not whole or num_samples < 1 or num_chains < 1:
        raise RequestError(
            f"sample was asked for {num_chains} chains of {num_samples} draws: expected "
            "whole numbers, one or more"
        )
    if is_traced((rng_key, args, kwargs)):
        raise RequestError(
            "sample was called inside jax.jit, vmap or the like: expected known arguments, for it "
            "adapts to them outside of JAX; use MCMC(NUTS(marg)) there"
        )
    enable_usual_cache()
    started = time.perf_counter()
    found, made = marg.alternatives(*args, **kwargs)
    routes = [Route(*each) for each in found]
    _check_handlers(routes[0].plan)
    planned = time.perf_counter() - started
    asked = Asked(num_samples, num_chains, num_warmup, progress)
    run = _Run(rng_key, args, kwargs, made, asked, planned)
    few = min(routes, key=lambda r: r.independence(run.count))
    many = min(routes, key=lambda r: r.nuts(run.count))
    if not many.dimensions:
        return run.nothing(many)
    unfit = _unfit(few, many, run, method)
    if unfit is None:
        found = run.independence(few)
        if isinstance(found, Posterior):
            return found
        unfit = found
    if method == "independence":
        raise RequestError(
            f"independence sampling does not suit this posterior: {unfit.reason}. Use "
            "method='nuts', or 'auto', which takes the one that does"
        )
    return run.nuts(many, unfit.reason)


def _check_handlers(plan: Plan) -> None:
    given = [n.name for n in plan.program.latents if has_value(n.name, n.shape)]
    if given:
        raise RequestError(
            f"sample was called inside of a handler that gives {named(given)} a value, where it "
            "draws its own: expected the handler around the model, "
            "autmarg.transform(handlers.condition(model, data))"
        )


def _unfit(few: Route, many: Route, run: _Run, method: str) -> Unfit | None:
    """Why independence sampling is not tried."""
    if method == "nuts":
        return Unfit("it was asked for")
    dimensions = few.dimensions
    if not 0 < dimensions <= MOST_DIMENSIONS:
        return too_many(dimensions)
    after = few.plan.rewritten or few.plan.program
    if any(isinstance(n, Param) for n in after.nodes):
        return Unfit("the model has params, which NUTS keeps at their initial values")
    if method == "auto" and few.independence(run.count) > many.nuts(run.count):
        return Unfit(
            f"a density of {dimensions} dimensions is predicted to cost more than NUTS in "
            f"{many.dimensions}"
        )
    return None


@dataclass(frozen=True)
class _Run:
    """What was asked of one call."""

    rng_key: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: Made
    asked: Asked
    planned: float

    @property
    def count(self) -> int:
        return self.asked.num_chains * self.asked.num_samples

    def _posterior(self, route: Route, samples: Any, *rest: Any, **options: Any) -> Posterior:
        quadrature = route.plan.quadrature
        if quadrature and samples:
            recovery = route.marg.compiled(*self.args, **self.kwargs)[0].recovery
            quadrature = (*quadrature, recovery.check(samples, "sample"))
        return Posterior(
            route.marg, self.args, self.kwargs, samples, self.asked.num_chains,
            self.asked.num_samples, *rest, quadrature=quadrature, made=self.made,
            suggestions=tuple(suggestions(route.plan.refusals)), **options,
        )  # fmt: skip

    def nothing(self, route: Route) -> Posterior:
        """Everything is integrated out."""
        seconds = {"plan": self.planned}
        nan = float("nan")
        reason = "everything is integrated out: each recovered draw is an independent one"
        quality = Quality(nan, nan, seconds=seconds)
        return self._posterior(route, {}, "exact", reason, quality)

    def independence(self, route: Route) -> Posterior | Unfit:
        """By independence sampling, unless that is not to be trusted."""
        model: Any = route.marg
        started = time.perf_counter()
        target = model.targets.of(route.plan, model, self.args, self.kwargs)
        traced = time.perf_counter() - started
        random = generator_of(self.rng_key)
        with working(f"sampling '{getattr(model, '__name__', 'model')}'"):
            draws = sampled(target, random, self.asked.num_chains, self.asked.num_samples)
        if isinstance(draws, Unfit):
            return draws
        started = time.perf_counter()
        computed = has_computed_sites(route.plan)
        samples = jax.block_until_ready(target.sites(draws.points, computed))
        seconds = {"plan": self.planned, "trace": traced, **draws.seconds}
        seconds["sites"] = time.perf_counter() - started
        reason = f"{target.size} dimension{'s are' if target.size > 1 else ' is'} left to sample"
        return self._posterior(
            route, samples, "independence", reason, self._quality(route, draws, seconds)
        )

    def _quality(self, route: Route, draws: Draws, seconds: dict[str, float]) -> Quality:
        proper = is_proper(route.marg, self.args, self.kwargs)
        dimensions = draws.points.shape[-1]
        evidence = Evidence(draws.log_evidence, draws.error, dimensions) if proper else None
        return Quality(
            draws.ess, draws.rhat, draws.acceptance, draws.pareto_shape, draws.evaluations,
            evidence=evidence, seconds=seconds,
        )  # fmt: skip

    def nuts(self, route: Route, why: str) -> Posterior:
        """By NUTS."""
        name = getattr(route.marg, "__name__", "model")
        with working(f"sampling '{name}' by NUTS"):
            run = run_nuts(route.marg, route.plan, self.rng_key, self.args, self.kwargs, self.asked)
        return self._posterior(
            route, run.samples, "nuts", f"NUTS: {why}; {run.started}",
            _of_nuts(run, route, {"plan": self.planned, **run.seconds}),
            mcmc=run.mcmc, fields=run.fields,
        )  # fmt: skip


def _known(each: Iterable[Any]) -> np.ndarray:
    """All numbers of some arrays that are none of NaN, [n]."""
    flat = np.concatenate([np.zeros(0), *(np.ravel(x) for x in each)])
    return flat[~np.isnan(flat)]


def _of_nuts(run: Run, route: Route, seconds: dict[str, float]) -> Quality:
    names = (*route.plan.kept, *route.plan.noise)
    own = [np.asarray(run.samples[n], float) for n in names if n in run.samples]
    enough = own and own[0].shape[1] >= 4
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ess = _known(effective_sample_size(x) for x in own)
        rhat = _known(split_gelman_rubin(x) for x in own)
    return Quality(
        float(ess.min()) if enough and len(ess) else float("nan"),
        float(rhat.max()) if enough and len(rhat) else float("nan"),
        divergences=int(np.sum(run.fields["diverging"])),
        evaluations=int(np.sum(run.fields["num_steps"])) + (run.warmup or 0),
        seconds=seconds,
    )


__all__ = ["METHODS", "Route", "sample"]
