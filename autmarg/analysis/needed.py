"""What would make a rule apply, by the condition that failed."""

from __future__ import annotations

from dataclasses import replace

from autmarg.errors import Refusal
from autmarg.ir.program import Program

NEEDED = {
    "non-Gaussian prior": "a Gaussian prior, or an affine map of one",
    "non-Gaussian child": "a Gaussian (or LogNormal) distribution for every site that reads it",
    "nonlinear mean": "a mean that is affine in the latent",
    "nonlinear observed value": "an observed value that is affine in the latent",
    "choice by a latent": "a condition, an index and a number of steps that are known",
    "derivative cut": "the mean without the cut",
    "no rule yet": "other array operations for the same mean",
    "not written out": "another spelling of the same mean",
    "product of latents": "one of the two sampled (it is) or known",
    "scale handler": "a known positive factor, one number or one for each element of the batch",
    "masked latent": "a known mask over elements that nothing reads, or none",
    "mask of a latent": "a mask over the child that is known",
    "unknown basis": "a covariance structure that is known, up to scales",
    "empty site": "at least one element",
    "singular chain": "a covariance of full rank, or no reading of its own past",
    "singular child": "a covariance of full rank for the child",
    "factor": "a Gaussian site instead of the factor",
    "latent in a scale": "a scale of the child that does not read the latent",
    "latent in a covariance": "a covariance of the child that does not read the latent",
    "latent in a mask": "a mask of the child that does not read the latent",
    "latent in a transform": "a transform of the child that does not read the latent",
    "not conjugate": "observed children that a rule knows (see docs/rules.md), and no other reader",
    "outside the IR": "a model without that construct",
    "cost": "a gradient that costs less with it integrated out than sampled",
    "kept on request": "its name taken out of keep",
    "not requested": "its name in marginalize",
    "no pass": "the pass 'marginalise' (or 'conjugate') in the list of passes",
}


def complete(refusal: Refusal, program: Program) -> Refusal:
    """The refusal with what is needed, and the site or primitive that stands at its place."""
    needed = refusal.needed or NEEDED.get(refusal.rule, "")
    culprit = refusal.culprit
    if refusal.place is not None and not culprit:
        there = [n.name for n in program.nodes if n.place == refusal.place]
        named = [name for name in there if f"'{name}'" in refusal.reason]
        culprit = next(iter([*named, *there]), "")
    return replace(refusal, needed=needed, culprit=culprit)
