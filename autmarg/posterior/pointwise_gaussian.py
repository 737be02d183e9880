"""log p(y_i | y_-i, θ) of the observed sites of one Gaussian marginal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.double import in_double
from autmarg.gaussian.affine import AffineForm
from autmarg.gaussian.leave_out import Labels, LeaveOut
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.gaussian.schedule import Schedule
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.plan.order import assemble, schedule
from autmarg.posterior.units import batch_of, label_of, log_normalisers, units_of


@dataclass(frozen=True, eq=False)
class GaussianPointwise:
    """Observations of a Gaussian marginal, by label: single ones, or groups.

    Attributes:
        program: in which the sites are.
        density: of the marginal.
        sites: its observed sites, ``members`` what is integrated out.
        groups: by site, the group of each observation (-1 for none); None for single observations.
        count: number of labels.
        leave: the system with weights.
        slots: weights of labels that are one row each, and ``alone`` these labels.
        others: labels of several rows.
        rows: [count, columns] number of rows by label and column of results.
    """

    program: Program
    density: GaussianMarginal
    sites: tuple[Observe, ...]
    members: tuple[Sample, ...]
    groups: Mapping[str, np.ndarray] | None
    count: int
    leave: LeaveOut
    slots: np.ndarray
    alone: np.ndarray
    others: np.ndarray
    rows: np.ndarray

    @classmethod
    def plan(
        cls,
        program: Program,
        density: GaussianMarginal,
        sites: tuple[Observe, ...],
        members: tuple[Sample, ...],
        groups: Mapping[str, np.ndarray] | None,
        count: int,
    ) -> GaussianPointwise:
        """Give the rows of the sites labels.

        Args:
            program, density, sites, members, groups: as the attributes.
            count: number of groups, of which some may have no row.
        """
        form = density.schedule.form
        units = units_of(program, sites, form.rows)
        labelled, offset = {}, 0
        for k, node in enumerate(sites):
            own = units[node.name]
            label = own.observation + offset if groups is None else label_of(groups, node.name, own)
            labelled[node.name] = Labels(label, 0 if groups is None else k, own.power)
            offset += math.prod(batch_of(node))
        count = offset if groups is None else count
        rows = np.zeros((count, 1 if groups is None else len(sites)), np.int64)
        for each in form.rows:
            if (own := labelled.get(each.name)) is not None:
                inside = own.label >= 0
                np.add.at(rows, (own.label[inside], own.site), each.block)
        leave = LeaveOut.plan(form, labelled, _scheduled)
        one = (leave.rows == 1) & (leave.weights.label >= 0)
        one[one] = rows.sum(axis=1)[leave.weights.label[one]] == 1
        slots = np.flatnonzero(one) if groups is None else np.zeros(0, np.int64)
        alone = leave.weights.label[slots]
        others = np.setdiff1d(np.flatnonzero(rows.sum(axis=1)), alone)
        return cls(
            program, density, sites, members, groups, count, leave, slots, alone, others, rows
        )  # fmt: skip

    @property
    def numbers(self) -> int:
        """How many numbers one draw needs at least."""
        planned = self.leave.schedule.assembly
        products = getattr(planned, "products", 0)
        return planned.nnz + 4 * products + 8 * len(self.leave.slot) + 4 * self.count

    def terms(self, values: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
        """At one draw: K and Q of log p(y_g | y_-g, θ) = c_g + K - Q/2 by label [count, columns], Q
        of all other rows [count], and 1 - h [count], 1 where K and Q are differences."""
        return self._terms(self._given(values))

    def again(self, values: Mapping[str, Any], label: Any) -> tuple[Any, Any, Any]:
        """K, Q and Q of all other rows of one label, as differences."""
        return self._again(self._given(values), label)

    def normalisers(self, values: Mapping[str, Any]) -> Any:
        """c_g by label [count, columns]."""
        tape, zeros = self.program.tape, {m.name: jnp.zeros(m.shape) for m in self.members}
        given, parts = {**zeros, **values}, []
        for node in self.sites:
            fn = node.distribution.build(tape, given)
            value = jnp.broadcast_to(tape.evaluate([node.value], given)[0], node.shape)
            own = log_normalisers(fn, value)
            if node.scale is not None:  # a factor of zero leaves no row to say more
                factor = tape.evaluate([node.scale], given)[0]
                own = jnp.where((factor == 0) & (own != 0), jnp.nan, own)
            parts.append(own.reshape(-1))
        if self.groups is None:
            return jnp.concatenate(parts)[:, None]
        groups = (self.groups[node.name].reshape(-1) for node in self.sites)
        sums = [group_sum(x, g, self.count) for x, g in zip(parts, groups, strict=True)]
        return jnp.stack(sums, axis=1)

    @cached_property
    def _terms(self) -> Any:
        def run(values: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
            point = self.density.system.point(values)
            shape = self.rows.shape
            k, q, room = jnp.zeros(shape), jnp.zeros(shape), jnp.ones(self.count)
            if len(self.slots):
                one_k, one_q, one_room = (x[self.slots] for x in self.leave.one_by_one(point))
                k = k.at[self.alone, 0].set(one_k)
                q = q.at[self.alone, 0].set(one_q)
                room = room.at[self.alone].set(one_room)
            if len(self.others):
                more_k, more_q = self.leave.together(point, jnp.asarray(self.others))
                k, q = k.at[self.others].set(more_k), q.at[self.others].set(more_q)
            return k, q, self.leave.squares(point) - q.sum(axis=1), room

        return in_double(run)

    @cached_property
    def _again(self) -> Any:
        def run(values: dict[str, Any], label: Any) -> tuple[Any, Any, Any]:
            point = self.density.system.point(values)
            k, q = (x[0] for x in self.leave.together(point, label[None]))
            return k, q, self.leave.squares(point) - q.sum()

        return in_double(run)

    def _given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in self.density.system.inputs}


def group_sum(terms: Any, groups: np.ndarray, count: int) -> Any:
    """Terms [n] added up by group; those of group -1 are left out."""
    inside = np.flatnonzero(groups >= 0)
    return jax.ops.segment_sum(terms[inside], groups[inside], count)


def _scheduled(form: AffineForm) -> Schedule:
    return schedule(form, assemble(form))


__all__ = ["GaussianPointwise", "group_sum"]
