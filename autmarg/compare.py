"""``autmarg.compare``: does it pay on *my* model? A short pilot of several programs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from tqdm.auto import tqdm

from autmarg.backend.nuts import MarginalNUTS
from autmarg.driver import MarginalizedModel, Model, transform
from autmarg.errors import RequestError, named
from autmarg.pilot.chain import Chain, Sampler
from autmarg.pilot.comparison import Comparison, Measured, Pilot
from autmarg.pilot.ess import Draws, sizes_by_site, smallest
from autmarg.plan.plan import Plan
from autmarg.plan.prediction import in_words

_OPTIONS: dict[str, dict[str, Any]] = {
    "source": {"marginalize": [], "reparameterize": "off"},
    "noncentred": {"marginalize": [], "reparameterize": "noncentred"},
    "auto": {},
    "all": {"marginalize": "all"},
    "whiten": {"nongaussian": "whiten"},
    "quadrature": {"nongaussian": "quadrature"},
}
_GIVEN = "given"  # the program of a model that was transformed already
_LEAPFROGS = 7  # for each draw, of a chain in few dimensions
_FEWEST = 4  # draws from which an effective size can be estimated

Options = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Program:
    """A program that is compared.

    Attributes:
        name: of the program.
        marg: its transformed model; for the source one with nothing changed.
        plan: of that model, or None with ``note`` for the reason.
        seconds: what planning took.
    """

    name: str
    marg: MarginalizedModel
    plan: Plan | None
    seconds: float
    note: str = ""

    @property
    def model(self) -> Model:
        """What is run: the source itself where nothing is changed."""
        return self.marg if self.name == _GIVEN or self.changed else self.marg.source

    @property
    def changed(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Sites integrated out or whitened, and non-centred, or None where there are none."""
        if self.plan is None or not (self.plan.recovered or self.plan.noncentred):
            return None
        return self.plan.recovered, self.plan.noncentred


