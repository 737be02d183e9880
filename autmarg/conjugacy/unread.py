"""A latent that nothing with a density reads: it integrates to one, and is drawn from its prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autmarg.compat.numpyro import unwrapped
from autmarg.ir.nodes import Deterministic, Sample
from autmarg.ir.program import Program
from autmarg.ir.staged import known
from autmarg.ir.tape import Tape

# NumPyro's classes whose densities integrate to one. A subclass, or a class of the user's, may not.
NORMALISED: frozenset[type] = frozenset({
    dist.AsymmetricLaplace, dist.Beta, dist.BetaBinomial, dist.BetaProportion, dist.Cauchy,
    dist.Chi2, dist.Dirichlet, dist.Exponential, dist.Gamma, dist.GammaPoisson,
    dist.GeometricLogits, dist.GeometricProbs, dist.Gompertz, dist.Gumbel, dist.HalfCauchy,
    dist.HalfNormal, dist.InverseGamma, dist.Kumaraswamy, dist.Laplace, dist.LKJ, dist.LKJCholesky,
    dist.Levy, dist.Logistic, dist.LogNormal, dist.LogUniform, dist.MultivariateStudentT,
    dist.NegativeBinomial2, dist.NegativeBinomialLogits, dist.NegativeBinomialProbs, dist.Pareto,
    dist.Poisson, dist.SoftLaplace, dist.StudentT, dist.Uniform, dist.Weibull,
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class UnreadPrior:
    """The prior of one latent, as the density of what is integrated out.

    Attributes:
        member: the latent.
        tape: on which the parameters of its prior are.
    """

    member: Sample
    tape: Tape

    @property
    def inputs(self) -> frozenset[str]:
        """Names of what the prior depends on."""
        return self.tape.dependencies(self.member.distribution.values)

    def log_density(self, values: Mapping[str, Any]) -> Any:
        """Zero: the prior integrates to one."""
        return jnp.zeros(())

    def draw(
        self, values: Mapping[str, Any], key: Any, stretch: float = 1.0
    ) -> tuple[dict[str, Any], Any]:
        """A draw from the prior, and its log-density."""
        prior = self._prior(values)
        x = prior.sample(key, self.member.sample_shape)
        near = isinstance(stretch, float) and stretch == 1.0
        if not near and not prior.support.is_discrete:
            from autmarg.conjugacy.conjugate import away  # needs SymPy, which is slow to import

            other = prior.sample(jax.random.fold_in(key, 1), self.member.sample_shape)
            x = away(prior.support, x, other, stretch)
        return {self.member.name: x}, prior.log_prob(x).sum()

    def log_conditional(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Any:
        """log p(x | θ)."""
        x = jnp.reshape(members[self.member.name], self.member.shape)
        return self._prior(values).log_prob(x).sum()

    def moments(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Mean and variance of the prior, NaN where NumPyro has no formula for them."""
        prior, shape = self._prior(values), self.member.shape
        try:
            mean, variance = prior.mean, prior.variance
        except NotImplementedError:
            mean = variance = jnp.nan
        return {
            self.member.name: (jnp.broadcast_to(mean, shape), jnp.broadcast_to(variance, shape))
        }

    def _prior(self, values: Mapping[str, Any]) -> Any:
        return self.member.distribution.build(self.tape, values)


def is_unread(program: Program, latent: Sample) -> bool:
    """Whether no site with a density reads a latent (deterministic sites may)."""
    return all(isinstance(c, Deterministic) for c in program.children(latent.name))


def is_normalised(program: Program, latent: Sample) -> bool:
    """Whether the density of a latent is known to integrate to one."""

    def look(*leaves: Any) -> bool:
        seen = unwrapped(latent.distribution.unflatten(leaves))
        return not seen.effective_masks and type(seen.base) in NORMALISED

    return known(look, *(program.tape.avals[v] for v in latent.distribution.values))
