"""log p(y_i | y_-i, θ) of the observed sites of a conjugacy.

The posterior of x given y_-i is of the prior's family, its parameters updated by all rows but i, so
that log p(y_i | y_-i, θ) is the marginal likelihood of row i alone under it. What the other rows
add up to is added up anew, not by subtraction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to

from autmarg.conjugacy.conjugate import ConjugateMarginal, updates_of
from autmarg.conjugacy.language import Aggregate, Largest, Smallest, SumOver
from autmarg.conjugacy.marginal_likelihood import marginal_likelihood
from autmarg.conjugacy.reading import BUILDERS
from autmarg.conjugacy.update import RowStatistics
from autmarg.errors import RequestError
from autmarg.gaussian.leave_out import ROOM
from autmarg.ir.nodes import Observe
from autmarg.ir.tape import Tape
from autmarg.posterior.pointwise_gaussian import GaussianPointwise, group_sum
from autmarg.posterior.units import batch_of

_SEGMENTS: dict[type, Any] = {
    SumOver: jax.ops.segment_sum,
    Largest: jax.ops.segment_max,
    Smallest: jax.ops.segment_min,
}
_JOIN: dict[type, tuple[Any, float]] = {
    SumOver: (jnp.add, 0.0),
    Largest: (jnp.maximum, -np.inf),
    Smallest: (jnp.minimum, np.inf),
}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a label and an element of x that rows of it read, in the order of elements.

    Attributes:
        label, element: [P] of each pair.
        rows: by child, the pair of each row. Rows that stay have the label -1.
    """

    label: np.ndarray
    element: np.ndarray
    rows: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, labels: list[np.ndarray], elements: list[np.ndarray]) -> Pairs:
        """From the label and the element of each row, child by child."""
        if not labels:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), ())
        both = np.stack([np.concatenate(elements), np.concatenate(labels)], axis=1)
        distinct, which = np.unique(both, axis=0, return_inverse=True)
        rows = np.split(which.reshape(-1), np.cumsum([len(x) for x in labels])[:-1])
        return cls(distinct[:, 1], distinct[:, 0], tuple(rows))


