"""What each latent is in the words of mixed models: coefficients, effects, their covariance, noise.

Nothing goes by a name or a distribution's class alone. A latent is an *effect* if the scale of its
prior is not known, if it stands in a plate, or if it has several elements of mean 0 and deviation 1
that a positive latent in no plate multiplies (an effect in standard units). What enters an effect's
prior scale is *covariance*, what enters the scale of an observed Gaussian is *noise*. An
unconstrained latent in no plate is a *population-level* coefficient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform

from autmarg.analysis.degrees import degrees
from autmarg.analysis.families.location_scale import NotLocationScale, as_location_scale
from autmarg.analysis.sites import GaussianSite, Normalised, normalise
from autmarg.compat.jaxprs import Op
from autmarg.ir.nodes import Factor, Observe, Sample
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape

_CORRELATIONS = (constraints.corr_matrix, constraints.corr_cholesky)
_COVARIANCES = (constraints.positive_definite, constraints.lower_cholesky)


@dataclass(frozen=True)
class Prior:
    """Tape numbers of the parts of a location-scale prior, in the site's own units.

    Attributes:
        loc: mean given what the site reads, of the site's elements (with a chain's own past).
        scale: standard deviations, or None where the elements are correlated.
        scale_tril: factors [G|1, d, d] of the covariance of groups of d elements, or None. Both are
            None for a prior on a subspace, and for one under ``handlers.scale``, whose deviations
            are not those that the program writes.
        reads: names of what the scale or the covariance depends on.
        mask: which elements count, or None for all.
        gaussian: whether ``scale`` is a standard deviation.
    """

    loc: int
    scale: int | None
    scale_tril: int | None
    reads: frozenset[str]
    mask: int | None = None
    gaussian: bool = True


@dataclass(frozen=True, eq=False)
class Roles:
    """Every latent of a program in one of these.

    Attributes:
        program: on the tape that the priors' numbers are of.
        population: unconstrained coefficients in no plate.
        effects: sites that vary by level, and their priors.
        standardised: effects in units of a latent that multiplies them.
        covariance: what enters the scale of an effect's prior.
        matrices: of these, correlation and covariance matrices and their factors.
        multipliers: positive latents by which standardised effects are multiplied.
        correlations: correlation matrices that no effect's prior reads → whether the site is the
            Cholesky factor of one.
        noise: what enters the scale of an observed Gaussian.
        other: the rest.
        masks: tape numbers of which elements of a latent count, where not all do.
    """

    program: Program
    population: tuple[str, ...]
    effects: dict[str, Prior]
    standardised: frozenset[str]
    covariance: tuple[str, ...]
    matrices: frozenset[str]
    multipliers: tuple[str, ...]
    correlations: dict[str, bool]
    noise: tuple[str, ...]
    other: tuple[str, ...]
    masks: dict[str, int]


def roles(program: Program) -> Roles:
    """The role of every latent of a source program."""
    normalised = normalise(program)
    tape, priors = _priors(normalised)
    known = normalised.program.replace_nodes(normalised.program.nodes, tape)
    latents = {n.name: n for n in known.latents}
    reads = {name: prior.reads & set(latents) for name, prior in priors.items()}
    supports = {name: _support(known, node) for name, node in latents.items()}
    pairs = _multiplied(normalised, known, priors, supports)
    informed = _informed(known)
    effects: dict[str, Prior] = {}
    for name, node in latents.items():
        varies = bool(reads.get(name)) or node.plates or node.scanned
        varies = varies or (node.size > 1 and bool(node.parents & set(latents)))
        if name in informed and name in priors and (varies or name in pairs):
            effects[name] = priors[name]
    covariance = frozenset().union(*(reads[name] for name in effects)) - set(effects)
    multipliers = frozenset().union(*(pairs[n] for n in effects if n in pairs))
    noise = frozenset().union(*_noise(normalised)) & set(latents)
    noise -= set(effects)
    shared = set(effects) | covariance | multipliers | noise
    correlations = {
        n: s is constraints.corr_cholesky
        for n, s in supports.items()
        if n not in shared and s in _CORRELATIONS
    }
    free = [n for n in latents if n not in {*shared, *correlations} and _is_free(supports[n])]
    population = [n for n in free if not latents[n].plates and n in informed]
    listed = {*shared, *correlations, *population}
    return Roles(
        known,
        tuple(population),
        effects,
        frozenset(n for n in effects if n in pairs and not reads[n]),
        tuple(n for n in latents if n in covariance),
        frozenset(n for n in covariance if supports[n] in (*_CORRELATIONS, *_COVARIANCES)),
        tuple(n for n in latents if n in multipliers),
        correlations,
        tuple(n for n in latents if n in noise),
        tuple(n for n in latents if n not in listed),
        {n: prior.mask for n, prior in priors.items() if prior.mask is not None},
    )


def _support(program: Program, node: Sample) -> Any:
    """The support of a latent, at any values of what it reads; None where it has none to name."""
    tape = program.tape
    fn = node.distribution.unflatten(
        [jnp.ones(tape.avals[v].shape, tape.avals[v].dtype) for v in node.distribution.values]
    )
    return getattr(fn, "support", None)


def _is_free(support: Any) -> bool:
    """Whether a latent is unconstrained."""
    try:
        transform = biject_to(support)
    except NotImplementedError:
        return False
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, IdentityTransform)


def _is_positive(support: Any) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    lower = getattr(support, "lower_bound", None)
    return support in (constraints.positive, constraints.nonnegative) or (
        lower is not None and not hasattr(support, "upper_bound") and bool(jnp.all(lower >= 0))
    )


def _priors(normalised: Normalised) -> tuple[Tape, dict[str, Prior]]:
    """Priors of the latents that are location-scale without a transform on top."""
    program = normalised.program
    tape, found = program.tape, {}
    for node in program.latents:
        site = normalised.gaussian.get(node.name)
        if site is not None and not site.bijection:
            reads = tape.dependencies(_scales(site))
            plain = site.basis is None and site.power is None
            scale, factor = (site.scale, site.scale_tril) if plain else (None, None)
            found[node.name] = Prior(site.loc, scale, factor, reads, site.mask)
        elif site is None:
            try:
                tape, prior = _location_scale(tape, node)
            except NotLocationScale:
                continue
            found[node.name] = prior
    return tape, found


def _location_scale(tape: Tape, node: Sample) -> tuple[Tape, Prior]:
    """The prior of a latent that is location-scale and not Gaussian."""

    def parts(*leaves: Any) -> list[Any]:
        read = as_location_scale(node.distribution.unflatten(leaves))
        if read.bijection or read.scale is None:
            raise NotLocationScale("a transform")
        return [jnp.broadcast_to(x, node.shape) for x in (read.loc, read.scale)]

    tape, (loc, scale) = tape.extend(parts, node.distribution.values)
    return tape, Prior(loc, scale, None, tape.dependencies([scale]), gaussian=False)


def _scales(site: GaussianSite) -> list[int]:
    return [v for v in (site.scale, site.scale_tril, site.basis) if v is not None]


def _noise(normalised: Normalised) -> Iterator[frozenset[str]]:
    """For each observed Gaussian site, what its scale depends on."""
    tape = normalised.program.tape
    for node in normalised.program.observed:
        if (site := normalised.gaussian.get(node.name)) is not None:
            yield tape.dependencies(_scales(site))


def _multiplied(
    normalised: Normalised,
    program: Program,
    priors: dict[str, Prior],
    supports: dict[str, Any],
) -> dict[str, frozenset[str]]:
    """Latents in standard units that a positive latent in no plate multiplies, → these."""
    latents = {n.name: n for n in program.latents}
    found = degrees(_without_zeros(normalised.program.tape), latents)
    numbers = [v for n in normalised.program.nodes for v in n.numbers]
    numbers += [v for site in normalised.gaussian.values() for v in site.numbers]
    pairs = {pair for number in numbers for pair in found[number].clashes}
    units = {
        n for n, node in latents.items() if node.size > 1 and _is_standard(program.tape, priors, n)
    }
    scales = {
        n for n, node in latents.items()
        if not (node.plates or node.scanned) and _is_positive(supports[n])
    }  # fmt: skip
    return {
        name: each
        for name in units
        if (each := frozenset().union(*(pair for pair in pairs if name in pair)) & scales)
    }


def _without_zeros(tape: Tape) -> Tape:
    """The tape in which what is multiplied by zeros is zero (a mean in no part centred, say)."""
    zero = {v for v, x in tape.constants.items() if not np.any(x)}
    products = {
        v: np.zeros(tape.avals[v].shape, tape.avals[v].dtype)
        for e in tape.equations
        if e.op is Op.MUL and zero & set(e.inputs)
        for v in e.outputs
    }
    return replace(tape, constants={**tape.constants, **products})


def _is_standard(tape: Tape, priors: dict[str, Prior], name: str) -> bool:
    """Whether the mean of a prior is 0 and its deviations 1, whatever other latents are."""
    prior = priors.get(name)
    if prior is None or prior.scale is None or tape.dependencies([prior.loc, prior.scale]):
        return False
    loc, scale = tape.evaluate([prior.loc, prior.scale], {})
    return bool(np.all(loc == 0) and np.all(scale == 1))


def _informed(program: Program) -> set[str]:
    """Latents that data or factors read, through other latents too."""
    ends = [n.name for n in program.nodes if isinstance(n, Observe | Factor)]
    return set().union(*(program.ancestors(end) for end in ends))


__all__ = ["Prior", "Roles", "roles"]
