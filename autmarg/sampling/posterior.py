"""What ``marg.sample`` returns: draws, how they were made, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.backend.runs import Made
from autmarg.posterior.evidence import Evidence

if TYPE_CHECKING:
    from numpyro.infer import MCMC

    from autmarg.posterior.after_fit import AfterFit
    from autmarg.posterior.summary import Summary

ENOUGH = 100  # effective draws for each chain
MIXED = 1.01  # R̂


@dataclass(frozen=True)
class Quality:
    """How good draws are.

    Attributes:
        ess: the least bulk effective sample size over the sampled dimensions.
        rhat: the largest split R̂ there.
        acceptance: share of proposals accepted; None of NUTS.
        pareto_shape: k̂ of the proposals' weights, at most 0.5 where they are trusted; None of NUTS.
        evaluations: of the density (for NUTS of its gradient), with adaptation.
        divergences: of NUTS; None of independence sampling.
        evidence: the log evidence, of independence sampling where all priors are proper.
        seconds: by phase.
    """

    ess: float
    rhat: float
    acceptance: float | None = None
    pareto_shape: float | None = None
    evaluations: int | None = None
    divergences: int | None = None
    evidence: Evidence | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of the posterior; ``print`` says how they were made and how good they are.

    The transformed model's methods (``recover``, ``summary``, ``to_arviz``, ``predict``, …) take it
    in place of an ``MCMC``, and know the arguments from it.

    Attributes:
        marg: the model that was sampled: the one asked, or the one with everything integrated out.
        args, kwargs: what it was called with.
        samples: of the sampled sites, ``[chains, draws, *shape]``.
        method: "independence", "nuts", or "exact" where nothing is left to sample.
        reason: why this method, in words.
        quality: effective sample sizes and the like.
        mcmc: NumPyro's ``MCMC``, where it ran NUTS: for models with params and the like.
        thinning: as of an ``MCMC``.
        quadrature: what of it is integrated out numerically, in words (:attr:`.Plan.quadrature`).
        made: what the draws were made from.
        suggestions: other forms of what is sampled, in words (:func:`autmarg.errors.suggestions`).
        fields: of NUTS, ``num_steps``, ``diverging`` and others by NumPyro's names,
            ``[chains, draws]``.
    """

    marg: AfterFit
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    samples: dict[str, Array]
    num_chains: int
    num_samples: int
    method: str
    reason: str
    quality: Quality
    mcmc: MCMC | None = None
    thinning: int = 1
    quadrature: tuple[str, ...] = ()
    made: Made | None = None
    suggestions: tuple[str, ...] = ()
    fields: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the draws are not to be trusted yet, in words (Vehtari et al. 2021); often none."""
        q = self.quality
        few = q.ess < ENOUGH * self.num_chains
        found = {
            f"R̂ is above {MIXED}": q.rhat > MIXED,
            f"there are fewer than {ENOUGH} effective draws for each chain": few,
            f"{q.divergences} steps of NUTS diverged": bool(q.divergences),
        }
        return tuple(words for words, holds in found.items() if holds)

    def get_samples(self, group_by_chain: bool = False) -> dict[str, Array]:
        """The draws by site: [draws, …] with the chains joined, or [chains, draws, …]."""
        if group_by_chain:
            return dict(self.samples)
        flat = {n: np.asarray(x).reshape(-1, *x.shape[2:]) for n, x in self.samples.items()}
        return {name: jax.device_put(x) for name, x in flat.items()}

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Array]:
        """What NUTS collected besides, as of an ``MCMC``."""
        grouped = {name: jnp.asarray(x) for name, x in self.fields.items()}
        return grouped if group_by_chain else {n: x.reshape(-1) for n, x in grouped.items()}

    def recover(self, rng_key: Any = None, **options: Any) -> dict[str, Array]:
        """Draws of every latent of the source; see :meth:`autmarg.MarginalizedModel.recover`.

        Args:
            rng_key: a JAX random key; by default a fixed one.
            options: of that method.
        """
        key = jax.random.key(0) if rng_key is None else rng_key
        return self.marg.recover(key, self, *self.args, **options, **self.kwargs)

    def summary(self, **options: Any) -> Summary:
        """Estimates by section; see :meth:`autmarg.MarginalizedModel.summary`."""
        return self.marg.summary(self, **options)

    def print_summary(self, **options: Any) -> None:
        """Print them, as an ``MCMC`` does."""
        print(self.summary(**options))

    def to_arviz(self, **options: Any) -> Any:
        """ArviZ's form; see :meth:`autmarg.MarginalizedModel.to_arviz`."""
        return self.marg.to_arviz(self, **options)

    def __str__(self) -> str:
        lines = [self.reason, *self.quadrature]
        return "\n".join(
            [
                self._title(), *map("  {}".format, lines), *self._quality(), *self._advice(),
                *self._time(),
            ]
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<{self._title()}>"

    def _title(self) -> str:
        count = f"{self.num_chains} chains of {self.num_samples:,} draws"
        name = getattr(self.marg, "__name__", "model")
        how = {"independence": "by independence sampling", "nuts": "by NUTS"}
        return f"posterior of '{name}': {count}, {how.get(self.method, 'exact')}"

    def _quality(self) -> list[str]:
        q = self.quality
        if self.method == "exact":
            return []
        rhat = f"{q.rhat:.3f}" if not q.rhat >= 100 else "over 100"
        ess = "under 10" if q.ess < 10 else f"{q.ess:,.0f}"  # (of few draws it may be negative)
        lines = [f"  least effective sample size {ess}, largest R̂ {rhat}"]
        if q.acceptance is not None:
            lines.append(
                f"  acceptance {q.acceptance:.0%}, k̂ {q.pareto_shape:.2f} (trusted up to 0.5), "
                f"{q.evaluations:,} densities"
            )
        if q.divergences is not None:
            lines.append(f"  {q.divergences:,} divergences, {q.evaluations:,} gradients")
        if q.evidence is not None:
            lines.append(f"  {q.evidence}")
        return lines

    def _advice(self) -> list[str]:
        if not self.doubts:
            return []
        more = "num_samples and num_warmup" if self.method == "nuts" else "num_samples"
        lines = (
            f"Do not trust these draws yet: {', '.join(self.doubts)}. Raise {more}, or sample "
            "another form of the model.",
            *self.suggestions,
        )
        return [f"  {line}" for line in lines]

    def _time(self) -> list[str]:
        parts = [f"{name} {seconds:.2f}" for name, seconds in self.quality.seconds.items()]
        return [f"  seconds: {', '.join(parts)}"] if parts else []


__all__ = ["Posterior", "Quality"]
