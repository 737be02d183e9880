"""States that a mean makes of latents over time: columns of their own instead of long sums.

A cumulative sum, or a loop that carries latents along (a random walk or an autoregression written
with standard noise), has a mean in which each step reads all noise before it. Written out, T steps
have T² summands. Instead its carry becomes a member x of the system without noise of its own,

    x_t = f(x_{t-1}, …),

so that it joins the recurrences of sampled sites (:mod:`autmarg.gaussian.recurrence`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import networkx as nx
import numpy as np
from jax.extend.core import jaxpr_as_fun

from autmarg.analysis.domain import Affine, as_affine, count, identity, stacked
from autmarg.analysis.rules.arithmetic import add
from autmarg.analysis.rules.base import CannotExtract
from autmarg.analysis.rules.calls import Run, entry, scan_parts
from autmarg.ir.loops import body_of
from autmarg.ir.tape import Equation

DEEP = 8  # steps, or means of means, up to which they are substituted; longer ones are recurrences
_NEAR = 3  # steps over which a chain may read one block of another site and take it along


class State(NamedTuple):
    """A derived member: its mean over itself and others, and the step of each of its elements."""

    name: str
    mean: Affine
    step: np.ndarray


class States:
    """The states derived so far while means are read.

    One value of the program is one state, whoever reads it.

    Args:
        members: the sites that are integrated out; other columns are kept latents.
        run: runs a jaxpr on values.
    """

    def __init__(self, members: frozenset[str], run: Run) -> None:
        self.found: dict[str, State] = {}
        self.members = members
        self._outputs: dict[int, list[Any]] = {}
        self._run = run

    def __call__(self, equation: Equation, operands: list[Any]) -> list[Any] | None:
        """The outputs of an equation over derived states; None where it derives none.

        Raises:
            CannotExtract: it sums kept latents only, which as columns would save nothing.
        """
        derive = _DERIVATIONS.get(equation.primitive.name)
        sites = frozenset().union(*(o.sites for o in operands if isinstance(o, Affine)))
        if derive is None or not sites:
            return None
        if not sites & (self.members | self.found.keys()):
            raise CannotExtract("it sums kept latents over time")
        if (key := equation.outputs[0]) not in self._outputs:
            outputs = derive(self, equation, operands)
            if outputs is None:
                return None
            self._outputs[key] = outputs
        return self._outputs[key]

    def _add(self, state: Affine, mean: Affine, axis: int) -> None:
        """Register a derived state with its mean and its axis of time."""
        (name,) = state.sites
        self.found[name] = State(name, mean, np.indices(state.shape)[axis].reshape(-1))

    def _new(self, what: str, number: int, shape: tuple[int, ...], dtype: Any) -> Affine:
        return identity(f"{what}#{len(self.found) + number}", shape, dtype)

    def _cumsum(self, equation: Equation, operands: list[Any]) -> list[Any] | None:
        """x_t = x_{t-1} + e_t."""
        (noise,) = operands
        axis, reverse = equation.params["axis"], equation.params["reverse"]
        if noise.shape[axis] <= DEEP:
            return None
        state = self._new("cumsum", 1, noise.shape, noise.dtype)
        rows, step = np.arange(noise.size).reshape(noise.shape), np.indices(noise.shape)[axis]
        inside = step < noise.shape[axis] - 1 if reverse else step > 0
        rows = np.roll(rows, -1 if reverse else 1, axis)
        before = state.take(rows, noise.shape, inside.reshape(-1))
        self._add(state, add([before, noise], (1, 1)), axis)
        return [state]

    def _scan(self, equation: Equation, operands: list[Any]) -> list[Any] | None:
        """The body of a loop for all steps at once, its carry shifted by one step."""
        consts, starts, rows = scan_parts(equation, operands)
        length = equation.params["length"]
        if length <= DEEP or equation.params["reverse"] or not all(_real(s) for s in starts):
            return None
        states = [
            self._new("scan", k, (length, *s.shape), s.dtype) for k, s in enumerate(starts, start=1)
        ]
        before = [_shifted(start, state) for start, state in zip(starts, states, strict=True)]
        values = [*consts, *before, *rows]
        axes = [None] * len(consts) + [0] * (len(before) + len(rows))
        function = jax.vmap(jaxpr_as_fun(body_of(equation.params)), in_axes=axes)
        closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values))
        outputs = self._run(closed, values)
        for state, after in zip(states, outputs, strict=False):
            self._add(state, as_affine(after), 0)
        return [*(entry(state, length - 1) for state in states), *outputs[len(starts) :]]


_DERIVATIONS = {"cumsum": States._cumsum, "scan": States._scan}


def _real(value: Any) -> bool:
    return np.issubdtype(value.dtype, np.floating)


def _shifted(start: Any, state: Affine) -> Affine:
    """The carry as each step begins: the start, then the state after the step before."""
    size, rest = count(start.shape), state.size - count(start.shape)
    pieces = [
        (as_affine(start), np.arange(size), np.arange(size)),
        (state, np.arange(rest), np.arange(size, state.size)),
    ]
    return Affine(state.shape, state.dtype, stacked(state.size, pieces))


def recurrent(means: Mapping[str, Affine]) -> frozenset[str]:
    """Members whose means read each other in time: in a circle, or along a long path."""
    graph = nx.DiGraph()
    graph.add_nodes_from(means)
    for name, mean in means.items():
        graph.add_edges_from((parent, name) for parent in mean.sites & means.keys())
    circles = [c for c in nx.strongly_connected_components(graph) if len(c) > 1]
    found = {n for c in circles for n in c} | {n for n in graph if graph.has_edge(n, n)}
    rest = graph.subgraph(set(graph) - found)
    level: dict[str, int] = {}
    for name in nx.topological_sort(rest):
        level[name] = max((level[p] + 1 for p in rest.predecessors(name)), default=0)
    below: dict[str, int] = {}
    for name in reversed(list(nx.topological_sort(rest))):
        below[name] = max((below[c] + 1 for c in rest.successors(name)), default=0)
    return frozenset(found | {n for n in rest if level[n] and level[n] + below[n] > DEEP})


def taken_along(sizes: Mapping[str, int], states: Iterable[State]) -> frozenset[str]:
    """Members that derived states read a step at a time: their noise, and their first values.

    Args:
        sizes: elements of a prior block of each member that is not derived.
        states: the derived states.
    """
    reads: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for state in states:
        for term in state.mean.terms:
            if term.site is not None and term.site in sizes:
                whole = term.arrays(state.mean.size)
                row, k = np.nonzero(whole.known)
                block = whole.column[row, k] // sizes[term.site]
                reads.setdefault(term.site, []).append((block, state.step[row]))
    return frozenset(name for name, pairs in reads.items() if _near(pairs))


def _near(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether every block is read at steps next to each other."""
    block, step = (np.concatenate(part) for part in zip(*pairs, strict=True))
    first, last = np.full(block.max() + 1, np.iinfo(np.int64).max), np.full(block.max() + 1, -1)
    np.minimum.at(first, block, step)
    np.maximum.at(last, block, step)
    return bool(((last - first)[last >= 0] < _NEAR).all())
