"""Members as columns of an affine form, with the factors of their priors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from autmarg.analysis import signs
from autmarg.analysis.domain import Opaque, array_of
from autmarg.analysis.flat import flat_elements, masked_elements
from autmarg.analysis.rows import Constants, tempering
from autmarg.analysis.sites import GaussianSite, Normalised
from autmarg.analysis.states import State
from autmarg.gaussian.affine import Member
from autmarg.ir.nodes import Sample


@dataclass(frozen=True, eq=False)
class Column:
    """A member's columns with its prior.

    Attributes:
        member: the columns.
        prior: scales [blocks|1], or factors [blocks|1, d, d].
        constants: what else the prior adds to the log-density.
    """

    member: Member
    prior: Any
    constants: Constants = ()


@dataclass(frozen=True, eq=False)
class Priors:
    """The priors of members.

    Attributes:
        normalised: the program.
        nodes: the members.
        read: a number of its tape → the array, known or opaque.
    """

    normalised: Normalised
    nodes: tuple[Sample, ...]
    read: Callable[[int], Any]

    @cached_property
    def flat(self) -> dict[str, np.ndarray | None]:
        """Which elements of each member have a flat prior; None where none has."""
        return {n.name: flat_elements(self.normalised, n) for n in self.nodes}

    def columns(self, derived: Iterable[State]) -> dict[str, Column]:
        """Columns of every member with their priors, derived states after sampled sites."""
        columns, total = {}, 0
        for node in self.nodes:
            member, prior = self._member(node, total)
            member = self._with_mask(node, member)
            constants = (*self._tempered(node, member, prior), *self._signs(node, member, prior))
            columns[node.name] = Column(member, prior, constants)
            total += member.blocks * member.size
        for state in derived:
            member = Member(state.name, state.mean.size, 1, total, random=False)
            columns[state.name] = Column(member, jnp.zeros(1))
            total += state.mean.size
        return columns

    def _member(self, node: Sample, offset: int) -> tuple[Member, Any]:
        site, flat = self._site(node), self.flat[node.name]
        if flat is not None and flat.all():  # whatever the masked prior reads
            return Member(node.name, node.size, 1, offset, flat=flat), jnp.ones(1)
        if site.basis is not None:
            return self._in_basis(node, site, offset)
        if site.scale is not None:
            prior = _scales(self._array(site.scale))
            return Member(node.name, node.size, 1, offset, flat=flat), _unscaled(prior, flat)
        prior = array_of(self._array(site.scale_tril))
        d = prior.shape[-1]
        member = Member(node.name, node.size // d, d, offset, flat=flat)
        return member, _unscaled(prior, flat)

    def _with_mask(self, node: Sample, member: Member) -> Member:
        """A member that knows its masked columns: with a basis, those of whole groups."""
        masked = masked_elements(self.normalised, node)
        if masked is not None and member.basis is not None:
            masked = np.repeat(masked.reshape(member.groups, -1)[:, 0], member.basis.shape[1])
        return member if masked is None else replace(member, masked=masked)

    def _in_basis(self, node: Sample, site: GaussianSite, offset: int) -> tuple[Member, Any]:
        """A member with a known basis: multiplied out where it is square, else columns of its own.

        A square one is kept as blocks of the site's own elements since a row then reads one column
        of it, and not all.
        """
        basis, scale = self._array(site.basis), self._array(site.scale)
        d, k = basis.shape[-2:]
        groups = node.size // d
        if not site.singular:
            prior = jnp.asarray(basis) * array_of(scale)[:, None, :]
            flat = self.flat[node.name]
            return Member(node.name, groups, d, offset, flat=flat), _unscaled(prior, flat)
        prior = _scales(scale)
        if prior.shape[0] not in (1, groups * k):
            prior = jnp.tile(prior, groups)
        return Member(node.name, groups * k, 1, offset, basis[0]), prior

    def _tempered(self, node: Sample, member: Member, prior: Any) -> Constants:
        """What a known power of a member's prior has beyond the prior of smaller scale."""
        site = self._site(node)
        power = site.power
        if power is None:
            return ()
        if site.mask is not None:
            groups = member.groups if member.basis is not None else member.blocks
            mask = np.reshape(self._array(site.mask), (groups, -1))[:, 0]
            power = np.where(mask, power, 1.0)
        if member.basis is not None:  # its columns, group by group
            width = member.basis.shape[1]
            power = np.repeat(power, width) if len(power) > 1 else power
        logs = jnp.log(prior) if prior.ndim == 1 else jnp.linalg.slogdet(prior)[1]
        return tempering(power, member.blocks, member.size, logs)

    def _signs(self, node: Sample, member: Member, prior: Any) -> Constants:
        """What a prior adds where a standard deviation is below zero, of those that count."""
        site, proper = self._site(node), member.proper
        if not len(proper):  # whatever the masked prior reads
            return ()
        deviations = self._array(site.scale_tril if site.scale is None else site.scale)
        if not isinstance(deviations, Opaque):
            return ()
        # (columns of a square basis are multiplied out, and may have any sign)
        of_basis = site.basis is not None and not site.singular
        found = array_of(deviations) if of_basis else prior
        if len(found) > 1 and len(proper) < member.blocks:
            found = found[proper]
        return (signs.of_scales(found) if of_basis or found.ndim == 1 else signs.of_factors(found),)

    def _site(self, node: Sample) -> GaussianSite:
        return self.normalised.gaussian[node.name]

    def _array(self, number: int | None) -> Any:
        assert number is not None
        return self.read(number)


def _scales(value: Any) -> Any:
    """Prior standard deviations, flattened; a single one where all are the same."""
    if isinstance(value, Opaque) and value.entries == 1:
        return jnp.reshape(value.base, (1,))
    return jnp.reshape(array_of(value), -1)


def _unscaled(prior: Any, flat: np.ndarray | None) -> Any:
    """Prior scales [n|1] or factors [G|1, d, d], one where the prior is flat."""
    if flat is None:
        return prior
    one = jnp.ones((), prior.dtype) if prior.ndim == 1 else jnp.eye(prior.shape[-1])
    if flat.all():
        return jnp.broadcast_to(one, (1, *prior.shape[1:])).astype(prior.dtype)
    if prior.ndim == 1:
        return jnp.where(flat, one, prior)
    return jnp.where(flat.reshape(-1, prior.shape[-1])[:, :1, None], one, prior)


__all__ = ["Column", "Priors"]
