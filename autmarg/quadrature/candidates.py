"""Which latents are integrated out by quadrature: the most levels first, then what they nest in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autmarg.analysis.admissible import Facts
from autmarg.analysis.elements import SEVERAL, elements_read
from autmarg.ir.nodes import Deterministic, Observe, Sample
from autmarg.quadrature.separable import layers_of
from autmarg.whitening.predictors import (
    Likelihood,
    frontier,
    is_known_data,
    likelihoods,
    whitenable,
)

DEEPEST = 2  # nested integrals: their nodes multiply


@dataclass(frozen=True, eq=False)
class Nest:
    """Nested latents, the innermost first, and what stands in for the data that read them."""

    members: tuple[Sample, ...]
    likelihoods: tuple[Likelihood, ...]


def nests_of(facts: Facts, deepest: int) -> tuple[Nest, ...]:
    """Nests with a likelihood that is not Gaussian; no site reads latents of two of them.

    Args:
        facts: of the program.
        deepest: how many latents a nest may have.
    """
    program, found, taken = facts.normalised.program, list[Nest](), set[str]()
    names = whitenable(facts)
    latents = [n for n in program.latents if n.name in names and n.size > 1]
    latents.sort(key=lambda n: -n.size)
    for latent in latents:
        nest = None if latent.name in taken else _grown(facts, latent, latents, deepest)
        sites = set() if nest is None else _sites(facts, nest)
        if nest is not None and not sites & taken:
            found.append(nest)
            taken |= sites
    return tuple(found)


def _grown(facts: Facts, latent: Sample, others: Sequence[Sample], deepest: int) -> Nest | None:
    """A latent, with what its levels are nested in."""
    nest = _nest(facts, (latent,))
    if nest is None:
        return None
    for other in others:
        if len(nest.members) < deepest and _is_near(facts, nest, other):
            nest = _nest(facts, (*nest.members, other)) or nest
    return nest


def _is_near(facts: Facts, nest: Nest, other: Sample) -> bool:
    """Whether another latent is read with those of a nest."""
    if other in nest.members or other.size > nest.members[-1].size:
        return False
    return bool(_sites(facts, nest) & {other.name, *_readers(facts, other)})


def _sites(facts: Facts, nest: Nest) -> set[str]:
    """The latents of a nest and the sites that read them."""
    return {name for m in nest.members for name in (m.name, *_readers(facts, m))}


def _readers(facts: Facts, latent: Sample) -> set[str]:
    children = facts.normalised.program.children(latent.name)
    return {n.name for n in children if isinstance(n, Sample)}


def _nest(facts: Facts, members: Sequence[Sample]) -> Nest | None:
    """These latents as a nest, the innermost first."""
    program, names = facts.normalised.program, {m.name for m in members}
    readers = [n for m in members for n in program.children(m.name)]
    if any(not isinstance(n, Sample | Deterministic) for n in readers):
        return None  # a factor has no elements
    others = {n.name: n for n in readers if isinstance(n, Sample) and n.name not in names}
    if any(n.scanned for n in (*members, *others.values())):
        return None
    if not likelihoods(facts, names):
        return None
    observed = [n for n in others.values() if isinstance(n, Observe)]
    if not all(is_known_data(facts, n) for n in observed):
        return None
    if layers_of(program.tape, members, list(others.values())) is None:
        return None
    inside = tuple(m.name for m in members)
    stood = [Likelihood(n, frontier(facts, n.distribution.values, names), inside) for n in observed]
    predictors = [p for each in stood for p in each.predictors]
    read = [x for m in members for x in elements_read(program.tape, m.name, predictors)]
    if not all(each.predictors for each in stood) or any((x == SEVERAL).any() for x in read):
        return None
    return Nest(tuple(members), tuple(stood))


__all__ = ["DEEPEST", "Nest", "nests_of"]
