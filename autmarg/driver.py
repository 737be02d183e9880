"""``autmarg.transform``: the one module that knows every stage."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autmarg.backend.compiled import Compiled, Programs
from autmarg.backend.emit import Emission
from autmarg.backend.given import Given, check_traced, noise_given
from autmarg.backend.outside import check_handlers
from autmarg.backend.runs import Arguments, Made, Runs
from autmarg.compat.numpyro import run_arguments
from autmarg.errors import RequestError
from autmarg.ir.program import Program
from autmarg.passes.default import passes_for
from autmarg.passes.detect import Detect
from autmarg.passes.pipeline import Passes
from autmarg.passes.registry import load_plugins
from autmarg.plan.plan import Plan
from autmarg.plan.select import Request
from autmarg.posterior.after_fit import AfterFit
from autmarg.posterior.draws import arguments_for, draws_of, made_by
from autmarg.sampling.methods import Sampling
from autmarg.sampling.target import Targets
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays, data_key
from autmarg.trace.record import is_tracing, name_of
from autmarg.trace.source import Source

Model = Callable[..., Any]


class MarginalizedModel(AfterFit, Sampling):
    """A NumPyro model with fewer latent sites; what :func:`transform` returns.

    Attributes:
        source: the user's model.
        passes: what compiles it.
    """

    def __init__(self, source: Model, passes: Passes) -> None:
        self.source = Source(source)
        self.passes = passes
        self._forget()
        functools.update_wrapper(self, source, updated=())
        self.__name__ = name_of(source)
        if callable(source):
            self.__signature__ = inspect.signature(source)

    def _forget(self) -> None:
        self._programs = Programs(self.passes)
        self._runs = Runs()
        self.targets = Targets()
        self._everything: MarginalizedModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What was compiled is left out, and compiled again when a copy is used."""
        own = ("_programs", "_runs", "targets", "_everything")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __repr__(self) -> str:
        return f"autmarg.transform({self.__name__})"

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run as a NumPyro model: kept sites are sampled, observed ones have their marginal.

        Without observed data this is the source program.

        Args:
            args, kwargs: as the source takes them.

        Returns:
            None with data; what the source returns without.

        Raises:
            RequestError: values are given for kept sites only while there are no data, or
                for a site that is integrated out.
            ModelError: the model or the data are wrong.
        """
        if is_tracing():
            raise RequestError(
                f"the model calls '{self.__name__}', which is transformed already, while it is "
                "transformed itself: expected a source model inside; call its .source there"
            )
        args, kwargs = as_arrays(args, kwargs)
        program, traced = trace_program(self.source, args, kwargs)
        if not program.observed:
            return self._without_data(program, args, kwargs)
        compiled = self._compile(program)
        self._runs.add(program, traced, data_key(self.source, args, kwargs))
        if traced:
            check_traced(program, self._programs.left(program))
        if program.obstacles or not compiled.rewritten:
            return self._as_written(program, args, kwargs)[0]
        check_handlers(compiled.program)
        Emission(compiled.program, traced, self.source.prior(args, kwargs)).run()
        return None

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """What is integrated out for these arguments, why, and what it costs; prints as a table.

        Args:
            args, kwargs: what the model is called with, data included.

        Returns:
            A value; nothing is sampled or compiled. Plans are remembered by the content of the
            arguments, so that asking again costs a trace of the model.

        Raises:
            RequestError: a name in ``marginalize`` or ``keep`` cannot be served; it says why.
            ModelError: the model or the data are wrong.
        """
        return self.compiled(*args, **kwargs)[0].plan

    def program(self, *args: Any, **kwargs: Any) -> Program:
        """The rewritten program for these arguments; prints as text (``docs/passes.md``).

        Args:
            args, kwargs: what the model is called with, data included.

        Returns:
            A frozen graph of sites; ``plan(…).program`` is the one before.

        Raises:
            RequestError, ModelError: as for :meth:`plan`.
        """
        return self.compiled(*args, **kwargs)[0].program

    def compiled(self, *args: Any, **kwargs: Any) -> tuple[Compiled, dict[str, Any]]:
        """The compiled program for these arguments and the values of its traced constants."""
        program, traced = trace_program(self.source, args, kwargs)
        return self._compile(program), traced

    def reference(self, changing: Passes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Model:
        """The model whose density this one should have, for some arguments.

        That is the source; with passes that change the density on purpose, what they make of it.

        Args:
            changing: those passes, in order.
            args, kwargs: what the model is called with.

        Raises:
            PassError: one of them fails.
        """
        if not len(changing):
            return self.source
        program, traced = trace_program(self.source, args, kwargs)
        changed, prior = changing.run(program), self.source.prior(args, kwargs)
        return lambda *args, **kwargs: Emission(changed, traced, prior).run()

    def _compile(self, program: Program) -> Compiled:
        return self._programs.of(program, self.__name__)

    def _program(self, arguments: Arguments) -> Program:
        return trace_program(self.source, *arguments)[0]

    def recover(
        self,
        rng_key: Any,
        mcmc_or_samples: Any,
        *args: Any,
        moments: bool = False,
        batch_size: int | None = None,
        progress: bool | None = None,
        group_by_chain: bool = False,
        other_data: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Exact joint draws of everything that was integrated out, given posterior draws.

        Args:
            rng_key: a JAX random key.
            mcmc_or_samples: an ``MCMC`` that has run, or a dict of arrays of the kept sites with
                any leading dimensions (draws, or chains and draws), which are kept. A non-centred
                site may be there under its own name or as its standard noise. Or a fit that
                :meth:`to_arviz` made, or the path that it was saved to.
            args, kwargs: what the model was run with, data included; an ``MCMC`` knows them.
            moments: return {site: {"mean": …, "var": …}} of the conditional distribution at each
                draw instead of a draw; averaging them is the Rao-Blackwell estimate.
            batch_size: draws worked on at once (bounds memory).
            progress: show a progress bar; by default only when it takes long.
            group_by_chain: with an ``MCMC`` or a saved fit: leading dimensions (chain, draw) rather
                than (draw,).
            other_data: recover for other data (or covariates) than those of the run. An ``MCMC``
                knows the arguments of its run; a dict of draws does not, and is held against the
                runs of this transformed model in this process, if there were any.

        Returns:
            The samples given, the integrated sites, and all deterministic sites recomputed: the
            sites of the source, without standard noise.

        Raises:
            RequestError: a kept site is missing, or has the wrong shape; there are no data, or
                others than those of the run.
        """
        args, kwargs = arguments_for(mcmc_or_samples, args, kwargs, self)
        if (marg := made_by(mcmc_or_samples, self)) is not self:
            return marg.recover(
                rng_key, mcmc_or_samples, *args, moments=moments, batch_size=batch_size,
                progress=progress, group_by_chain=group_by_chain, other_data=other_data, **kwargs,
            )  # fmt: skip
        given = as_arrays(args, kwargs)
        program, traced = trace_program(self.source, *given)
        draws = draws_of(mcmc_or_samples, "recover", group_by_chain=group_by_chain)
        if not program.observed:
            return self._nothing_to_recover(program, draws.samples, moments)
        if not other_data:
            self._check_data(program, traced, mcmc_or_samples, given)
        compiled = self._compile(program)
        recovery = compiled.recovery
        if compiled.program.obstacles or not (recovery.nodes or recovery.noncentred):
            return {} if moments else draws.samples
        return recovery.run(
            rng_key,
            draws.samples,
            traced,
            draws=draws.lead,
            moments=moments,
            batch_size=batch_size,
            progress=progress,
        )

    def check_data(
        self,
        mcmc_or_samples: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        method: str = "recover",
    ) -> None:
        """Raise where draws are asked about for other data than they were made for.

        Args:
            mcmc_or_samples: the draws, as ``recover`` takes them.
            args, kwargs: what the model is called with now.
            method: what needs the draws, for messages.

        Raises:
            RequestError: these are not the arguments of the run, as far as that is known.
        """
        given = as_arrays(args, kwargs)
        program, traced = trace_program(self.source, *given)
        if program.observed:
            self._check_data(program, traced, mcmc_or_samples, given, method)

    def _check_data(
        self,
        program: Program,
        traced: Mapping[str, Any],
        draws: Any,
        given: Arguments,
        method: str = "recover",
    ) -> None:
        ran = run_arguments(draws)
        ran = None if ran is None else as_arrays(*ran)
        key = data_key(self.source, *given)
        made = getattr(draws, "made", None)
        self._runs.check(program, traced, given, key, ran, self._program, method, made)

    def _nothing_to_recover(
        self, program: Program, samples: Mapping[str, Any], moments: bool
    ) -> dict[str, Any]:
        """Without data nothing is integrated out, so that draws have all latents already."""
        missing = [n.name for n in program.latents if n.name not in samples]
        if missing or moments:
            lacking = f", and the draws lack {missing}" if missing else ""
            raise RequestError(
                f"recover was called without data: '{self.__name__}' has no observed site with "
                f"these arguments{lacking}, which would come from their prior. Pass all that the "
                "run was given, data included; for predictions, pass what it returns to "
                "Predictive(marg, draws) without data"
            )
        return dict(samples)

    def alternatives(
        self, *args: Any, **kwargs: Any
    ) -> tuple[list[tuple[MarginalizedModel, Plan]], Made]:
        """This model with its plan, and where that leaves sites for their cost, one without them.

        With what draws are made from, if they are made now with these arguments.
        """
        program, _ = trace_program(self.source, args, kwargs)
        made = Made.of(program, data_key(self.source, args, kwargs), (args, kwargs))
        plan = self._compile(program).plan
        if all(refusal.rule != "cost" for refusal in plan.refusals):
            return [(self, plan)], made
        if self._everything is None:
            detect = next(p for p in self.passes if isinstance(p, Detect))
            every = replace(detect, request=replace(detect.request, marginalize="all"))
            passes = self.passes.replace(every.name, every)
            self._everything = MarginalizedModel(self.source.fn, passes)
        every = self._everything
        return [(self, plan), (every, every._compile(program).plan)], made

    def _without_data(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The source program; values for kept sites but not for the others are refused."""
        self._programs.check(program)
        result, given = self._as_written(program, args, kwargs)
        noise = noise_given(given, program, self._programs.would_whiten)
        names = given.names & {n.name for n in program.latents} | set(noise.values())
        missing = (
            self._programs.would_integrate(program) & given.drawn | set(noise) if names else set()
        )
        if missing:
            raise RequestError(
                f"'{self.__name__}' was called without data and with values of {sorted(names)} "
                f"but not of {sorted(missing)}, which would be drawn from their prior: pass what "
                "marg.recover returned (or use marg.source for a prior predictive)"
            )
        return result

    def _as_written(
        self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Given]:
        """What the source returns, and which latents were given a value, in the right shape."""
        given = Given(self.__name__, {n.name: n.shape for n in program.latents})
        with given:
            return self.source(*args, **kwargs), given


def transform(
    model: Model,
    *,
    marginalize: str | Sequence[str] = "auto",
    keep: Sequence[str] = (),
    reparameterize: str | Sequence[str] = "auto",
    chains: str = "auto",
    nongaussian: str | Mapping[str, str] = "auto",
    passes: Passes | None = None,
) -> MarginalizedModel:
    """Integrate Gaussian latent sites out of a NumPyro model, exactly.

    The result is a NumPyro model with the same signature in which the largest set of latents that
    is jointly Gaussian with its children, given everything else, is gone:

        p_marg(θ, y) = ∫ p(θ, u, y) du.

    Args:
        model: any NumPyro model callable.
        marginalize: "auto" (the default: all of the set but for factors that, by prediction, make
            an effective draw dearer when integrated out than when sampled), "all", or names of the
            sites to integrate out; a request that cannot be met is an error that says why.
        keep: names of sites to leave sampled.
        reparameterize: which of the sites that stay sampled to non-centre, if their location-scale
            prior reads other latents: "auto" (the default; those that few rows of data inform),
            "off", "noncentred" (all that can be), or names. Standard noise z is then the site
            ``<name>_decentered``, and x = loc + scale · z a deterministic one.
        chains: how integrated chains (walks, state-space models) are filtered: "sequential", step
            by step; "parallel", in blocks of √T steps side by side; "auto" (the default), in blocks
            where there are few chains and many steps. Both are exact and linear in T.
        nongaussian: what to do for latents under a likelihood that is not Gaussian: "whiten": they
            become functions of standard noise, which is sampled instead and whose posterior is
            nearly standard normal, exactly, whatever the likelihood is
            (:mod:`autmarg.whitening.density`); "quadrature": effects whose levels are
            independent scalars are integrated out numerically, with an error that the plan states
            (:mod:`autmarg.quadrature.density`); "off": they are sampled as ``reparameterize``
            says; "auto" (the default): they are whitened where that is predicted to save seconds,
            and the options above leave it open; or observed sites → words, others being "off".
        passes: what to compile with instead of :func:`autmarg.default_passes`, which then takes
            the options above.

    Returns:
        A model with ``plan``, ``recover`` and the other methods of :class:`MarginalizedModel`.

    Raises:
        RequestError: an option is malformed. Everything that depends on the model's arguments is
            checked when the model is called.
    """
    if isinstance(model, MarginalizedModel):
        raise RequestError(
            f"'{model.__name__}' is transformed already: expected a source model; give all options "
            "in one call, autmarg.transform(marg.source, …)"
        )
    if not callable(model):
        raise RequestError(
            f"transform takes a NumPyro model callable, found {type(model).__name__}"
        )
    while isinstance(model, Source):
        model = model.fn
    load_plugins()
    request = Request.of(marginalize, keep, reparameterize, chains, nongaussian)
    if passes is None:
        passes = passes_for(request)
    elif request != Request():
        raise RequestError(
            "transform was given both passes and options: expected the options in "
            "autmarg.default_passes(marginalize=…, keep=…, …)"
        )
    return MarginalizedModel(model, Passes(tuple(passes)))


__all__ = ["MarginalizedModel", "transform"]
