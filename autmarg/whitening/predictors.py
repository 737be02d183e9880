"""What a non-Gaussian site reads of Gaussian latents: its predictors.

The predictors of a site are the last values, on the way from the latents to the parameters of its
distribution, that are still affine in them: of ``Poisson(exp(x @ b + u[g]))`` the sum, of
``Normal(a * exp(u), s)`` the ``u``. Given its predictors (and what is sampled) the site reads none
of these latents, whichever function of them it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from autmarg.analysis.admissible import Facts
from autmarg.ir.nodes import Observe
from autmarg.ir.tape import Tape

_FEW = 8  # elements that are sampled as well as they are

Key = tuple[str, int]  # a site's name, and the number of a predictor


@dataclass(frozen=True, eq=False)
class Likelihood:
    """An observed site that is not Gaussian given its predictors.

    Attributes:
        site: as the program has it.
        predictors: numbers on the program's tape.
        integrated: names of the latents that are to be integrated out by quadrature, if any are.
    """

    site: Observe
    predictors: tuple[int, ...]
    integrated: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Of the pseudo-data that stand in for it; two sites may have a predictor in common."""
        return tuple((self.site.name, p) for p in self.predictors)


def whitenable(facts: Facts) -> frozenset[str]:
    """Latents with a proper Gaussian prior in their own units."""
    gaussian = facts.normalised.gaussian
    names = (n.name for n in facts.normalised.program.latents)
    return frozenset(
        n for n in names if n in gaussian and not gaussian[n].bijection and gaussian[n].proper
    )


def likelihoods(
    facts: Facts, latents: Collection[str], any_data: bool = False, spread: bool = False
) -> tuple[Likelihood, ...]:
    """The observed sites whose density is not Gaussian in some latents, with their predictors.

    Args:
        facts: of the program.
        latents: that the predictors should be affine in.
        any_data: also where data are not known.
        spread: also where latents of a variance are no more than those of the mean, but for a few.
    """
    found = []
    for site in facts.normalised.program.observed:
        if (any_data or is_known_data(facts, site)) and not _is_gaussian(
            facts, site, latents, spread
        ):
            predictors = frontier(facts, site.distribution.values, latents)
            if predictors:
                found.append(Likelihood(site, predictors))
    return tuple(found)


def under_traced_data(facts: Facts) -> frozenset[str]:
    """Latents under a likelihood that is not Gaussian, some of whose data or covariates JAX traces.

    They are sampled as the user wrote them, whatever was asked.
    """
    tape, latents, found = facts.normalised.program.tape, whitenable(facts), frozenset[str]()
    for each in likelihoods(facts, latents, any_data=True):
        reads = tape.dependencies(each.site.numbers)
        if any(name.startswith("@") for name in reads):
            found |= reads & latents
    return found


def is_known_data(facts: Facts, site: Observe) -> bool:
    """Whether the data, and what else the site reads beside latents, are known."""
    program = facts.normalised.program
    latents = {n.name for n in program.latents}
    reads = program.tape.dependencies(site.numbers)
    return reads <= latents and not program.tape.dependencies([site.value])


def _is_gaussian(facts: Facts, site: Observe, latents: Collection[str], spread: bool) -> bool:
    """Whether the mean is affine in the latents, and those in the variance are the fewer, or few.

    Latents in the variance are then sampled, and those in the mean integrated out.
    """
    program, gaussian = facts.normalised.program, facts.normalised.gaussian.get(site.name)
    if gaussian is None or set(facts.degree(gaussian.loc).nonlinear) & set(latents):
        return False
    scales = [n for n in (gaussian.scale, gaussian.scale_tril, gaussian.basis) if n is not None]
    both = (program.tape.dependencies(numbers) for numbers in ([gaussian.loc], scales))
    mean, variance = (sum(program[n].size for n in read & set(latents)) for read in both)
    return variance <= (min(mean, _FEW) if spread else mean)


def frontier(facts: Facts, numbers: Collection[int], latents: Collection[str]) -> tuple[int, ...]:
    """The last values affine in the latents that some numbers are functions of."""
    tape, wanted = facts.normalised.program.tape, set(latents)
    found: list[int] = []
    seen = set(numbers)
    waiting = list(seen)  # (a distribution may hold one value twice)
    while waiting:
        number = waiting.pop()
        if not tape.dependencies([number]) & wanted:
            continue
        if not set(facts.degree(number).nonlinear) & wanted:
            found.append(number)
            continue
        equation = tape.producer(number)
        assert equation is not None, "a latent is affine in itself"
        new = {v for v in equation.inputs if v not in seen}
        seen |= new
        waiting += new
    return tuple(sorted(found))  # (a distribution's own order may differ between processes)


def cut(tape: Tape, predictors: Collection[int], values: Collection[object]) -> Tape:
    """The tape with values for some predictors, whatever they are computed from."""
    given = dict(zip(predictors, values, strict=True))
    return replace(tape, constants={**tape.constants, **given})