@dataclass(frozen=True, eq=False)
class ConjugatePointwise:
    """Observations of a conjugacy, by label: single ones, or groups.

    Attributes:
        density: of the marginal.
        sites: its observed sites.
        groups: by site, the group of each observation (-1 for none); None for single observations.
        count: number of labels.
        tape, children: the statistics of single rows.
        pairs: of labels and elements.
        sharing: observations of the Gaussian marginals that share x.
    """

    density: ConjugateMarginal
    sites: tuple[Observe, ...]
    groups: Mapping[str, np.ndarray] | None
    count: int
    tape: Tape
    children: tuple[RowStatistics, ...]
    pairs: Pairs
    sharing: tuple[GaussianPointwise, ...]

    @classmethod
    def plan(
        cls,
        program: Any,
        density: ConjugateMarginal,
        sites: tuple[Observe, ...],
        groups: Mapping[str, np.ndarray] | None,
        count: int,
    ) -> ConjugatePointwise:
        """Give the rows of the sites labels.

        Raises:
            RequestError: groups of several sites are asked for, of which one shares a variance.
        """
        if groups is not None and density.update.shared and len(sites) > 1:
            names = ", ".join(f"'{node.name}'" for node in sites)
            raise RequestError(
                f"log_likelihood(which='group') cannot leave out rows of {names} together: they "
                f"share '{density.update.member}', a variance that is integrated out. Expected one "
                f"observed site; transform(keep=['{density.update.member}']) samples it instead"
            )
        tape, children = density.update.each()
        starts = dict(zip((n.name for n in sites), _starts(sites), strict=True))
        nodes, labels = {node.name: node for node in sites}, []
        for child in children:
            batch = math.prod(batch_of(nodes[child.site]))
            own = child.order // (math.prod(child.shape) // max(batch, 1))
            if groups is None:
                labels.append(own + starts[child.site])
            else:
                labels.append(groups[child.site].reshape(-1)[own])
        elements = [child.rows for child in children]
        sharing = tuple(
            GaussianPointwise.plan(
                program, gaussian, each.group.observed, each.group.members, groups, count
            )
            for each, gaussian in zip(density.update.shared, density.gaussians, strict=True)
        )
        total = sum(math.prod(batch_of(n)) for n in sites) if groups is None else count
        pairs = Pairs.of(labels, elements)
        return cls(density, sites, groups, total, tape, children, pairs, sharing)

    def terms(self, values: Mapping[str, Any]) -> Any:
        """At one draw: log p(y_g | y_-g, θ) by label, one column for each site where there are
        groups, else one."""
        sites = [node.name for node in self.sites]
        out = jnp.zeros((self.count, 1 if self.groups is None else len(sites)))
        found = self._statistics(values)
        shared = [self._of_group(k, values) for k in range(len(self.sharing))]
        for k, child in enumerate(self.children):
            column = 0 if self.groups is None else sites.index(child.site)
            before = self._before(values, found, sites, child.site, k, shared)
            each = self._likelihood(found[k], child, before, self.pairs.rows[k])
            sums = group_sum(each, self.pairs.label, self.count)
            out = out.at[:, column].add(sums)
        for k, gaussian in enumerate(self.sharing):
            each = self._shared_likelihood(k, values, found, shared)
            if self.groups is None:
                starts = dict(zip(sites, _starts(self.sites), strict=True))
                places = [starts[n.name] + np.arange(_size(n)) for n in gaussian.sites]
                out = out.at[np.concatenate(places), 0].add(each)
            else:
                out = out.at[:, 0].add(each)
        return out

    def _statistics(self, values: Mapping[str, Any]) -> list[_Found]:
        """What the pairs of each child add up to."""
        numbers = [v for child in self.children for v in (*child.terms, *child.own)]
        each, found = iter(self.tape.evaluate(numbers, values)), []
        for child, pair in zip(self.children, self.pairs.rows, strict=True):
            terms = [next(each) for _ in child.terms]
            own = [next(each) for _ in child.own]
            kinds = [type(a) for a in child.rule.aggregates]
            size = len(self.pairs.label)
            inside = [_SEGMENTS[k](t, pair, size) for k, t in zip(kinds, terms, strict=True)]
            outside = [
                exclusive(k, s, self.pairs.element) for k, s in zip(kinds, inside, strict=True)
            ]
            total = [_JOIN[k][0](a, b) for k, a, b in zip(kinds, inside, outside, strict=True)]
            found.append(_Found(inside, outside, total, own))
        return found

    def _prior(self, values: Mapping[str, Any]) -> list[Any]:
        """[R] (or [R, K]) parameters of the prior."""
        return self.density.update.tape.evaluate(self.density.update.parameters, values)

    def _before(
        self,
        values: Mapping[str, Any],
        found: list[_Found],
        sites: list[str],
        site: str,
        number: int,
        shared: list[_OfGroup],
    ) -> list[Any]:
        """Parameters of x for each pair, given all rows but those of its label, and given those of
        earlier sites."""
        parameters = [p[self.pairs.element] for p in self._prior(values)]
        for k, (other, child) in enumerate(zip(found, self.children, strict=True)):
            earlier = sites.index(child.site) < sites.index(site)
            aggregates = other.total if earlier and k != number else other.outside
            parameters = self._updated(parameters, child.rule, aggregates)
        for each, own in zip(self.density.update.shared, shared, strict=True):
            parameters = self._updated(parameters, each.rule, own.total)
        return parameters

    def _updated(self, parameters: list[Any], rule: Any, aggregates: list[Any]) -> list[Any]:
        if self.density.update.family.vector:
            aggregates = [jnp.broadcast_to(a, parameters[0].shape) for a in aggregates]
        after = [f(*parameters, *aggregates) for f in updates_of(rule)]
        pairs = zip(after, parameters, strict=True)
        return [jnp.broadcast_to(new, old.shape) for new, old in pairs]

    def _likelihood(
        self, found: _Found, child: RowStatistics, before: list[Any], pair: np.ndarray
    ) -> Any:
        """[P] log marginal likelihood of the rows of one child in each pair."""
        formula, count, aggregates = marginal_likelihood(child.rule), len(before[0]), found.inside
        if self.density.update.family.vector:
            aggregates = [jnp.broadcast_to(a, before[0].shape) for a in aggregates]
        used = np.bincount(pair, minlength=count) > 0
        rows = jax.ops.segment_sum(found.own[0], pair, count)
        if not formula.at_one_x:
            gain = _by_pair(formula.parameters(*before, *aggregates), count)
            return jnp.where(used, gain, 0.0) + rows
        after = self._updated(before, child.rule, aggregates)
        posterior = BUILDERS[self.density.update.family.name](*after)
        x = biject_to(posterior.support)(jnp.zeros(before[0].shape))
        if self.density.update.family.vector:
            x = jnp.full(before[0].shape, 1.0 / before[0].shape[-1])
        gain = _by_pair(formula.parameters(x, *before, *aggregates), count)
        terms = formula.child(x[pair], *found.own[1:])
        terms = jnp.broadcast_to(
            terms.reshape(terms.shape[:1]) if jnp.ndim(terms) else terms, len(pair)
        )
        return jnp.where(used, gain, 0.0) + rows + jax.ops.segment_sum(terms, pair, count)

    def _of_group(self, k: int, values: Mapping[str, Any]) -> _OfGroup:
        """The aggregates of a Gaussian marginal that shares x, for all rows, for those of each
        label, and for all others; and the rest of the labels' log-density."""
        gaussian, shared = self.sharing[k], self.density.update.shared[k]
        given = {**values, self.density.update.member: jnp.ones(self.density.update.shape)}
        gain, squares, rest, room = gaussian.terms(given)
        gain = jnp.where((room < ROOM)[:, None], jnp.nan, gain)
        constant = (gaussian.normalisers(given) + gain).sum(axis=1)
        rows = gaussian.rows.sum(axis=1)
        n = shared.rows
        inside, outside, total = [], [], []
        for a, b in shared.aggregates:
            inside.append(a * rows / n + b * squares.sum(axis=1))
            outside.append(a * (n - rows) / n + b * rest)
            total.append(jnp.reshape(a + b * (rest + squares.sum(axis=1))[0], 1))
        return _OfGroup(inside, outside, total, constant)

    def _shared_likelihood(
        self, k: int, values: Mapping[str, Any], found: list[_Found], shared: list[_OfGroup]
    ) -> Any:
        """[labels] log p(y_g | y_-g, θ) of the labels of one Gaussian marginal that shares x."""
        parameters = [jnp.reshape(p, 1) for p in self._prior(values)]
        for child, other in zip(self.children, found, strict=True):
            parameters = self._updated(parameters, child.rule, [t[:1] for t in other.total])
        for number, (each, own) in enumerate(zip(self.density.update.shared, shared, strict=True)):
            if number != k:
                parameters = self._updated(parameters, each.rule, own.total)
        rule, own = self.density.update.shared[k].rule, shared[k]
        before = [f(*parameters, *own.outside) for f in updates_of(rule)]
        gain = marginal_likelihood(rule).parameters(*before, *own.inside)
        return jnp.where(self.sharing[k].rows.sum(axis=1) > 0, gain + own.constant, 0.0)


