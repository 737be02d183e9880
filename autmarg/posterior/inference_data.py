"""``marg.to_arviz``: a fit as ArviZ's container, with every site of the source program."""

from __future__ import annotations

import datetime
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import Predictive

from autmarg.compat.numpyro import run_arguments
from autmarg.errors import RequestError
from autmarg.ir.nodes import Deterministic, NonCentred
from autmarg.ir.program import Program
from autmarg.posterior.dims import Dims, dims_of
from autmarg.posterior.draws import Draws, arguments_for, draws_of
from autmarg.posterior.labels import categorical, known
from autmarg.posterior.replicated import in_scans, observable, outside_scans
from autmarg.posterior.stored import LEAD, container, needed
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import named_values

if TYPE_CHECKING:
    from xarray import Dataset

    from autmarg.posterior.after_fit import AfterFit

WHICH = {
    "marginal": "marginal: log p(y_i | y_-i, theta), what was integrated out is not given. "
    "Leave-one-out from it (az.loo) weights draws of what is sampled, and is exact in the rest.",
    "conditional": "conditional: log p(y_i | effects, theta), all latents given.",
}


@dataclass(frozen=True, eq=False)
class WholeFit:
    """Draws of all sites of the source program, with what they were drawn for.

    Attributes:
        program: the source program, as traced.
        args, kwargs: what the model was run with.
        posterior: arrays [chains, draws, …] by site: latents, and deterministic sites.
        dims: names of their axes.
        integrated: names of the sites that recovery drew.
        whitened: names of those that are functions of sampled noise.
        mcmc: the ``MCMC`` that made them, or None.
        key: of what is drawn from here on.
    """

    program: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    posterior: dict[str, Any]
    dims: Dims
    integrated: tuple[str, ...]
    whitened: tuple[str, ...]
    mcmc: Any
    key: Any

    def dataset(self, names: Sequence[str] | None = None) -> Dataset:
        """The posterior, or some of its sites."""
        values = self.posterior if names is None else {n: self.posterior[n] for n in names}
        attrs = {"integrated_out": ", ".join(self.integrated)}
        attrs |= {"whitened": ", ".join(self.whitened)} if self.whitened else {}
        return self.dims.dataset(values, attrs=_attrs(self.program) | attrs)


def whole_fit(
    marg: AfterFit,
    mcmc_or_samples: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    method: str,
    rng_key: Any = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    other_data: bool = False,
) -> WholeFit:
    """Draws of all sites of the source, recovered where they are not there yet.

    Args:
        marg: the transformed model.
        mcmc_or_samples, args, kwargs: as for ``recover``; an ``MCMC`` knows its arguments.
        method: who asks, for messages.
        rng_key: of recovery; by default a fixed one.
        coords, dims: names of levels and axes.
        other_data: as for ``recover``.

    Raises:
        RequestError: draws or arguments are not what the model takes, or data are traced.
    """
    args, kwargs = arguments_for(mcmc_or_samples, args, kwargs, marg)
    draws = draws_of(mcmc_or_samples, method, group_by_chain=True)
    program, traced = trace_program(marg.source, args, kwargs)
    if not other_data:
        marg.check_data(mcmc_or_samples, args, kwargs, method)
    if traced:
        raise RequestError(f"{method} was called where arguments are traced: expected known data")
    key = jax.random.key(0) if rng_key is None else rng_key
    here, later = jax.random.split(key)
    plan = marg.plan(*args, **kwargs)
    samples = draws.samples
    if not {n.name for n in program.latents} <= set(samples) or program.obstacles:
        given = draws.samples if draws.mcmc is None else draws.mcmc
        samples = marg.recover(here, given, *args, group_by_chain=True, other_data=True, **kwargs)
    posterior = _in_chains(program, _of_source(marg, program, samples, draws, args, kwargs), method)
    named = named_values(marg.source, args, kwargs)
    arrays = {n: a.shape for n, a in constant(marg, program, args, kwargs).items()}
    before, labels = _stored_names(draws.stored, posterior)
    found = dims_of(program, named, labels | dict(coords or {}), before | dict(dims or {}), arrays)
    gone = plan.integrated, plan.whitened
    return WholeFit(program, args, kwargs, posterior, found, *gone, draws.mcmc, later)


