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
from jax.extend.core import jaxpr_as_fun

from autmarg.analysis.admissible import Facts
from autmarg.analysis.domain import Affine, Lookup, Opaque, Term, as_affine, count
from autmarg.analysis.interpret import Interpreter
from autmarg.analysis.rules.contraction import linear_map
from autmarg.analysis.sites import GaussianSite
from autmarg.errors import ModelError
from autmarg.gaussian.affine import AffineForm, Member, Point, Rows, RowTerm
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
        out = jaxpr_as_fun(self.closed)(*(jnp.asarray(values[n]) for n in self.inputs))
        omega, constant, *priors = out
        return Point(omega, tuple(priors), constant)


def extract(
    facts: Facts, members: tuple[Sample, ...], children: tuple[Sample, ...]
) -> LinearSystem:
    """The linear Gaussian system of ``members`` and of ``children``, the other sites that read
    them (observed, or kept).

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
        form, point = writer.write(children)
        written.append(form)
        return [point.omega, point.constant, *point.priors]

    avals = [tape.avals[tape.inputs[n]] for n in names]
    closed = jax.make_jaxpr(opaque_numbers)(*avals)
    return LinearSystem(written[0], names, closed)


class _Writer:
    """Builds the form and, while traced, its opaque numbers."""

    def __init__(
        self, facts: Facts, members: tuple[Sample, ...], values: Mapping[str, Any]
    ) -> None:
        self.facts = facts
        self.sites = facts.normalised.gaussian
        self.tape = facts.normalised.program.tape
        self.values = values
        self.flat = {name: jnp.ravel(value) for name, value in values.items()}
        self.nodes = members
        self.names = frozenset(m.name for m in members)
        self.plain = Interpreter(self.tape, frozenset(), values)
        self.constant: Any = jnp.zeros((), float)
        self.bases: list[Any] = [jnp.ones(1, float)]
        self.starts: dict[int, int] = {}
        self.slots = 1
        self.offsets: dict[str, int] = {}

    def write(self, children: tuple[Sample, ...]) -> tuple[AffineForm, Point]:
        """The form of all members and children, and the traced point."""
        members, priors, offset = [], [], 0
        for node in self.nodes:
            member, prior = self._member(node, offset)
            members.append(member)
            priors.append(prior)
            self.offsets[node.name] = offset
            offset += node.size
        # Members' own means in terms of centred columns δ, parents before children.
        means: dict[str, Affine] = {}
        for node in self.nodes:
            means[node.name] = self._centred(self._mean(self.sites[node.name]), means)
        self.total = offset
        rows = [row for child in children if (row := self._child(child, means)) is not None]
        mean_rows = tuple(self._rows(n.name, means[n.name]) for n in self.nodes)
        omega = jnp.concatenate([b.astype(float) for b in self.bases])
        form = AffineForm(tuple(members), mean_rows, tuple(rows), self.slots)
        return form, Point(omega, tuple(priors), self.constant)

    def _member(self, node: Sample, offset: int) -> tuple[Member, Any]:
        site = self.sites[node.name]
        if site.scale is not None:
            scale = self._array(site.scale)
            if isinstance(scale, Opaque) and scale.entries == 1:
                prior = jnp.reshape(scale.base, (1,))
            else:
                prior = jnp.reshape(_value(scale), -1)
            return Member(node.name, node.size, 1, offset), prior
        d = node.shape[-1]
        tril = _value(self._array(site.noise))
        if tril.size == d * d:
            prior = tril.reshape(1, d, d)
        else:
            prior = jnp.broadcast_to(tril, (*node.shape, d)).reshape(-1, d, d)
        return Member(node.name, node.size // d, d, offset), prior

    def _array(self, number: int) -> Any:
        return self.plain.read(number)

    def _mean(self, site: GaussianSite) -> Affine:
        """The site's mean over members and over kept latents that enter it affinely."""
        degree = self.facts.degree(site.loc)
        clashing = frozenset().union(*degree.clashes)
        kept = degree.affine - clashing
        columns = (kept & set(self.values)) | (self.names & self.tape.dependencies([site.loc]))
        return as_affine(Interpreter(self.tape, columns, self.values).read(site.loc))

    def _centred(self, form: Affine, means: Mapping[str, Affine]) -> Affine:
        """Replace members x_s by δ_s + m_s, and kept latents by their values."""
        terms: list[Term] = []
        for term in form.terms:
            if term.site in self.names:
                terms.append(term)
                terms.extend(_compose(term, means[term.site].terms))
            elif term.site is not None:
                base = self.flat[term.site]
                zero = np.zeros((1, 1), np.int32)
                lookup = Lookup(base, term.column).times(term.lookup)
                terms.append(Term(None, zero, term.known, lookup))
            else:
                terms.append(term)
        return Affine(form.shape, form.dtype, tuple(terms))

    def _child(self, node: Sample, means: Mapping[str, Affine]) -> Rows | None:
        """value - mean of a child, with its noise."""
        site = self.sites[node.name]
        mean = self._centred(self._mean(site), means)
        value = self._array(site.value)
        keep = self._unmasked(node, site)
        self._check_finite(node, value, keep)
        residual = Affine(
            mean.shape, mean.dtype, (*as_affine(value).terms, *mean.times(np.full((), -1.0)).terms)
        )
        if site.log_jacobian is not None:
            jacobian = _value(self._array(site.log_jacobian)).reshape(-1)
            self.constant -= jnp.sum(jacobian if keep is None else jacobian[keep])
        if site.scale is not None:
            noise = self._array(site.scale)
        else:
            residual, noise = self._whiten(site, residual)
        if keep is not None:
            residual = residual.take(keep, (len(keep),))
        return self._noisy_rows(node.name, residual, noise, keep)

    def _noisy_rows(self, name: str, residual: Affine, noise: Any, keep: np.ndarray | None) -> Rows:
        n = residual.size
        if isinstance(noise, Opaque):
            index = noise.rows() if keep is None else noise.rows()[keep]
            slot = self._slot(jnp.ravel(noise.base) ** -2.0) + index
            slot = slot[:1] if n and (slot == slot[0]).all() else slot
        else:
            scale = np.asarray(noise, np.float64).reshape(-1)
            scale = scale if keep is None else scale[keep]
            self.constant -= float(np.log(scale).sum())
            residual = residual.times(1.0 / scale)
            slot = np.zeros(1, np.int64)
        return self._rows(name, residual, slot)

    def _whiten(self, site: GaussianSite, residual: Affine) -> tuple[Affine, Any]:
        """Rows multiplied by the inverse noise factor; noise of unit scale is left."""
        tril = self._array(site.noise)
        factor, d = _value(tril), tril.shape[-1]
        eye = jnp.broadcast_to(jnp.eye(d, dtype=factor.dtype), factor.shape)
        if isinstance(tril, np.ndarray):
            inverse: Any = np.linalg.inv(tril)
            logs = float(np.linalg.slogdet(tril)[1].sum())
        else:
            solved = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
            inverse = Opaque(solved, solved.shape)
            logs = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor, axis1=-2, axis2=-1))))
        copies = residual.size // d // count(tril.shape[:-2])
        self.constant -= copies * logs
        return linear_map(inverse, residual), np.ones(residual.size)

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

    def _check_finite(self, node: Sample, value: Any, keep: np.ndarray | None) -> None:
        if not isinstance(value, np.ndarray):
            return
        flat = value.reshape(-1) if keep is None else value.reshape(-1)[keep]
        if bad := int(np.isnan(flat).sum()):
            raise ModelError(
                f"observed site '{node.name}' ({node.place}): found {bad} NaN among {flat.size} "
                "values, expected numbers inside the support; drop those rows or mask them"
            )

    def _slot(self, base: Any) -> int:
        """Where an opaque array starts in ω."""
        if id(base) not in self.starts:
            self.starts[id(base)] = self.slots
            self.bases.append(base)  # kept alive, so that its id stays its own
            self.slots += base.shape[0]
        return self.starts[id(base)]

    def _rows(self, name: str, form: Affine, precision: np.ndarray | None = None) -> Rows:
        terms = []
        for term in form.terms:
            slot = np.zeros((1, 1), np.int64)
            if term.lookup is not None:
                slot = self._slot(term.lookup.base) + term.lookup.index
            start = self.total if term.site is None else self.offsets[term.site]
            terms.append(RowTerm(start + term.column.astype(np.int64), term.known, slot))
        return Rows(name, form.size, tuple(terms), precision)


def _value(value: Any) -> Any:
    return value.value() if isinstance(value, Opaque) else jnp.asarray(value)


def _compose(outer: Term, inner: tuple[Term, ...]) -> list[Term]:
    """``outer`` with its site's elements replaced by ``inner``, terms over those elements."""
    k = outer.width
    rows = np.broadcast_to(outer.column, (outer.column.shape[0], k))
    n = rows.shape[0]
    composed = []
    for term in inner:
        width = term.width

        def pick(a: np.ndarray, width: int = width) -> np.ndarray:
            if a.shape[0] == 1:
                return np.tile(np.broadcast_to(a, (1, width)), (1, k))
            return np.broadcast_to(a[rows], (n, k, width)).reshape(n, k * width)

        def spread(a: np.ndarray, width: int = width) -> np.ndarray:
            return np.repeat(np.broadcast_to(a, (a.shape[0], k)), width, axis=1)

        lookup = term.lookup and Lookup(term.lookup.base, pick(term.lookup.index))
        moved = Term(term.site, pick(term.column), pick(term.known), lookup)
        outer_lookup = outer.lookup and Lookup(outer.lookup.base, spread(outer.lookup.index))
        composed.append(moved.times(spread(outer.known), outer_lookup))
    return composed