@dataclass(frozen=True, eq=False)
class _Found:
    """A child's aggregates over the rows of each pair, over all others of its element, and over
    both, [P] (or [P, K]) each; and what its rows have of their own."""

    inside: list[Any]
    outside: list[Any]
    total: list[Any]
    own: list[Any]


@dataclass(frozen=True, eq=False)
class _OfGroup:
    """A Gaussian marginal's aggregates over the rows of each label, over all others, and over both
    [1]; and what else the labels' log-density has."""

    inside: list[Any]
    outside: list[Any]
    total: list[Any]
    constant: Any


def exclusive(kind: type[Aggregate], parts: Any, segments: np.ndarray) -> Any:
    """What all other parts of a segment add up to (or their largest, or smallest), for each part.

    Args:
        kind: of aggregate.
        parts: [P] or [P, K].
        segments: [P], sorted.
    """
    first = np.diff(segments, prepend=-1) != 0
    last = np.append(first[1:], True)
    before = _before(kind, parts, first)
    return _JOIN[kind][0](before, _before(kind, parts[::-1], last[::-1])[::-1])


def _before(kind: type[Aggregate], parts: Any, first: np.ndarray) -> Any:
    """What the earlier parts of a segment add up to."""
    join, none = _JOIN[kind]
    starts = jnp.asarray(first).reshape(-1, *(1,) * (parts.ndim - 1))

    def both(a: Any, b: Any) -> Any:
        return a[0] | b[0], jnp.where(b[0], b[1], join(a[1], b[1]))

    sums = jax.lax.associative_scan(both, (jnp.broadcast_to(starts, parts.shape), parts))[1]
    shifted = jnp.concatenate([jnp.full_like(parts[:1], none), sums[:-1]])
    return jnp.where(starts, none, shifted)


def _by_pair(gain: Any, count: int) -> Any:
    """[P] numbers from [P] or [P, 1], or one for all."""
    gain = jnp.asarray(gain)
    return jnp.broadcast_to(gain.reshape(gain.shape[:1]) if gain.ndim else gain, count)


def _size(node: Observe) -> int:
    return math.prod(batch_of(node))


def _starts(sites: tuple[Observe, ...]) -> np.ndarray:
    """The first label of each site."""
    sizes = [_size(node) for node in sites]
    return np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, np.int64)


__all__ = ["ConjugatePointwise", "exclusive"]