def _stored_names(
    stored: Dataset | None, sites: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dimensions and labels of sites as a saved fit has them."""
    if stored is None:
        return {}, {}
    names = {n: [str(d) for d in stored[n].dims[len(LEAD) :]] for n in sites if n in stored}
    used = {name for own in names.values() for name in own}
    return names, {n: stored.coords[n].values for n in used if n in stored.coords}


def to_arviz(
    marg: AfterFit,
    mcmc_or_samples: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    rng_key: Any,
    coords: Mapping[str, Any] | None,
    dims: Mapping[str, Sequence[str]] | None,
    prior: int | bool,
    posterior_predictive: bool,
    log_likelihood: str | None,
    other_data: bool,
) -> Any:
    """See :meth:`autmarg.MarginalizedModel.to_arviz`."""
    if log_likelihood not in (None, "auto", *WHICH):
        raise RequestError(
            f"log_likelihood={log_likelihood!r}: expected 'auto', 'marginal', 'conditional' or None"
        )
    fit = whole_fit(
        marg, mcmc_or_samples, args, kwargs, method="to_arviz", rng_key=rng_key, coords=coords,
        dims=dims, other_data=other_data,
    )  # fmt: skip
    groups: dict[str, Any] = {"posterior": fit.dataset()}
    if fit.mcmc is not None and (stats := _sample_stats(fit.mcmc)) is not None:
        groups["sample_stats"] = stats
    observed = _observed(fit.program)
    if observed and log_likelihood is not None and not _too_many(fit, log_likelihood):
        groups["log_likelihood"] = _log_likelihood(marg, fit, log_likelihood)
    if posterior_predictive or prior:
        drawn, skipped = observable(marg, fit.program, fit.args, fit.kwargs)
        attrs = _attrs(fit.program) | ({"left_out": _LEFT_OUT.format(skipped)} if skipped else {})
        if posterior_predictive and drawn:
            values = _posterior_predictive(marg, fit, drawn)
            groups["posterior_predictive"] = fit.dims.dataset(values, attrs=attrs)
        if prior:
            groups |= _prior(marg, fit, int(prior) if prior is not True else 500, drawn, attrs)
    if observed:
        groups["observed_data"] = fit.dims.dataset(observed, (), _attrs(fit.program))
    if given := constant(marg, fit.program, fit.args, fit.kwargs):
        groups["constant_data"] = fit.dims.dataset(given, (), _attrs(fit.program))
    return container(groups)


_MOST = 2.0e8  # log-likelihoods that are computed without being asked for
_LEFT_OUT = "{}: sites in a scan, whose own past is data and is not drawn again"


def _attrs(program: Program) -> dict[str, Any]:
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "inference_library": "numpyro",
        "inference_library_version": numpyro.__version__,
        "creation_library": "autmarg",
        "model": program.name,
    }


def _of_source(
    marg: AfterFit,
    program: Program,
    samples: Mapping[str, Any],
    draws: Draws,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """The source's own sites among draws; deterministic sites that are not there are computed."""
    if program.obstacles:  # sites that the program cannot hold are known by their draws only
        after = marg.compiled(*args, **kwargs)[0].program
        noise = {n.base.name for n in after.nodes if isinstance(n, NonCentred)}
        return {name: value for name, value in samples.items() if name not in noise}
    latents = {n.name: samples[n.name] for n in program.latents}
    computed = [n.name for n in program.nodes if isinstance(n, Deterministic)]
    found = {name: samples[name] for name in computed if name in samples}
    if missing := [name for name in computed if name not in samples]:
        lead = _lead(program, latents, "to_arviz")
        predict = Predictive(
            marg.source, latents, return_sites=missing, batch_ndims=len(lead), parallel=False
        )
        found |= predict(jax.random.key(0), *args, **kwargs)
    return {
        n.name: {**latents, **found}[n.name] for n in program.nodes if n.name in latents | found
    }


def _lead(program: Program, samples: Mapping[str, Any], method: str) -> tuple[int, ...]:
    """Leading dimensions of draws, (draws,) or (chains, draws)."""
    for node in program.latents:
        if node.name in samples:
            shape = np.shape(samples[node.name])
            lead = shape[: len(shape) - len(node.shape)]
            if len(lead) in (1, 2) and shape == (*lead, *node.shape):
                return lead
            raise RequestError(
                f"{method} was given draws of '{node.name}' of shape {shape}: expected (draws,) or "
                f"(chains, draws) before the site's own shape {node.shape}"
            )
    raise RequestError(f"{method} was given no draws of a latent site: found {sorted(samples)}")


def _in_chains(program: Program, samples: Mapping[str, Any], method: str) -> dict[str, np.ndarray]:
    """Draws as [chains, draws, …]."""
    lead = _lead(program, samples, method)
    arrays = {name: np.asarray(value) for name, value in samples.items()}
    if len(lead) == 2:
        return arrays
    return {name: value[None] for name, value in arrays.items()}


_STATISTICS = {  # of NUTS, by NumPyro's names and by ArviZ's
    "num_steps": "n_steps", "accept_prob": "acceptance_rate", "diverging": "diverging",
    "energy": "energy",
}  # fmt: skip


def _sample_stats(mcmc: Any) -> Dataset | None:
    """Divergences, energy, steps, …: those fields that the run collected, by ArviZ's names."""
    if hasattr(mcmc, "fields"):
        return _statistics(mcmc.get_extra_fields(group_by_chain=True))
    if mcmc is None or getattr(mcmc.sampler, "model", None) is None or run_arguments(mcmc) is None:
        return None
    arviz = needed("arviz", "to_arviz")
    found = arviz.from_numpyro(mcmc, dims={}, log_likelihood=False)
    if not hasattr(found, "sample_stats"):
        return None
    stats = found["sample_stats"]
    return stats.to_dataset() if hasattr(stats, "to_dataset") else stats


def _statistics(fields: Mapping[str, Any]) -> Dataset | None:
    """The fields of what ``marg.sample`` returned."""
    if not fields:
        return None
    xarray = needed("xarray", "to_arviz")
    found = {own: np.asarray(fields[name]) for name, own in _STATISTICS.items()}
    found["lp"] = -np.asarray(fields["potential_energy"])
    found["tree_depth"] = np.log2(found["n_steps"]).astype(int) + 1
    sizes = dict(zip(("chain", "draw"), found["lp"].shape, strict=True))
    coordinates = {name: np.arange(size) for name, size in sizes.items()}
    return xarray.Dataset({n: (tuple(sizes), x) for n, x in found.items()}, coordinates)


def _observed(program: Program) -> dict[str, np.ndarray]:
    """Values of observed sites that do not depend on latents."""
    tape = program.tape
    sites = [n for n in program.observed if not tape.dependencies([n.value])]
    values = known(tape, [n.value for n in sites])
    return {n.name: value for n, value in zip(sites, values, strict=True)}


def constant(
    marg: AfterFit, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Array arguments of the model by parameter name, but for the observed values."""
    bound = marg.__signature__.bind(*args, **kwargs)
    bound.apply_defaults()
    observed = list(_observed(program).values())
    found: dict[str, np.ndarray] = {}
    for name, value in named_values(None, (), bound.arguments):
        column = categorical(value)
        array = np.asarray(value) if hasattr(value, "__array__") else np.zeros(())
        if column is not None:
            found[name] = column.values
        elif array.ndim and array.dtype.kind in "iufb":
            found[name] = array
    return {
        name: array
        for name, array in found.items()
        if not any(_same(array, other) for other in observed)
    }


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    return one.shape == two.shape and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _log_likelihood(marg: AfterFit, fit: WholeFit, which: str) -> Dataset:
    """Pointwise log-likelihoods; the attribute ``which`` says which.

    "auto" is the marginal one where it has numbers: it raises where it has no closed form, and is
    NaN where its digits are lost. Where nothing is integrated out the two are the same.
    """
    found, used = None, which
    if which == "marginal" or (which == "auto" and fit.integrated):
        try:
            found, used = _pointwise(marg, fit, "marginal"), "marginal"
        except RequestError:
            if which != "auto":
                raise
    if found is None or (which == "auto" and any(np.isnan(x).any() for x in found.values())):
        found, used = _pointwise(marg, fit, "conditional"), "conditional"
    return fit.dims.dataset(found, attrs=_attrs(fit.program) | {"which": WHICH[used]})


def _too_many(fit: WholeFit, which: str) -> bool:
    """Whether values of each row, which nobody asked for by name, would fill the memory."""
    draws = math.prod(next(iter(fit.posterior.values())).shape[:2])
    rows = sum(n.size for n in fit.program.observed)
    if which != "auto" or draws * rows <= _MOST:
        return False
    warnings.warn(
        f"to_arviz leaves log_likelihood out: {draws:,} draws of {rows:,} rows are "
        f"{draws * rows:.2g} numbers. Ask for it by name (log_likelihood='marginal'), or give "
        "fewer draws; log_likelihood=None says that it is not wanted",
        stacklevel=4,
    )
    return True


def _pointwise(marg: AfterFit, fit: WholeFit, which: str) -> dict[str, Any]:
    """By observed site [chains, draws, …], at the effects of the fit."""
    return marg.log_likelihood(fit.posterior, *fit.args, which=which, other_data=True, **fit.kwargs)


def _posterior_predictive(marg: AfterFit, fit: WholeFit, sites: list[str]) -> dict[str, Any]:
    """Data drawn anew at each posterior draw, for the same rows and groups."""
    latents = {n.name: fit.posterior[n.name] for n in fit.program.latents}
    found: dict[str, Any] = {}
    if plain := outside_scans(fit.program, sites):
        model = handlers.uncondition(marg.source)
        predict = Predictive(model, latents, return_sites=plain, batch_ndims=2)
        found |= predict(fit.key, *fit.args, **fit.kwargs)
    lead = _lead(fit.program, latents, "to_arviz")
    return found | in_scans(fit.program, sites, latents, fit.key, lead)


def _prior(
    marg: AfterFit, fit: WholeFit, count: int, sites: list[str], attrs: dict[str, Any]
) -> dict[str, Dataset]:
    """Draws of all sites from the prior; data are not used."""
    key = jax.random.fold_in(fit.key, 1)
    predict = Predictive(
        handlers.uncondition(marg.source),
        num_samples=count,
        return_sites=[*fit.posterior, *outside_scans(fit.program, sites)],
        batch_ndims=1,
    )
    drawn = predict(key, *fit.args, **fit.kwargs)
    latents = {n.name: drawn[n.name] for n in fit.program.latents}
    drawn |= in_scans(fit.program, sites, latents, key, (count,))
    drawn = {name: np.asarray(value)[None] for name, value in drawn.items()}
    latents = {name: drawn[name] for name in fit.posterior if name in drawn}
    groups = {"prior": fit.dims.dataset(latents, attrs=attrs)}
    if sites:
        groups["prior_predictive"] = fit.dims.dataset({n: drawn[n] for n in sites}, attrs=attrs)
    return groups
