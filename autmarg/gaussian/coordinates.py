"""From z to the members' values, and back.

    δ = L z,   x = m + δ,   v = (δ, 1),

where a mean m reads other members' δ, and a chain's states are run through its recurrence.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian.affine import AffineForm, Member, Point
from autmarg.gaussian.chains.recurrence import Recurrence
from autmarg.gaussian.quadratic import scale, unscale

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The coordinates of a form."""

    form: AffineForm

    def centred(
        self, point: Point, z: Float[Array, "columns"], without: Collection[int] = ()
    ) -> Float[Array, "columns+1"]:
        """v = (δ, 1) with δ = L z, and the states of recurrences, ``without`` some of these."""
        parts = [
            scale(m, prior, z[_own(m)])
            for m, prior in zip(self.form.members, point.priors, strict=True)
        ]
        v = jnp.concatenate([*parts, jnp.ones(1, z.dtype)])
        for number, each in enumerate(self.form.recurrences):
            if number not in without:
                v = _put_states(each, v, self._states(each, point, z, v))
        return v

    def _states(
        self,
        each: Recurrence,
        point: Point,
        z: Float[Array, "columns"],
        v: Float[Array, "columns+1"],
        given: tuple[Float[Array, "T B d"], Bool[np.ndarray, "T B d"]] | None = None,
    ) -> Float[Array, "T B d"]:
        """States [T, B, d] of a recurrence, from innovations and outside columns, both scaled."""
        dynamics = each.dynamics(point.omega, point.priors)
        outside = jnp.where(each.outside >= 0, z[each.outside], 0)
        known = jnp.concatenate([jnp.ones((each.chains, 1), z.dtype), outside], axis=1)
        inputs = jnp.einsum("tbir,br->tbi", dynamics.entry, known, precision="highest")
        inputs = inputs + jnp.where(each.columns >= 0, v[each.columns], 0)
        return each.advance(dynamics, inputs, given)

    def values(
        self, point: Point, z: Float[Array, "columns"]
    ) -> dict[str, Float[Array, "elements"]]:
        """x = m + L z, each member flattened."""
        v = self.centred(point, z)
        values = {}
        for m, rows in zip(self.form.members, self.form.means, strict=True):
            own = m.spread(v[_own(m)])
            explicit = self.form.explicit[m.offset]
            values[m.name] = own + rows.evaluate(point.omega, v) if explicit else own
        return values

    def scaled(
        self, point: Point, values: dict[str, Float[Array, "elements"]]
    ) -> Float[Array, "columns"]:
        """z of given values; explicit members come parents first, so their δ are known in order.

        States without noise of their own are not among the values: they are computed.
        """
        form = self.form
        v = jnp.zeros(form.columns + 1, point.omega.dtype).at[-1].set(1.0)
        z = v[:-1]
        for member in form.members:
            if not form.explicit[member.offset] and member.random:
                v = v.at[_own(member)].set(values[member.name].reshape(-1))
        for known in self._in_order:
            if isinstance(known, Recurrence):
                v = _put_states(known, v, self._computed(known, point, z, v))
                continue
            member, mean, prior = form.members[known], form.means[known], point.priors[known]
            deviation = values[member.name].reshape(-1) - mean.evaluate(point.omega, v)
            delta = member.project(deviation)
            v = v.at[_own(member)].set(delta)
            z = z.at[_own(member)].set(unscale(member, prior, delta))
        for member, rows, prior in zip(form.members, form.means, point.priors, strict=True):
            if not form.explicit[member.offset] and member.random:
                delta = v[_own(member)] - rows.evaluate(point.omega, v)
                z = z.at[_own(member)].set(unscale(member, prior, delta))
        return z

    @cached_property
    def _in_order(self) -> tuple[int | Recurrence, ...]:
        """Explicit members, by number, and recurrences with states to be computed, each after what
        it reads."""
        form = self.form
        explicit = [k for k, m in enumerate(form.members) if form.explicit[m.offset]]
        idle = [r for r in form.recurrences if not form.random[r.columns[r.columns >= 0]].all()]
        owner: dict[int, int | Recurrence] = {}
        for k in explicit:
            owner |= dict.fromkeys(form.members[k].columns.reshape(-1).tolist(), k)
        for each in idle:
            owner |= dict.fromkeys(each.idle.tolist(), each)
        reads: dict[int | Recurrence, np.ndarray] = {each: each.outside for each in idle}
        for k in explicit:
            full = (term.full(form.means[k].n) for term in form.means[k].terms)
            columns = (column[known != 0] for column, known, _ in full)
            reads[k] = np.concatenate([np.zeros(0, np.int64), *columns])
        before = {
            node: {owner[c] for c in np.unique(columns).tolist() if c in owner}
            for node, columns in reads.items()
        }
        return tuple(TopologicalSorter(before).static_order())

    def _computed(
        self,
        each: Recurrence,
        point: Point,
        z: Float[Array, "columns"],
        v: Float[Array, "columns+1"],
    ) -> Float[Array, "T B d"]:
        """States of a recurrence with those that have noise of their own given in v."""
        used = each.columns >= 0
        fixed = used & self.form.random[each.columns]
        still = jnp.where(fixed, v[each.columns], 0)
        bare = v.at[each.columns[used]].set(0.0)
        return self._states(each, point, z, bare, (still, fixed))


def _own(member: Member) -> slice:
    return slice(member.offset, member.offset + member.blocks * member.size)


def _put_states(
    each: Recurrence, v: Float[Array, "columns+1"], states: Float[Array, "T B d"]
) -> Float[Array, "columns+1"]:
    used = each.columns >= 0
    return v.at[each.columns[used]].set(states[used])