def compare(
    model: Model | MarginalizedModel,
    *args: Any,
    num_warmup: int = 200,
    num_samples: int = 300,
    seed: int = 0,
    programs: Sequence[str] | Mapping[str, Options] | None = None,
    limit: float = 120.0,
    progress: bool = True,
    kwargs: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> Comparison:
    """Run NUTS briefly on the source, non-centred, and with latents integrated out.

    Each program has one chain with NumPyro's default settings (a diagonal mass matrix). Effective
    sizes are bulk ESS by :mod:`numpyro.diagnostics`, on the same elements for all programs: those
    of every latent of the source, integrated ones as ``recover`` draws them. Programs that are the
    same by their plans are run once.

    Args:
        model: the source, or a transformed model, whose own program is then called "given".
        args, model_kwargs: what the model is called with, data included.
        num_warmup, num_samples: steps of each chain.
        seed: of all random numbers.
        programs: names out of "source", "noncentred" (everything that can be), "auto" and "all"
            (as for ``transform``'s ``marginalize``), "whiten" and "quadrature" (its
            ``nongaussian``) and "given"; or a dict of options of ``transform`` by names of your
            own. By default the source, "noncentred", and "auto" or "given".
        limit: seconds for each chain. A program that is predicted to take longer with
            seven leapfrog steps a draw is left out; a chain that does take longer is stopped. Both
            are noted.
        progress: show a progress bar for each program.
        kwargs: keyword arguments of the model, those too whose names are options here.

    Returns:
        A :class:`Comparison`: ``print`` it for the table, ``.figure()`` draws it.

    Raises:
        RequestError: a program is not known, or a count is not positive.
        ModelError: the model or the data are wrong.
    """
    if num_warmup < 1 or num_samples < _FEWEST:
        raise RequestError(
            f"compare was asked for {num_warmup} warm-up steps and {num_samples} draws: expected "
            f"at least 1 and {_FEWEST}"
        )
    arguments = args, {**model_kwargs, **(kwargs or {})}
    lengths = num_warmup, num_samples
    chosen = [_planned(name, marg, arguments) for name, marg in _programs(model, programs).items()]
    pilots: list[Pilot] = []
    runs: dict[str, Mapping[str, Any]] = {}
    for each in chosen:
        pilot = _pilot(each, pilots, lengths, limit)
        if not (pilot.note or pilot.same):
            pilot, draws = _measure(pilot, each, arguments, lengths, seed, limit, progress)
            runs |= {} if draws is None else {each.name: draws}
        pilots.append(pilot)
    name = chosen[0].marg.__name__
    return Comparison(name, tuple(_with_sizes(pilots, runs, chosen)), *lengths)


def _programs(
    model: Model | MarginalizedModel, asked: Sequence[str] | Mapping[str, Options] | None
) -> dict[str, MarginalizedModel]:
    """Transformed models by the names of the programs.

    Raises:
        RequestError: a name is not known.
    """
    given = model if isinstance(model, MarginalizedModel) else None
    source = model.source if isinstance(model, MarginalizedModel) else model
    if asked is None:
        asked = ("source", "noncentred", _GIVEN if given else "auto")
    if not asked:
        raise RequestError("compare was given no programs: expected at least one")
    if isinstance(asked, Mapping):
        return {name: transform(source, **options) for name, options in asked.items()}
    names = [asked] if isinstance(asked, str) else list(asked)
    known = {*_OPTIONS, *([_GIVEN] if given else [])}
    if wrong := [name for name in names if name not in known]:
        raise RequestError(
            f"compare knows no program {named(wrong)}: expected names out of "
            f"{named(sorted(known))}, or a dict of options of transform by names of your own"
        )
    return {
        name: given if given and name == _GIVEN else transform(source, **_OPTIONS[name])
        for name in names
    }


def _planned(name: str, marg: MarginalizedModel, arguments: tuple[Any, Any]) -> _Program:
    started = time.perf_counter()
    try:
        plan = marg.plan(*arguments[0], **arguments[1])
    except RequestError as error:  # such as a dense root that is too large
        words = " ".join(str(error).split())
        return _Program(name, marg, None, 0.0, f"left out: it cannot be planned ({words})")
    return _Program(name, marg, plan, time.perf_counter() - started)


def _pilot(
    each: _Program, earlier: Sequence[Pilot], lengths: tuple[int, int], limit: float
) -> Pilot:
    """A program before its run: what its plan says, and why it is not run, if so."""
    plan = each.plan
    if plan is None:
        return Pilot(each.name, note=each.note)
    predicted = plan.predicted[0] if plan.predicted else None
    pilot = Pilot(each.name, plan.integrated, plan.noncentred, predicted, whitened=plan.whitened)
    for other in earlier:
        theirs = other.integrated, other.noncentred, other.whitened
        alike = theirs == (plan.integrated, plan.noncentred, plan.whitened)
        if alike and not other.same:
            return replace(pilot, same=other.program, note=other.note, measured=other.measured)
    least = _LEAPFROGS * sum(lengths) * (predicted.gradient if predicted else 0.0)
    if least > limit:
        note = (
            f"left out: {sum(lengths):,} steps are predicted to take {least:,.0f} s at least, at "
            f"{in_words(predicted.gradient if predicted else 0.0)} per gradient; more than limit="
            f"{limit:g} s"
        )
        return replace(pilot, note=note)
    return pilot


def _measure(
    pilot: Pilot,
    each: _Program,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    lengths: tuple[int, int],
    seed: int,
    limit: float,
    progress: bool,
) -> tuple[Pilot, Draws | None]:
    """Its chain and draws of the source's latents; None where it had no draws."""
    args, kwargs = arguments
    warmup, draws = lengths
    with tqdm(total=warmup + draws, desc=each.name, unit="step", disable=not progress) as bar:

        def watch(phase: str, steps: int) -> None:
            bar.set_postfix_str(phase, refresh=False)
            bar.update(steps)

        bar.set_postfix_str("compiling")
        kernel = MarginalNUTS(each.model, each.marg.plan, dense_mass=False)
        try:
            sampler = Sampler.of(kernel, args, kwargs, warmup=warmup, seed=seed)
        except RuntimeError as error:
            if "initial parameters" not in str(error):
                raise
            return replace(pilot, note="left out: NumPyro finds no valid initial point"), None
        chain = sampler.run(seed, draws, limit=limit, watch=watch)
        bar.set_postfix_str("recovering")
        values, seconds = _recovered(each, sampler, chain, arguments, seed)
        bar.set_postfix_str("done")
    measured = Measured(
        chain.dimensions, chain.warmup, len(chain.steps), chain.cut, chain.gradients,
        int(chain.diverging.sum()), float("nan"), "",
        each.seconds + sampler.init_seconds + sampler.compile_seconds,
        chain.warmup_seconds, chain.sampling_seconds, seconds,
    )  # fmt: skip
    return replace(pilot, measured=measured, note=_stopped(chain, lengths, limit)), values


def _stopped(chain: Chain, lengths: tuple[int, int], limit: float) -> str:
    if not chain.cut:
        return ""
    taken, asked = (
        (chain.warmup, lengths[0]) if chain.cut == "warm-up" else (len(chain.steps), lengths[1])
    )
    return f"stopped after {limit:g} s (limit=): {taken} of {asked} steps of {chain.cut} were taken"


def _recovered(
    each: _Program, sampler: Sampler, chain: Chain, arguments: tuple[Any, Any], seed: int
) -> tuple[Draws | None, float]:
    """Draws of the source's latents, and the seconds that recovery took (compiled before)."""
    if len(chain.steps) < _FEWEST or each.plan is None:
        return None, 0.0
    latents = {n.name for n in each.plan.program.latents}
    kept: dict[str, Any] = sampler.constrained(chain.z, latents)
    seconds = 0.0
    if each.changed:
        key, (args, kwargs) = jax.random.key(seed + 1), arguments
        given = kept or {"draws": jnp.zeros(len(chain.steps))}

        def recover() -> dict[str, Any]:
            found = each.marg.recover(key, given, *args, progress=False, **kwargs)
            return jax.block_until_ready(found)

        recover()
        started = time.perf_counter()
        kept = recover()
        seconds = time.perf_counter() - started
    return jax.device_get({n: kept[n] for n in latents if n in kept}), seconds


def _with_sizes(
    pilots: Sequence[Pilot], runs: Mapping[str, Draws], chosen: Sequence[_Program]
) -> list[Pilot]:
    """The pilots with their effective sizes, on the elements that all runs have."""
    if not runs:
        return list(pilots)
    shared = set.intersection(*(set(draws) for draws in runs.values()))
    names = [n for n in next(iter(runs.values())) if n in shared]
    sizes = sizes_by_site(list(runs.values()), names)
    least = {name: smallest(each) for name, each in zip(runs, sizes, strict=True)}
    out: list[Pilot] = []
    for pilot in pilots:
        ess = least.get(pilot.same or pilot.program)
        if ess is not None and pilot.measured is not None:
            pilot = replace(pilot, measured=replace(pilot.measured, ess=ess[0], site=ess[1]))
        out.append(pilot)
    return out


__all__ = ["Comparison", "compare"]
