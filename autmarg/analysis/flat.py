"""Which elements of a latent have a flat prior.

A mask takes the density of a latent's elements out of the program: ∫ p(y | x) dx over such an x is
an integral over a flat prior, where the data make it finite. Elements that no density reads say
nothing, and data cannot: they are masked, drawn from their own distribution, which no density
counts.
"""

from __future__ import annotations

import math

import jax
import numpy as np

from autmarg.analysis.domain import as_affine
from autmarg.analysis.interpret import AffineInterpreter
from autmarg.analysis.sites import GaussianSite, Normalised
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.staged import known


def has_no_density(normalised: Normalised, name: str) -> bool:
    """Whether a known mask takes a Gaussian site's whole density out."""
    site = normalised.gaussian.get(name)
    mask = None if site is None else _known_mask(normalised, site)
    return mask is not None and not mask.any()


def _known_mask(normalised: Normalised, site: GaussianSite) -> np.ndarray | None:
    """The mask over a site's elements, flat; None where there is none or it is not known."""
    mask = None if site.mask is None else normalised.program.tape.constants.get(site.mask)
    return None if mask is None else np.reshape(mask, -1)


def flat_elements(normalised: Normalised, latent: Sample) -> np.ndarray | None:
    """[size] whether an element of a Gaussian latent has a flat prior; None where none has.

    The elements of one draw (of a vector) are flat together.
    """
    site = normalised.gaussian[latent.name]
    mask = _known_mask(normalised, site)
    if mask is None or mask.all():
        return None
    flat = ~mask
    if site.proper:
        draw = math.prod(latent.distribution.event_shape)
        read = _elements_read(normalised, latent).reshape(-1, draw).any(axis=1)
        flat = flat & np.repeat(read, draw)
    return flat if flat.any() else None


def masked_elements(normalised: Normalised, latent: Sample) -> np.ndarray | None:
    """[size] whether a mask is over an element of a Gaussian latent that no density reads; None
    where that is so for none."""
    mask = _known_mask(normalised, normalised.gaussian[latent.name])
    if mask is None:
        return None
    flat = flat_elements(normalised, latent)
    masked = ~mask if flat is None else ~mask & ~flat
    return masked if masked.any() else None


def _elements_read(normalised: Normalised, latent: Sample) -> np.ndarray:
    """[size] whether the density of another site, or of a later element, reads an element."""
    read = np.zeros(latent.size, bool)
    for child in normalised.program.children(latent.name):
        site = normalised.gaussian.get(child.name)
        if site is None or has_no_density(normalised, child.name):
            continue
        numbers = (site.loc, site.value) if isinstance(child, Observe) else (site.loc,)
        for number in numbers:
            read[_columns(normalised, site, number, latent.name)] = True
    return read


def _columns(normalised: Normalised, site: GaussianSite, number: int, name: str) -> np.ndarray:
    """The elements of a latent that a mean or value, affine in it, reads in rows that count."""
    tape = normalised.program.tape
    others = sorted(tape.dependencies([number]) - {name})
    mask = _known_mask(normalised, site)

    def read(*arrays: jax.Array) -> np.ndarray:
        values, found = dict(zip(others, arrays, strict=True)), [np.zeros(0, np.int64)]
        affine = as_affine(AffineInterpreter(tape, frozenset({name}), values).read(number))
        for term in affine.terms:
            if term.site == name:
                whole = term.arrays(affine.size)
                used = whole.known != 0
                found.append(whole.column[used if mask is None else used & mask[:, None]])
        return np.unique(np.concatenate(found))

    return known(read, *(tape.avals[tape.inputs[n]] for n in others))


__all__ = ["flat_elements", "has_no_density", "masked_elements"]
