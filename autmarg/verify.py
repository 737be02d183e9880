"""The exactness oracle: log p(θ, u, y) = log p_marg(θ, y) + log p_recover(u | θ, y).

Left is the user's own program evaluated by NumPyro, right is ours. No Monte Carlo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from autmarg.driver import MarginalizedModel, Model, transform
from autmarg.errors import ExactnessError, InconclusiveError, named
from autmarg.ir.nodes import Marginal, NonCentred, Recover
from autmarg.oracle.identity import Identity
from autmarg.oracle.points import points_of, scales_of
from autmarg.oracle.report import INCONCLUSIVE, NOT_EXACT, Report
from autmarg.oracle.verdict import report_of
from autmarg.passes.pipeline import Passes
from autmarg.passes.registry import is_built_in
from autmarg.plan.plan import Plan
from autmarg.progress import working


def verify(
    model: Model | MarginalizedModel,
    *args: Any,
    points: int = 20,
    seed: int = 0,
    marginalize: str | Sequence[str] = "auto",
    keep: Sequence[str] = (),
    reparameterize: str | Sequence[str] = "auto",
    nongaussian: str | Mapping[str, str] = "auto",
    kwargs: Mapping[str, Any] | None = None,
    quiet: bool = False,
    against: str | Sequence[str] | None = None,
    **model_kwargs: Any,
) -> Report:
    """Check on a model and its data that nothing changed.

    At ``points`` random values of the kept sites (prior draws; uniform on (-2, 2) in unconstrained
    space where a prior is improper) the integrated sites are drawn by recovery, with the
    log-density that the sampler itself returns from its noise, and then put 30 conditional standard
    deviations away, where the conditional's formula is checked. Further prior draws have each kept
    scale, and all of them together, multiplied by 10⁻⁶, 10⁻³, 10³ and 10⁶.

    Tolerance: 1e-9 · (rows + dimensions) nats in float64, 1e-6 · at the moved scales, 1e-4 · in
    float32 (or where a distribution's parameters are float32). Where log p is so large that no
    evaluation has these digits, the limit is what rounding does to it: latent values x, and
    parameters and values of the elements i of its sites, each moved by one step ε up or down at
    random (the most of four tries)::

        10 (|log p(x ± εx) - log p(x)| + Σ_i |log p_i(± ε) - log p_i| + ε Σ_i |log p_i|),

    and ten times what eliminating by cross-products says that it may lose, or
    ``2e-13 Σ_i |log p_i|``, if that is more (1e-9 · at the moved scales, where log p of a
    density that is off by more is NaN, and where latents are whitened: at a prior draw their map
    may have a covariance that is nearly singular).

    Points at which the source itself has no finite log-density are left out; the report names the
    site that is the cause. Where autmarg's is finite there, at a prior draw, the verdict is
    *not exact*. Left out, too, are points at which the two differ and the source's would not be
    finite with its numbers rounded otherwise. Points at which autmarg's density is NaN, since
    digits would be lost, are listed with their scales. Where nothing is left, the verdict is
    *inconclusive*.

    A model is compared with its source. Where passes declare ``changes_density = True``, it is
    compared with what they alone make of the source.

    Args:
        model: the source, or a transformed model (then its own options hold).
        args, model_kwargs: what the model is called with, data included.
        points: number of random points.
        seed: of the random points.
        marginalize, keep, reparameterize, nongaussian: as for ``transform``.
        kwargs: keyword arguments of the model, those too whose names are options here.
        quiet: do not print.
        against: names of the passes that change the model on purpose, instead of those that
            declare it; [] compares with the source whatever they declare.

    Returns:
        The errors in nats, and what each may be; its ``verdict`` is "exact".

    Raises:
        ExactnessError: an error exceeds its limit; ``report`` has the numbers, and its verdict is
            "not exact".
        InconclusiveError: there is no point at which both sides are finite; ``report`` says why.
    """
    marg = model if isinstance(model, MarginalizedModel) else transform(
        model, marginalize=marginalize, keep=keep, reparameterize=reparameterize,
        nongaussian=nongaussian,
    )  # fmt: skip
    changing = _changing(marg, against)
    given = {**model_kwargs, **(kwargs or {})}
    report = _report(marg, changing, args, given, points, seed, quiet)
    if not quiet:
        print(report)
    if report.verdict == INCONCLUSIVE:
        raise InconclusiveError(_inconclusive(marg, report), report)
    if report.verdict == NOT_EXACT:
        raise ExactnessError(f"{report}{_of_passes(marg, changing)}", report)
    return report


def _changing(marg: MarginalizedModel, against: str | Sequence[str] | None) -> Passes:
    """The passes that change the model on purpose, in their order.

    Raises:
        RequestError: ``against`` names one that is not there.
    """
    if against is None:
        return marg.passes.changing
    names = [against] if isinstance(against, str) else list(against)
    for name in names:
        marg.passes[name]  # raises where there is none
    return Passes(tuple(p for p in marg.passes if p.name in names))


def _report(
    marg: MarginalizedModel,
    changing: Passes,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    points: int,
    seed: int,
    quiet: bool,
) -> Report:
    compiled, traced = marg.compiled(*args, **kwargs)
    plan, program = compiled.plan, compiled.program
    rewritten = any(isinstance(n, Marginal | NonCentred | Recover) for n in program.nodes)
    scales = scales_of(plan.program, plan.kept) if rewritten else ()
    source = marg.reference(changing, args, kwargs)
    identity = Identity(source, marg, args, kwargs, plan, compiled.recovery, traced, scales)
    where = points_of(seed, points, len(scales))
    what = f"verifying '{marg.__name__}' at {len(where.stretch)} points"
    with nullcontext() if quiet else working(what):
        found = identity.at(where)
    return report_of(plan, where, found, identity.scopes, _note(changing, plan))


def _note(changing: Passes, plan: Plan) -> str:
    """What the model is compared with, where that is not as one would expect."""
    if plan.program.obstacles:
        return plan.program.obstacles[0].reason
    return f"compared with the model after {named(changing.names)}" if changing.names else ""


def _inconclusive(marg: MarginalizedModel, report: Report) -> str:
    if report.lost:
        return str(report)
    return (
        f"{report}\n  Nothing could be compared: expected arguments with which the log-density of "
        f"'{marg.__name__}' is finite at some draw from its prior."
    )


def _of_passes(marg: MarginalizedModel, changing: Passes) -> str:
    """What to do where passes that are not autmarg's own may have changed the model."""
    own = [p.name for p in marg.passes if not is_built_in(p) and p.name not in changing]
    if not own:
        return ""
    return (
        f"\n  These passes are not autmarg's own: {named(own)}. If one changes the model on "
        f"purpose, give it changes_density = True, or verify with against={own}."
    )


__all__ = ["Report", "verify"]
