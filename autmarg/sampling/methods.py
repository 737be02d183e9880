"""The methods of a transformed model that draw from its posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
from numpyro.infer import NUTS

from autmarg.backend.nuts import MarginalNUTS
from autmarg.posterior.draws import arguments_for, draws_of
from autmarg.sampling.posterior import Posterior
from autmarg.sampling.sample import sample
from autmarg.sampling.target import Targets
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays


class Sampling:
    """Methods of :class:`autmarg.MarginalizedModel` that draw from its posterior.

    Attributes:
        plan: what is integrated out for some arguments.
        targets: the densities that were sampled from.
    """

    plan: Callable[..., Any]
    targets: Targets

    def sample(
        self,
        rng_key: Any,
        *args: Any,
        num_samples: int = 1000,
        num_chains: int = 4,
        num_warmup: int | None = None,
        method: str = "auto",
        progress: bool = False,
        **kwargs: Any,
    ) -> Posterior:
        """Draws of the posterior, by the method that is predicted to be the quickest.

        Where at most twelve dimensions are left to sample, draws come from independence Metropolis:
        proposals from a mixture of t densities fitted to the posterior, accepted so that it is the
        posterior exactly (:mod:`autmarg.sampling.independence`). Where that is not to be trusted (a
        heavy tail of the proposals' weights, chains that disagree, several modes, few proposals
        accepted), and in more dimensions, they come from NUTS, started near the mode
        (:mod:`autmarg.sampling.start`); ``print`` of the result says which, and why. With
        ``marginalize="auto"`` the model with everything integrated out may be the one that is
        sampled.

        Args:
            rng_key: a JAX random key.
            args, kwargs: what the model is called with, data included.
            num_samples: draws of each chain.
            num_chains: chains.
            num_warmup: steps of NUTS before the draws; 150 by default.
            method: "auto", "independence" or "nuts".
            progress: show a bar while NUTS runs. (What takes more than five seconds says so.)

        Returns:
            What ``recover``, ``summary``, ``to_arviz`` and the other methods take in place of an
            ``MCMC``.

        Raises:
            RequestError: an option is malformed; arguments are traced; or ``method="independence"``
                does not suit the posterior, and it says why.
            ModelError: the model or the data are wrong.
        """
        marg: Any = self
        return sample(
            marg, rng_key, *as_arrays(args, kwargs), num_samples=num_samples,
            num_chains=num_chains, method=method, num_warmup=num_warmup, progress=progress,
        )  # fmt: skip

    def tune(self, mcmc_or_samples: Any, *args: Any, **kwargs: Any) -> Self:
        """The same model, its whitened latents' stand-ins from draws instead of from the mode.

        Stand-ins decide how near to standard the posterior of the noise is, and never what the
        posterior is. Those of :func:`autmarg.transform` touch the likelihood at the mode of
        Laplace's approximation, which may be far from the posterior where few data inform each
        effect. These have its average slope and curvature over the draws
        (:mod:`autmarg.whitening.tuned`); a few hundred draws are enough. They stay as they are for
        any other data of the same shapes, also for data that JAX traces, for which the mode
        cannot be searched.

        Args:
            mcmc_or_samples: draws, as ``recover`` takes them, of this model or of its source.
            args, kwargs: what the model was run with, data included; an ``MCMC`` knows them.

        Returns:
            A new transformed model with the same posterior. Its noise stands for other effects
            than this one's, so each model recovers its own draws only.

        Raises:
            RequestError: nothing is whitened with these arguments, or the draws are not of it.
            ModelError: the model or the data are wrong.
        """
        marg: Any = self
        args, kwargs = as_arrays(*arguments_for(mcmc_or_samples, args, kwargs, marg))
        program, _ = trace_program(marg.source, args, kwargs)
        draws = draws_of(mcmc_or_samples, "tune").samples
        if any(latent.name not in draws for latent in program.latents):
            draws = marg.recover(jax.random.key(0), mcmc_or_samples, *args, **kwargs)
        before = marg.passes.before("whiten").run(program)
        tuned = marg.passes["whiten"].from_draws(before, draws)
        return type(marg)(marg.source.fn, marg.passes.replace("whiten", tuned))

    def nuts(self, **options: Any) -> NUTS:
        """NUTS on this model, the mass matrix dense over its scales and correlations.

        The dense block holds the smallest sampled sites, up to 32 dimensions, except those whose
        prior depends on other latents. Which they are depends on the model's arguments, so the
        kernel decides when it is run. A plain ``NUTS(marg)`` works, too; its mass matrix is
        diagonal.

        Args:
            options: of :class:`numpyro.infer.NUTS`; ``dense_mass`` overrides the block.

        Returns:
            A kernel for ``numpyro.infer.MCMC``.
        """
        model: Any = self
        return MarginalNUTS(model, self.plan, **options)


__all__ = ["Sampling"]
