"""The methods of a transformed model that draw from its posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpyro.infer import NUTS

from autmarg.backend.nuts import MarginalNUTS
from autmarg.sampling.posterior import Posterior
from autmarg.sampling.sample import sample
from autmarg.sampling.target import Targets
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
