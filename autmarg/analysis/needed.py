"""What the user could change, by the condition that failed; "" where nothing sensible would do."""

from __future__ import annotations

from dataclasses import replace

from autmarg.errors import WHOLE_MODEL, Refusal
from autmarg.ir.program import Program

NEEDED = {
    "non-Gaussian prior": "",
    "non-Gaussian child": "nongaussian='whiten' samples standard noise instead, exactly; "
    "compare says whether that is quicker",
    "nonlinear mean": "",
    "nonlinear observed value": "",
    "choice by a latent": "let known data decide it",
    "hidden from gradients": "",
    "no rule yet": "",
    "not written out": "",
    "product of latents": "name the one to sample in keep=[…]",
    "scale handler": "pass a known positive factor, one or one for each element of the batch",
    "masked latent": "pass a known mask, over whole draws of the latent",
    "improper posterior": "give it a proper prior",
    "mask of a latent": "use a mask that is known",
    "unknown basis": "compute the structure of the covariance from known arrays",
    "empty site": "",
    "singular chain": "use a covariance of full rank",
    "singular child": "use a covariance of full rank",
    "beside quadrature": "",
    "factor": "write the factor as an observed Gaussian site, if it is one",
    "latent in a scale": "",
    "latent in a covariance": "",
    "latent in a mask": "use a mask that does not read it",
    "latent in a transform": "",
    "not conjugate": "",
    WHOLE_MODEL: "",
    "cost": "",
    "form": "",
    "kept on request": "take it out of keep",
    "not requested": "add it to marginalize",
    "no pass": "put the pass 'marginalise' (or 'conjugate') into the list of passes",
}


# Instead, of latents under a likelihood that is not Gaussian, by what was asked for.
_NONGAUSSIAN = {
    "whiten": "nongaussian='whiten' needs known data here, priors without params, and latents that "
    "no numpyro.factor reads",
    "quadrature": "nongaussian='quadrature' needs levels that are elements of one site and "
    "independent scalars given what is sampled, known data, priors without params, and no "
    "numpyro.factor that reads them",
}


def no_mode(nongaussian: str) -> str:
    """What is needed where the search of a mode ended at none."""
    return (
        f"nongaussian='{nongaussian}' starts from a mode of the posterior, and none was found: "
        "check that the data are possible, and of a size that the priors expect"
    )


TOO_MANY_NODES = (
    "nongaussian='quadrature' takes up to 128 nodes for an integral, and a few million nodes times "
    "rows; more would be needed here"
)


def complete(refusal: Refusal, program: Program, nongaussian: str = "auto") -> Refusal:
    """The refusal with its site's line, what is needed, and what stands at its place.

    ``nongaussian`` is what was asked for latents under a likelihood that is not Gaussian.
    """
    needed = refusal.needed or NEEDED.get(refusal.rule, "")
    if refusal.rule == "non-Gaussian child":
        needed = program.unmet.get(refusal.site) or _NONGAUSSIAN.get(nongaussian, needed)
    culprit = refusal.culprit
    if refusal.place is not None and not culprit:
        there = [n.name for n in program.nodes if n.place == refusal.place]
        named = [name for name in there if f"'{name}'" in refusal.reason]
        culprit = next(iter([*named, *there]), "")
    own = program[refusal.site].place if refusal.site in program else None
    return replace(refusal, needed=needed, culprit=culprit, own=own)
