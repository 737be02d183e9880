"""Write a chosen set of latents and their children out as an affine form.

The result is static structure (:class:`~autmarg.gaussian.affine.AffineForm`) plus one jaxpr
*kept latents → ω, prior scales, constant*, evaluated at every step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.admissible import Facts
from autmarg.analysis.domain import Affine, Lookup, Term, array_of, as_affine, composed
from autmarg.analysis.finite import check_mean, check_scale, check_value
from autmarg.analysis.flat import has_no_density
from autmarg.analysis.interpret import AffineInterpreter, run
from autmarg.analysis.priors import Priors
from autmarg.analysis.reduction import reduced
from autmarg.analysis.rows import (
    OpenRows,
    Placed,
    correlated,
    in_basis,
    noisy,
    picked,
    placed,
)
from autmarg.analysis.rules.base import CannotExtract, NotWritten
from autmarg.analysis.sites import GaussianSite
from autmarg.analysis.states import State, States, recurrent, taken_along
from autmarg.compat.jaxprs import ClosedJaxpr, jaxpr_as_fun
from autmarg.errors import ModelError
from autmarg.gaussian.affine import AffineForm, Member, Point
from autmarg.gaussian.chains.search import find_recurrences
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.staged import staged
from autmarg.ir.tape import Tape


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """An affine form and the function that evaluates its opaque numbers.

    ``inputs`` are the names of the kept latents (and traced constants) it needs.
    """

    form: AffineForm
    inputs: tuple[str, ...]
    closed: Any

    def point(self, values: Mapping[str, Any]) -> Point:
        """Evaluate the opaque numbers at given kept latents."""
        closed, layout = self.closed, self.form.layout
        if layout is not None:
            closed = ClosedJaxpr(closed.jaxpr, [layout.constant(c) for c in closed.consts])
        # (where the session is in single precision, values come widened: it is the user's numbers
        # that the user's operations are applied to)
        given = zip(self.inputs, closed.in_avals, strict=True)
        out = jaxpr_as_fun(closed)(*(jnp.asarray(values[n], a.dtype) for n, a in given))
        out = [x.astype(float) for x in out]
        starts = (0, *self.form.bases)
        arrays, (constant, *rest) = out[: len(starts)], out[len(starts) :]
        omega = layout.omega(arrays, starts) if layout else jnp.concatenate(arrays)
        members = len(self.form.members)
        return Point(omega, tuple(rest[:members]), constant, tuple(rest[members:]))


def extract(
    facts: Facts, members: tuple[Sample, ...], children: tuple[Sample, ...]
) -> LinearSystem | NotWritten:
    """The linear Gaussian system of ``members`` and of ``children``, the other sites that read
    them (observed, or kept); or the mean that is affine in a member, but not written out.

    Raises:
        ModelError: an index array out of range, NaN in observed data.
    """
    tape = facts.normalised.program.tape
    sites = facts.normalised.gaussian
    needed = tape.dependencies(
        n for node in (*members, *children) for n in sites[node.name].numbers
    )
    needed |= {c.name for c in children if not isinstance(c, Observe)}
    names = tuple(sorted(needed - {m.name for m in members}))

    def system(*arrays: Any) -> tuple[AffineForm, list[Any]]:
        values = dict(zip(names, arrays, strict=True))
        return _System(facts, members, values).written(children)

    avals = [tape.avals[tape.inputs[n]] for n in names]
    try:
        with jax.enable_x64(True):  # precisions σ⁻² are in float64, as all that is made of them
            form, closed = staged(system, *avals)
    except CannotExtract as raised:
        return NotWritten.of(raised)
    return LinearSystem(form, names, closed)


@dataclass(frozen=True, eq=False)
class _System:
    """Members at some values of everything else that they and their children read.

    Attributes:
        facts: of the program.
        nodes: the members.
        values: by name, of the kept latents (and traced constants).
    """

    facts: Facts
    nodes: tuple[Sample, ...]
    values: Mapping[str, Any]

    @property
    def sites(self) -> Mapping[str, GaussianSite]:
        return self.facts.normalised.gaussian

    @property
    def tape(self) -> Tape:
        return self.facts.normalised.program.tape

    @property
    def known_names(self) -> Mapping[str, Any]:
        """Arrays that the user has a name for."""
        return self.facts.normalised.program.names

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(m.name for m in self.nodes)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The values, flattened; one object each, so that terms can be told to share it."""
        return {name: jnp.ravel(value) for name, value in self.values.items()}

    @cached_property
    def _plain(self) -> AffineInterpreter:
        return AffineInterpreter(self.tape, frozenset(), self.values)

    @cached_property
    def _priors(self) -> Priors:
        return Priors(self.facts.normalised, self.nodes, self._plain.read)

    def written(self, children: tuple[Sample, ...]) -> tuple[AffineForm, list[Any]]:
        """The form of all members and children, and what is traced of a point: the arrays of ω,
        the constant, priors and factors."""
        states = States(self.names, self.flat, run)
        raw = {n.name: self._prior_mean(n, states) for n in self.nodes}
        raw |= {c.name: self._residual(c, states) for c in children}
        derived, raw = reduced(states.found, raw, {n.name: n.size for n in self.nodes})
        columns = self._priors.columns(derived.values())
        members = {name: each.member for name, each in columns.items()}
        read = {n.name: raw[n.name] for n in self.nodes}
        read |= {s.name: s.mean for s in derived.values()}
        implicit = self._in_time(members, derived, read)
        # Members' own means in terms of centred columns δ, parents before children.
        means: dict[str, Affine] = {}
        for name, mean in read.items():
            means[name] = self._centred(mean, means, members, implicit)
        centred = [self._centred(raw[c.name], means, members, implicit) for c in children]
        rows = [self._child(c, form) for c, form in zip(children, centred, strict=True)]
        mean_rows = [OpenRows(name, mean) for name, mean in means.items()]
        omega = placed((*rows, *mean_rows))
        form = self._form(omega, members, mean_rows, rows, implicit)
        constants = (c for part in (*columns.values(), *rows) for c in part.constants)
        constant = sum(constants, jnp.zeros((), float))
        priors = (each.prior for each in columns.values())
        factors = (each.factor for each in rows if each.factor is not None)
        return form, [*(a.astype(float) for a in omega.arrays), constant, *priors, *factors]

    def _form(
        self,
        omega: Placed,
        members: Mapping[str, Member],
        means: Sequence[OpenRows],
        children: Sequence[OpenRows],
        implicit: Collection[str],
    ) -> AffineForm:
        """The form, its columns numbered and its opaque factors slots of ω."""
        total = sum(m.blocks * m.size for m in members.values())
        offsets = {None: total, **{name: m.offset for name, m in members.items()}}
        mean_rows = tuple(omega.rows(each, offsets) for each in means)
        rows = tuple(omega.rows(each, offsets) for each in children)
        sites = tuple(members.values())
        chained = [i for i, m in enumerate(sites) if m.name in implicit]
        chains = find_recurrences(sites, mean_rows, list(rows), chained) if chained else ()
        sharding = self.facts.normalised.program.sharding
        starts = tuple(omega.starts.values())
        return AffineForm(sites, mean_rows, rows, omega.slots, chains, starts, sharding)

    def _in_time(
        self,
        members: Mapping[str, Member],
        derived: Mapping[str, State],
        means: Mapping[str, Affine],
    ) -> frozenset[str]:
        """Members that belong to recurrences: their columns are values, not deviations."""
        sampled = {n.name: members[n.name] for n in self.nodes}
        proper = {name: m for name, m in sampled.items() if m.basis is None and m.flat is None}
        sizes = {name: m.size for name, m in proper.items()}
        return recurrent(means) | derived.keys() | taken_along(sizes, derived.values())

    def _array(self, number: int | None) -> Any:
        assert number is not None
        return self._plain.read(number)

    def _prior_mean(self, node: Sample, states: States) -> Affine:
        """A member's mean, zero where its prior is flat."""
        number, flat = self.sites[node.name].loc, self._priors.flat[node.name]
        aval = self.tape.avals[number]
        if flat is not None and flat.all():
            return Affine(aval.shape, aval.dtype, ())
        mean = self._affine(node.name, number, states)
        return mean if flat is None else mean.take(np.arange(node.size), aval.shape, ~flat)

    def _affine(self, name: str, number: int, states: States) -> Affine:
        """A mean or an observed value of site ``name``, over members and over kept latents that
        enter it affinely."""
        degree = self.facts.degree(number)
        clashing = frozenset().union(*degree.clashes)
        kept = (degree.affine - clashing) & set(self.values)
        members = self.names & self.tape.dependencies([number])
        failure = None
        for columns in (members | kept, members):  # kept latents as columns only save work
            try:
                return self._read(number, columns, states)
            except CannotExtract as error:
                failure = error
        assert failure is not None
        failure.child = name
        raise failure

    def _read(self, number: int, columns: frozenset[str], states: States) -> Affine:
        return as_affine(AffineInterpreter(self.tape, columns, self.values, states).read(number))

    def _centred(
        self,
        form: Affine,
        means: Mapping[str, Affine],
        members: Mapping[str, Member],
        implicit: Collection[str],
    ) -> Affine:
        """Replace members x_s by δ_s + m_s, and kept latents by their values.

        Members of a recurrence stay as they are.
        """
        terms: list[Term] = []
        for term in form.terms:
            if term.site is not None and term.site in members:
                terms.extend(_deviation(members[term.site], term))
                if term.site not in implicit:
                    terms.extend(composed(term, means[term.site].terms))
            elif term.site is not None:
                base = self.flat[term.site]
                zero = np.zeros((1, 1), np.int32)
                lookup = Lookup(base, term.column).times(term.lookup)
                terms.append(Term(None, zero, term.known, lookup))
            else:
                terms.append(term)
        return Affine(form.shape, form.dtype, tuple(terms))

    def _residual(self, node: Sample, states: States) -> Affine:
        """value - mean of a child, of the rows that a mask leaves in."""
        site = self.sites[node.name]
        if has_no_density(self.facts.normalised, node.name):
            return Affine((0,), self.tape.avals[site.loc].dtype, ())
        mean = self._affine(node.name, site.loc, states)
        if self.names & self.tape.dependencies([site.value]):
            value: Any = self._affine(node.name, site.value, states)
        else:
            value = self._array(site.value)
        keep = self._unmasked(node, site)
        check_value(node, value, keep, transformed=site.log_jacobian is not None)
        terms = (*as_affine(value).terms, *mean.times(np.full((), -1.0)).terms)
        residual = Affine(mean.shape, mean.dtype, terms)
        return residual if keep is None else residual.take(keep, (len(keep),))

    def _child(self, node: Sample, residual: Affine) -> OpenRows:
        """The rows of a child, given value - mean, with its noise."""
        site = self.sites[node.name]
        if has_no_density(self.facts.normalised, node.name):
            # Its noise may read what is integrated out: no row of it is left.
            return noisy(node.name, residual, np.ones(0), None)
        keep = self._unmasked(node, site)
        check_mean(node, residual, self.known_names)
        rows = self._with_noise(node, site, residual, keep)
        if site.log_jacobian is None:
            return rows
        jacobian = array_of(self._array(site.log_jacobian))
        return replace(rows, constants=(-jacobian, *rows.constants))

    def _with_noise(
        self, node: Sample, site: GaussianSite, residual: Affine, keep: np.ndarray | None
    ) -> OpenRows:
        if site.scale_tril is not None:
            tril = self._array(site.scale_tril)
            if isinstance(tril, np.ndarray):
                rows = slice(None) if keep is None or len(tril) == 1 else keep // tril.shape[-1]
                diagonal = np.diagonal(tril, axis1=-2, axis2=-1)[rows]
                check_scale(node, diagonal, self.known_names)
            return correlated(node.name, residual, tril, keep, site.power)
        noise, power = self._array(site.scale), site.power
        if site.basis is not None:
            basis = self._array(site.basis)
            return in_basis(node.name, residual, basis, noise, keep, power)
        if power is not None and len(power) > 1 and keep is not None:
            power = power[keep]
        noise = picked(noise, keep)
        if isinstance(noise, np.ndarray):
            check_scale(node, noise, self.known_names)
        return noisy(node.name, residual, noise, power)

    def _unmasked(self, node: Sample, site: GaussianSite) -> np.ndarray | None:
        """Rows that a known mask leaves in, or None for all."""
        if site.mask is None:
            return None
        mask = self._array(site.mask)
        if not isinstance(mask, np.ndarray):
            raise ModelError(
                f"the mask of site '{node.name}' ({node.place}) is traced or depends on a latent: "
                "expected a known array; close over it instead of passing it through jit"
            )
        return np.flatnonzero(mask)


def _deviation(member: Member, term: Term) -> list[Term]:
    """A term over a member's x - m, over its columns."""
    if member.basis is None:
        return [term]
    columns, known = member.of_columns()
    return composed(term, (Term(term.site, columns - member.offset, known),))
