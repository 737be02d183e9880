"""Write a chosen set of latents and their children out as an affine form.

The result is static structure (:class:`~autmarg.gaussian.affine.AffineForm`) plus one jaxpr
*kept latents → ω, prior scales, constant*, evaluated at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.admissible import Facts
from autmarg.analysis.domain import Affine, Lookup, Opaque, Term, as_affine, composed
from autmarg.analysis.finite import check_mean, check_scale, check_value
from autmarg.analysis.flat import flat_elements, has_no_density
from autmarg.analysis.interpret import Interpreter, run
from autmarg.analysis.reduction import reduced
from autmarg.analysis.row_writer import RowWriter, picked
from autmarg.analysis.rules.base import CannotExtract, NotWritten
from autmarg.analysis.sites import GaussianSite
from autmarg.analysis.states import State, States, recurrent, taken_along
from autmarg.compat.jaxprs import ClosedJaxpr, jaxpr_as_fun
from autmarg.errors import ModelError
from autmarg.gaussian.affine import AffineForm, Member, Point, Rows
from autmarg.gaussian.recurrence import find_recurrences
from autmarg.ir.nodes import Observe, Sample


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
    written: list[AffineForm] = []

    def opaque_numbers(*arrays: Any) -> list[Any]:
        writer = _Writer(facts, members, dict(zip(names, arrays, strict=True)))
        form, numbers = writer.write(children)
        written.append(form)
        return numbers

    avals = [tape.avals[tape.inputs[n]] for n in names]
    try:
        with jax.enable_x64(True):  # precisions σ⁻² are in float64, as all that is made of them
            closed = jax.make_jaxpr(opaque_numbers)(*avals)
    except CannotExtract as raised:
        return NotWritten.of(raised)
    return LinearSystem(written[0], names, closed)


class _Writer(RowWriter):
    """Builds the form and, while traced, its opaque numbers."""

    def __init__(
        self, facts: Facts, members: tuple[Sample, ...], values: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.facts = facts
        self.sites = facts.normalised.gaussian
        self.tape = facts.normalised.program.tape
        self.values = values
        self.flat = {name: jnp.ravel(value) for name, value in values.items()}
        self.nodes = members
        self.names = frozenset(m.name for m in members)
        self.plain = Interpreter(self.tape, frozenset(), values)
        self.derived: dict[str, State] = {}
        self.states = States(self.names, self.flat, run)

    def write(self, children: tuple[Sample, ...]) -> tuple[AffineForm, list[Any]]:
        """The form of all members and children, and what is traced of a point: the arrays of ω,
        the constant, priors and factors."""
        self.flat_priors = {n.name: flat_elements(self.facts.normalised, n) for n in self.nodes}
        raw = {n.name: self._prior_mean(n) for n in self.nodes}
        raw |= {c.name: self._residual(c) for c in children}
        elements = {n.name: n.size for n in self.nodes}
        self.derived, raw = reduced(self.states.found, raw, elements)
        priors = self._members()
        read = {n.name: raw[n.name] for n in self.nodes}
        read |= {s.name: s.mean for s in self.derived.values()}
        self.implicit = self._in_time(read)
        # Members' own means in terms of centred columns δ, parents before children.
        means: dict[str, Affine] = {}
        for name, mean in read.items():
            means[name] = self._centred(mean, means)
        rows = [self._child(c, self._centred(raw[c.name], means)) for c in children]
        mean_rows = tuple(self.rows(name, mean) for name, mean in means.items())
        members = tuple(self.members.values())
        chained = [i for i, m in enumerate(members) if m.name in self.implicit]
        chains = find_recurrences(members, mean_rows, rows, chained) if chained else ()
        bases = tuple(self.starts.values())
        sharding = self.facts.normalised.program.sharding
        form = AffineForm(members, mean_rows, tuple(rows), self.slots, chains, bases, sharding)
        arrays = (base.astype(float) for base in self.bases)
        return form, [*arrays, self.constant, *priors, *self.factors]

    def _members(self) -> list[Any]:
        """Give every member its columns, derived states after sampled sites; their prior scales."""
        priors = []
        for node in self.nodes:
            member, prior = self._member(node, self.total)
            self._temper_prior(node, member, prior)
            self.members[node.name] = member
            priors.append(prior)
            self.total += member.blocks * member.size
        for state in self.derived.values():
            size = state.mean.size
            self.members[state.name] = Member(state.name, size, 1, self.total, random=False)
            priors.append(jnp.zeros(1))
            self.total += size
        return priors

    def _in_time(self, means: Mapping[str, Affine]) -> frozenset[str]:
        """Members that belong to recurrences: their columns are values, not deviations."""
        sampled = {n.name: self.members[n.name] for n in self.nodes}
        proper = {name: m for name, m in sampled.items() if m.basis is None and m.flat is None}
        sizes = {name: m.size for name, m in proper.items()}
        states = self.derived
        return recurrent(means) | states.keys() | taken_along(sizes, states.values())

    def _member(self, node: Sample, offset: int) -> tuple[Member, Any]:
        site, flat = self.sites[node.name], self.flat_priors[node.name]
        if flat is not None and flat.all():  # whatever the masked prior reads
            return Member(node.name, node.size, 1, offset, flat=flat), jnp.ones(1)
        if site.basis is not None:
            return self._in_basis(node, site, offset)
        if site.scale is not None:
            prior = _scales(self._array(site.scale))
            return Member(node.name, node.size, 1, offset, flat=flat), _unscaled(prior, flat)
        prior = _value(self._array(site.scale_tril))
        d = prior.shape[-1]
        member = Member(node.name, node.size // d, d, offset, flat=flat)
        return member, _unscaled(prior, flat)

    def _in_basis(self, node: Sample, site: GaussianSite, offset: int) -> tuple[Member, Any]:
        """A member with a known basis: multiplied out where it is square, else columns of its own.

        A square one is kept as blocks of the site's own elements since a row then reads one column
        of it, and not all.
        """
        basis, scale = self._array(site.basis), self._array(site.scale)
        d, k = basis.shape[-2:]
        groups = node.size // d
        if not site.singular:
            prior = jnp.asarray(basis) * _value(scale)[:, None, :]
            flat = self.flat_priors[node.name]
            return Member(node.name, groups, d, offset, flat=flat), _unscaled(prior, flat)
        prior = _scales(scale)
        if prior.shape[0] not in (1, groups * k):
            prior = jnp.tile(prior, groups)
        return Member(node.name, groups * k, 1, offset, basis[0]), prior

    def _temper_prior(self, node: Sample, member: Member, prior: Any) -> None:
        """What a known power of a member's prior has beyond the prior of smaller scale."""
        site = self.sites[node.name]
        power = site.power
        if power is None:
            return
        if site.mask is not None:
            groups = member.groups if member.basis is not None else member.blocks
            mask = np.reshape(self._array(site.mask), (groups, -1))[:, 0]
            power = np.where(mask, power, 1.0)
        if member.basis is not None:  # its columns, group by group
            width = member.basis.shape[1]
            power = np.repeat(power, width) if len(power) > 1 else power
        logs = jnp.log(prior) if prior.ndim == 1 else jnp.linalg.slogdet(prior)[1]
        self.temper(power, member.blocks, member.size, logs)

    def _array(self, number: int | None) -> Any:
        assert number is not None
        return self.plain.read(number)

    def _prior_mean(self, node: Sample) -> Affine:
        """A member's mean, zero where its prior is flat."""
        number, flat = self.sites[node.name].loc, self.flat_priors[node.name]
        aval = self.tape.avals[number]
        if flat is not None and flat.all():
            return Affine(aval.shape, aval.dtype, ())
        mean = self._affine(node.name, number)
        return mean if flat is None else mean.take(np.arange(node.size), aval.shape, ~flat)

    def _affine(self, name: str, number: int) -> Affine:
        """A mean or an observed value of site ``name``, over members and over kept latents that
        enter it affinely."""
        degree = self.facts.degree(number)
        clashing = frozenset().union(*degree.clashes)
        kept = (degree.affine - clashing) & set(self.values)
        members = self.names & self.tape.dependencies([number])
        obstacle = None
        for columns in (members | kept, members):  # kept latents as columns only save work
            try:
                return self._read(number, columns)
            except CannotExtract as failed:
                obstacle = failed
        assert obstacle is not None
        obstacle.child = name
        raise obstacle

    def _read(self, number: int, columns: frozenset[str]) -> Affine:
        return as_affine(Interpreter(self.tape, columns, self.values, self.states).read(number))

    def _centred(self, form: Affine, means: Mapping[str, Affine]) -> Affine:
        """Replace members x_s by δ_s + m_s, and kept latents by their values.

        Members of a recurrence stay as they are.
        """
        terms: list[Term] = []
        for term in form.terms:
            if term.site in self.members:
                terms.extend(self._deviation(term))
                if term.site not in self.implicit:
                    terms.extend(composed(term, means[term.site].terms))
            elif term.site is not None:
                base = self.flat[term.site]
                zero = np.zeros((1, 1), np.int32)
                lookup = Lookup(base, term.column).times(term.lookup)
                terms.append(Term(None, zero, term.known, lookup))
            else:
                terms.append(term)
        return Affine(form.shape, form.dtype, tuple(terms))

    def _deviation(self, term: Term) -> list[Term]:
        """A term over a member's x - m, over its columns."""
        member = self.members[term.site or ""]
        if member.basis is None:
            return [term]
        columns, known = member.of_columns()
        return composed(term, (Term(term.site, columns - member.offset, known),))

    def _residual(self, node: Sample) -> Affine:
        """value - mean of a child, of the rows that a mask leaves in."""
        site = self.sites[node.name]
        if has_no_density(self.facts.normalised, node.name):
            return Affine((0,), self.tape.avals[site.loc].dtype, ())
        mean = self._affine(node.name, site.loc)
        if self.names & self.tape.dependencies([site.value]):
            value: Any = self._affine(node.name, site.value)
        else:
            value = self._array(site.value)
        keep = self._unmasked(node, site)
        check_value(node, value, keep, transformed=site.log_jacobian is not None)
        terms = (*as_affine(value).terms, *mean.times(np.full((), -1.0)).terms)
        residual = Affine(mean.shape, mean.dtype, terms)
        return residual if keep is None else residual.take(keep, (len(keep),))

    def _child(self, node: Sample, residual: Affine) -> Rows:
        """The rows of a child, given value - mean, with its noise."""
        site = self.sites[node.name]
        if has_no_density(self.facts.normalised, node.name):
            # Its noise may read what is integrated out: no row of it is left.
            return self.noisy_rows(node.name, residual, np.ones(0), None)
        keep = self._unmasked(node, site)
        check_mean(node, residual, self.facts.normalised.program.names)
        if site.log_jacobian is not None:
            self.constant -= _value(self._array(site.log_jacobian))
        if site.scale_tril is not None:
            tril = self._array(site.scale_tril)
            if isinstance(tril, np.ndarray):
                rows = slice(None) if keep is None or len(tril) == 1 else keep // tril.shape[-1]
                diagonal = np.diagonal(tril, axis1=-2, axis2=-1)[rows]
                check_scale(node, diagonal, self.facts.normalised.program.names)
            return self.correlated_rows(node.name, residual, tril, keep, site.power)
        noise, power = self._array(site.scale), site.power
        if site.basis is not None:
            basis = self._array(site.basis)
            return self.basis_rows(node.name, residual, basis, noise, keep, power)
        if power is not None and len(power) > 1 and keep is not None:
            power = power[keep]
        noise = picked(noise, keep)
        if isinstance(noise, np.ndarray):
            check_scale(node, noise, self.facts.normalised.program.names)
        return self.noisy_rows(node.name, residual, noise, power)

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


def _value(value: Any) -> Any:
    return value.value() if isinstance(value, Opaque) else jnp.asarray(value)


def _scales(value: Any) -> Any:
    """Prior standard deviations, flattened; a single one where all are the same."""
    if isinstance(value, Opaque) and value.entries == 1:
        return jnp.reshape(value.base, (1,))
    return jnp.reshape(_value(value), -1)


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
