"""What a transformed model offers after a fit; each method delegates to one file of this room."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from autmarg.ir.program import Program
from autmarg.posterior import inference_data
from autmarg.posterior.predict import Wanted, fit_of, predict
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays


class AfterFit:
    """Methods of :class:`autmarg.MarginalizedModel` that start from posterior draws.

    Attributes:
        source: the user's model.
        recover: exact draws of what was integrated out.
        plan: what is integrated out for some arguments.
        compiled: the compiled program for some arguments.
        check_data: raises where draws were made for other data.
    """

    source: Callable[..., Any]
    __signature__: inspect.Signature
    recover: Callable[..., dict[str, Any]]
    plan: Callable[..., Any]
    compiled: Callable[..., Any]
    check_data: Callable[..., None]
    _integrated: set[str]
    _check_once: Callable[[Program], None]

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
            mcmc_or_samples: an ``MCMC`` that has run, or a dict of draws [*lead, *shape] of every
                latent, as ``recover`` returns them.
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
            Arrays [*lead, *shape] by site.

        Raises:
            RequestError: draws are missing; a site has fewer elements than in the fit; new elements
                cannot be drawn, or known ones or data depend on them.
            ModelError: an index is out of range.
        """
        program, _ = trace_program(self.source, *as_arrays(args, kwargs))
        self._check_once(program)
        recovering, predicting = jax.random.split(rng_key)
        fit = fit_of(
            self.source, self.recover, recovering, mcmc_or_samples, fitted,
            group_by_chain=group_by_chain, batch_size=batch_size,
        )  # fmt: skip
        wanted = Wanted(sites, mean, new_levels, batch_size)
        given = (args, kwargs)
        return predict(self.source, program, fit, given, predicting, wanted, self._integrated)

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
                the first where it has a closed form, else the second. The group's attribute
                ``which`` says which it is. None leaves the group out.
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
        return inference_data.to_arviz(
            self, mcmc_or_samples, args, kwargs, rng_key=rng_key, coords=coords, dims=dims,
            prior=prior, posterior_predictive=posterior_predictive, log_likelihood=log_likelihood,
            other_data=other_data,
        )  # fmt: skip
