"""What a transformed model offers after a fit; each method delegates to one file of this room."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from autmarg.backend.compiled import Programs
from autmarg.backend.runs import Made
from autmarg.posterior import densities, evidence, inference_data, plots, summary
from autmarg.posterior.draws import arguments_for, draws_of, made_by
from autmarg.posterior.predict import Wanted, fit_of, predict
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays
from autmarg.trace.source import Source


class AfterFit:
    """Methods of :class:`autmarg.MarginalizedModel` that start from posterior draws.

    Attributes:
        source: the user's model.
        recover: exact draws of what was integrated out.
        plan: what is integrated out for some arguments.
        compiled: the compiled program for some arguments.
        check_data: raises where draws were made for other data.
        alternatives: the models that may be sampled for one, with their plans, itself first, and
            what draws are made from then.
    """

    source: Source
    __signature__: inspect.Signature
    recover: Callable[..., dict[str, Any]]
    plan: Callable[..., Any]
    compiled: Callable[..., Any]
    check_data: Callable[..., None]
    alternatives: Callable[..., tuple[Sequence[tuple[AfterFit, Any]], Made]]
    _programs: Programs

    def predict(
        self,
        rng_key: Any,
        mcmc_or_samples: Any,
        *args: Any,
        sites: Sequence[str] | None = None,
        mean: bool = False,
        new_levels: Sequence[str] = (),
        fitted: Any = None,
        batch_size: int | None = None,
        group_by_chain: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Posterior predictive draws at new arguments: known levels, new levels, and forecasts.

        Elements of a latent are numbered as in the fit. Those that the fit had keep their recovered
        draws. Elements beyond them are drawn once for each posterior draw from their prior, given
        their parents and the known elements:

            p(y_new | y) = ∫ p(y_new | u, u_new, θ) p(u_new | u, θ) p(u, θ | y) d(u_new, u, θ)

        Args:
            rng_key: a JAX random key.
            mcmc_or_samples: an ``MCMC`` that has run, or a dict of draws ``[*lead, *shape]`` of
                every latent, as ``recover`` returns them.
            args, kwargs: the new arguments; observed sites to predict have no data (None). Data of
                other observed sites are taken as they are and do not update the fit.
            sites: names of the sites to return, latents too. By default all sites without draws,
                and the deterministic ones.
            mean: return the mean of each observed site's distribution rather than a draw from it.
            new_levels: names of latents of which every element is a new level here.
            fitted: arguments of the run, a tuple (or a dict by name): for a dict of draws. They are
                needed if it lacks integrated sites, and let new levels be checked against the fit.
            batch_size: draws worked on at once (bounds memory).
            group_by_chain: with an ``MCMC``: leading dimensions (chain, draw) rather than (draw,).

        Returns:
            Arrays ``[*lead, *shape]`` by site.

        Raises:
            RequestError: draws are missing; a site has fewer elements than in the fit; new elements
                cannot be drawn, or known ones or data depend on them.
            ModelError: an index is out of range.
        """
        program, _ = trace_program(self.source, *as_arrays(args, kwargs))
        self._programs.check(program)
        recovering, predicting = jax.random.split(rng_key)
        fit = fit_of(
            self.source, self.recover, recovering, mcmc_or_samples, fitted,
            group_by_chain=group_by_chain, batch_size=batch_size,
        )  # fmt: skip
        wanted = Wanted(sites, mean, new_levels, batch_size)
        given = (args, kwargs)
        return predict(
            self.source, program, fit, given, predicting, wanted, self._programs.integrated
        )

    def to_arviz(
        self,
        mcmc_or_samples: Any,
        *args: Any,
        rng_key: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        prior: int | bool = False,
        posterior_predictive: bool = False,
        log_likelihood: str | None = "auto",
        other_data: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The fit for ArviZ: every site of the source, with names of dimensions and levels.

        Args:
            mcmc_or_samples: an ``MCMC`` that has run; a dict of draws of the kept sites, or of
                all sites (then nothing is recovered), [draws, …] or [chains, draws, …]; or a saved
                fit.
            args, kwargs: what the model was run with; with an ``MCMC`` they may be left out.
            rng_key: a JAX random key, for recovery and predictions; by default a fixed one.
            coords: labels along dimensions, ``{"subjects": names}``. A plate is a dimension of its
                name; the labels of a pandas column of categories are there already if the program
                reads a site at its codes.
            dims: names of a site's (or an array argument's) first dimensions, ``{"u": ["subjects",
                "term"]}``, where plates do not say them.
            prior: how many draws from the prior to add (True: 500), data drawn anew with them.
            posterior_predictive: add data drawn anew at each draw, for the same rows and groups.
            log_likelihood: "marginal" is log p(yᵢ | y₋ᵢ, θ), one value per row, the effects
                integrated out; "conditional" is log p(yᵢ | effects, θ). ``az.loo`` estimates the
                same number from both, from the first one with far less variable weights. "auto" is
                the first where it has a closed form, else the second, and neither (with a warning)
                for more than 2·10⁸ numbers. The group's attribute ``which`` says which it is. None
                leaves the group out.
            other_data: as for ``recover``.

        Returns:
            An ``InferenceData`` (ArviZ 0.x) or ``DataTree`` (1.x) with the groups posterior,
            sample_stats (of an ``MCMC``: the fields that it collected; divergences, and what
            ``mcmc.run(…, extra_fields=("energy", "num_steps", "accept_prob"))`` names),
            log_likelihood, observed_data, constant_data, and those asked for. ``.to_netcdf(path)``
            saves it; this model's methods take it, or the path, in place of the ``MCMC``.

        Raises:
            RequestError: ArviZ is not installed; a name in ``coords`` or ``dims`` is not there;
                or as for ``recover``.
        """
        marg = made_by(mcmc_or_samples, self)
        return inference_data.to_arviz(
            marg, mcmc_or_samples, args, kwargs, rng_key=rng_key, coords=coords, dims=dims,
            prior=prior, posterior_predictive=posterior_predictive, log_likelihood=log_likelihood,
            other_data=other_data,
        )  # fmt: skip

    def summary(
        self,
        mcmc_or_samples: Any,
        *args: Any,
        largest: int = 10,
        prob: float = 0.95,
        rng_key: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        other_data: bool = False,
        **kwargs: Any,
    ) -> summary.Summary:
        """Coefficients, group standard deviations and correlations, noise, the largest effects.

        What a latent is follows from where the program reads it. An *effect* is a latent whose
        prior scale is not known, or that is in a plate, or that a positive latent multiplies; a row
        ``sd`` or ``cor`` is the standard deviation or correlation that its prior has at each draw,
        however the program writes it. What scales the noise of an observed Gaussian is *noise*, an
        unconstrained latent in no plate is a coefficient, and the rest is under "other".

        Args:
            mcmc_or_samples, args, kwargs, rng_key, coords, dims, other_data: as for
                :meth:`to_arviz`.
            largest: how many effects to show: those with the largest absolute means in units of
                their prior's standard deviation.
            prob: of the intervals, which leave as much out below as above.

        Returns:
            A value that prints as one table; its sections are pandas tables. Effective sample
            sizes, R̂ and Monte Carlo errors are ArviZ's.

        Raises:
            RequestError: as for :meth:`to_arviz`.
        """
        marg = made_by(mcmc_or_samples, self)
        return summary.summary(
            marg, mcmc_or_samples, args, kwargs, count=largest, prob=prob, rng_key=rng_key,
            coords=coords, dims=dims, other_data=other_data,
        )  # fmt: skip

    def densities(
        self,
        mcmc_or_samples: Any,
        site: str,
        *args: Any,
        grid: Any = None,
        rng_key: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        other_data: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Marginal posterior densities of an integrated site: smooth curves without a kernel.

        Each is the average over posterior draws of the exact normal conditional given the data:

            p(x | y) ≈ (1/S) Σ_s N(x; m(θ_s, y), v(θ_s, y))

        Args:
            mcmc_or_samples, args, kwargs, rng_key, coords, dims, other_data: as for
                :meth:`to_arviz`.
            site: name of a site that was integrated out as Gaussian.
            grid: where to evaluate them: an array [points] for all elements, or how many points to
                take over four standard deviations to each side of an element's mean (201).

        Returns:
            An xarray dataset with ``x`` and ``density``, each [site's shape…, point]; plot one with
            ``found.sel(subjects=308)`` and ``plt.plot(one.x, one.density)``.

        Raises:
            RequestError: the site is sampled, or a conjugate rule integrated it out; its
                conditional has no density; or as for :meth:`to_arviz`.
        """
        marg = made_by(mcmc_or_samples, self)
        return densities.densities(
            marg, mcmc_or_samples, site, args, kwargs, grid=grid, rng_key=rng_key, coords=coords,
            dims=dims, other_data=other_data,
        )  # fmt: skip

    def plot_effects(
        self,
        mcmc_or_samples: Any,
        *args: Any,
        sites: Sequence[str] | str | None = None,
        prob: float = 0.95,
        levels: int = 40,
        rng_key: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        other_data: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A forest plot of effects, with the names of levels.

        Args:
            mcmc_or_samples, args, kwargs, rng_key, coords, dims, other_data: as for
                :meth:`to_arviz`.
            sites: names of sites; by default all effects that :meth:`summary` finds. A site's first
                axis are its levels, each element along the others has a panel.
            prob: of the outer intervals; the inner ones have 50 %.
            levels: how many to show in a panel, those farthest from their prior mean.

        Returns:
            A matplotlib figure; the dashed line is the mean of the effects' prior.

        Raises:
            RequestError: matplotlib is not installed, or there are no such sites; or as for
                :meth:`to_arviz`.
        """
        marg = made_by(mcmc_or_samples, self)
        return plots.plot_effects(
            marg, mcmc_or_samples, args, kwargs, sites=sites, prob=prob, levels=levels,
            shrinkage=False, rng_key=rng_key, coords=coords, dims=dims, other_data=other_data,
        )  # fmt: skip

    def plot_shrinkage(
        self,
        mcmc_or_samples: Any,
        *args: Any,
        sites: Sequence[str] | str | None = None,
        prob: float = 0.95,
        levels: int = 40,
        rng_key: Any = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        other_data: bool = False,
        **kwargs: Any,
    ) -> Any:
        """How far pooling moves each effect: its posterior mean beside what its level says alone.

        The estimate without pooling is the exact conditional mean of the effects under a prior a
        thousand times as wide as they are, everything else at posterior draws. Levels whose rows do
        not determine it have none.

        Args:
            mcmc_or_samples, args, kwargs, sites, prob, levels, rng_key, coords, dims, other_data:
                as for :meth:`plot_effects`.

        Returns:
            A matplotlib figure.

        Raises:
            RequestError: an effect cannot be integrated out, so that there is no such exact
                estimate; or as for :meth:`plot_effects`.
        """
        marg = made_by(mcmc_or_samples, self)
        return plots.plot_effects(
            marg, mcmc_or_samples, args, kwargs, sites=sites, prob=prob, levels=levels,
            shrinkage=True, rng_key=rng_key, coords=coords, dims=dims, other_data=other_data,
        )  # fmt: skip

    def log_likelihood(
        self,
        mcmc_or_samples: Any,
        *args: Any,
        which: str = "conditional",
        by: Any = None,
        rng_key: Any = None,
        group_by_chain: bool = False,
        batch_size: int | None = None,
        other_data: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Log-likelihoods of single observations or groups at each draw, for WAIC and LOO.

        With θ the sampled sites and u what is integrated out:

        * ``"conditional"``: ``log p(y_i | θ, u)``, the source's own, at recovered u.
        * ``"marginal"``: ``log p(y_i | y_-i, θ)``, u integrated out given all other observations.
        * ``"group"``: ``log p(y_g | y_-g, θ)``, all observations of a group left out together.

        The last two are exact given θ (:mod:`autmarg.gaussian.leave_out`): the marginal one costs
        two gradients for each draw, groups an evaluation for each draw and group. Where a row that
        is left out has all the information about an effect, to six digits, the marginal one is
        a difference of log-densities as well; in a marginal that shares a variance which is
        integrated out it is NaN there.

        A row's value that also stands in the mean of other rows, as in an autoregression on
        observed values, is known there. ``handlers.scale`` tempers how other rows inform u, not
        the density that is returned.

        Args:
            mcmc_or_samples: an ``MCMC`` that has run, or a dict of draws, as for :meth:`recover`.
            args, kwargs: what the model was run with, data included.
            which: see above.
            by: of groups: the name of a plate or of an argument with the group of each
                observation, an array of that, or a dict of arrays by observed site.
            rng_key: draws u where ``"conditional"`` needs it; ``jax.random.key(0)`` by default.
            group_by_chain: with an ``MCMC``: leading dimensions (chain, draw) rather than (draw,).
            batch_size: draws worked on at once (bounds memory).
            other_data: the data are others than those of the run, on purpose.

        Returns:
            By observed site, arrays [lead…, shape of the site's log-density…], as of
            :func:`numpyro.infer.log_likelihood`; of groups [lead…, groups], in the order of the
            plate or of the sorted labels. Where several observed sites read what is integrated
            out, a group's values are given those of earlier sites, so that their sum is the
            group's joint log-density.

        Raises:
            RequestError: draws of a sampled site are missing, the data are others than those of
                the run, or there is no such group.
        """
        from autmarg.posterior import pointwise  # rules need SymPy, which is slow to import

        args, kwargs = arguments_for(mcmc_or_samples, args, kwargs, self)
        draws = draws_of(mcmc_or_samples, "log_likelihood", group_by_chain=group_by_chain)
        marg = made_by(mcmc_or_samples, self)
        if not other_data:
            marg.check_data(mcmc_or_samples, args, kwargs, "log_likelihood")
        key = jax.random.key(0) if rng_key is None else rng_key
        fit = pointwise.Fit(marg, draws, args, kwargs, key, batch_size)
        return pointwise.log_likelihood(fit, which, by)

    def log_evidence(
        self,
        rng_key: Any,
        mcmc_or_samples: Any,
        *args: Any,
        other_data: bool = False,
        **kwargs: Any,
    ) -> evidence.Evidence:
        """The log evidence log p(y), by bridge sampling over the sampled sites.

        What is integrated out costs nothing here: only the few dimensions that are left are
        integrated numerically (:mod:`autmarg.posterior.evidence`).

        Args:
            rng_key: a JAX random key.
            mcmc_or_samples, args, kwargs, other_data: as for :meth:`recover`; twenty draws or more
                for each sampled dimension.

        Returns:
            The estimate with its Monte Carlo standard error, in nats.

        Raises:
            RequestError: a prior is improper; there are too few draws; the standard error would be
                above half a nat; or as for :meth:`recover`.
        """
        args, kwargs = arguments_for(mcmc_or_samples, args, kwargs, self)
        draws = draws_of(mcmc_or_samples, "log_evidence", group_by_chain=True)
        marg = made_by(mcmc_or_samples, self)
        if not other_data:
            marg.check_data(mcmc_or_samples, args, kwargs, "log_evidence")
        return evidence.log_evidence(marg, rng_key, draws, args, kwargs)
