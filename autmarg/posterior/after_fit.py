"""What a transformed model offers after a fit; each method delegates to one file of this room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from autmarg.ir.program import Program
from autmarg.posterior.predict import Wanted, fit_of, predict
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays


class AfterFit:
    """Methods of :class:`autmarg.MarginalizedModel` that start from posterior draws.

    Attributes:
        source: the user's model.
        recover: exact draws of what was integrated out.
    """

    source: Callable[..., Any]
    recover: Callable[..., dict[str, Any]]
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
            args, kwargs: the new arguments; observed sites to predict have no data (None).
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
