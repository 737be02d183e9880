"""States that a mean makes of latents over time: columns of their own instead of long sums.

A cumulative sum, or a loop that carries latents along (a random walk or an autoregression written
with standard noise), has a mean in which each step reads all noise before it. Written out, T steps
have T² summands. Instead its carry becomes a member x of the system without noise of its own,

    x_t = f(x_{t-1}, …),

so that it joins the recurrences of sampled sites (:mod:`autmarg.gaussian.chains.recurrence`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from autmarg.analysis.domain import Affine, Term, as_affine, composed, count, identity, stacked
from autmarg.analysis.forward import NEAR, Loop
from autmarg.analysis.rules.arithmetic import add
from autmarg.analysis.rules.base import CannotExtract
from autmarg.analysis.rules.calls import Run, entry, scan_parts
from autmarg.compat.jaxprs import Op, Param, body_of, jaxpr_as_fun
from autmarg.ir.tape import Equation

DEEP = 8  # steps, or means of means, up to which they are substituted; longer ones are recurrences


class State(NamedTuple):
    """A derived member: its mean over itself and others; and of each of its elements the step, and
    the number, which is the same at every step."""

    name: str
    mean: Affine
    step: np.ndarray
    element: np.ndarray


class States:
    """The states derived so far while means are read.

    One value of the program is one state, whoever reads it.

    Args:
        members: the sites that are integrated out; other columns are kept latents.
        values: flattened values of the kept latents.
        run: runs a jaxpr on values.
    """

    def __init__(self, members: frozenset[str], values: Mapping[str, Any], run: Run) -> None:
        self.found: dict[str, State] = {}
        self.members, self.values = members, values
        self._count = 0
        self._outputs: dict[int, list[Any]] = {}
        self._run = run

    def __call__(self, equation: Equation, operands: list[Any]) -> list[Any] | None:
        """The outputs of an equation over derived states; None where it derives none.

        Raises:
            CannotExtract: it sums kept latents only, which as columns would save nothing.
        """
        derive = _DERIVATIONS.get(equation.op)
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

    def _resolved(self, loop: Loop, outputs: Sequence[Any]) -> list[Any]:
        """Outputs over the states of a loop, those that few latents drive written over these.

        The other states become members.
        """
        written = loop.written() if loop.driven else {}

        def over_latents(form: Any) -> Any:
            here = isinstance(form, Affine) and form.sites & written.keys()
            return _substituted(form, written, loop) if here else form

        for name, mean in loop.means.items():
            if (rest := loop.rest(name)).any():
                rows = np.arange(mean.size)
                mean = over_latents(mean.take(rows, mean.shape, rest))
                self.found[name] = State(name, mean, loop.step[name], loop.element[name])
        return [over_latents(output) for output in outputs]

    def _new(self, what: str, shape: tuple[int, ...], dtype: Any) -> Affine:
        self._count += 1
        return identity(f"{what}#{self._count}", shape, dtype)

    def _cumsum(self, equation: Equation, operands: list[Any]) -> list[Any] | None:
        """x_t = x_{t-1} + e_t."""
        (noise,) = operands
        axis, reverse = equation.params[Param.AXIS], equation.params[Param.REVERSE]
        if noise.shape[axis] <= DEEP:
            return None
        state = self._new("cumsum", noise.shape, noise.dtype)
        (name,), steps = state.sites, noise.shape[axis]
        rows, step = np.arange(noise.size).reshape(noise.shape), np.indices(noise.shape)[axis]
        step = steps - 1 - step if reverse else step
        rows = np.roll(rows, -1 if reverse else 1, axis)
        before = state.take(rows, noise.shape, (step > 0).reshape(-1))
        line = np.arange(noise.size // steps).reshape(np.take(rows, 0, axis).shape)
        element = np.broadcast_to(np.expand_dims(line, axis), noise.shape).reshape(-1)
        means = {name: add([before, noise], (1, 1))}
        loop = Loop(steps, {name: step.reshape(-1)}, {name: element}, means, self.values)
        return self._resolved(loop, [state])

    def _scan(self, equation: Equation, operands: list[Any]) -> list[Any] | None:
        """The body of a loop for all steps at once, its carry shifted by one step."""
        consts, starts, rows = scan_parts(equation, operands)
        length = equation.params[Param.LENGTH]
        if length <= DEEP or equation.params[Param.REVERSE] or not all(_real(s) for s in starts):
            return None
        states = [self._new("scan", (length, *s.shape), s.dtype) for s in starts]
        before = [_shifted(start, state) for start, state in zip(starts, states, strict=True)]
        values = [*consts, *before, *rows]
        axes = [None] * len(consts) + [0] * (len(before) + len(rows))
        function = jax.vmap(jaxpr_as_fun(body_of(equation.params)), in_axes=axes)
        closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values))
        outputs = self._run(closed, values)
        means, step, element, total = {}, {}, {}, 0
        for state, after in zip(states, outputs, strict=False):
            ((name,), size) = state.sites, state.size // length
            means[name] = as_affine(after)
            step[name] = np.repeat(np.arange(length), size)
            element[name] = total + np.tile(np.arange(size), length)
            total += size
        loop = Loop(length, step, element, means, self.values)
        last = [entry(state, length - 1) for state in states]
        return self._resolved(loop, [*last, *outputs[len(starts) :]])


_DERIVATIONS = {Op.CUMSUM: States._cumsum, Op.SCAN: States._scan}


def _substituted(form: Affine, written: Mapping[str, Affine], loop: Loop) -> Affine:
    """An array over the states of a loop with those that are written over latents replaced."""
    terms: list[Term] = []
    for term in form.terms:
        if term.site is None or term.site not in written:
            terms.append(term)
            continue
        rest = loop.rest(term.site)[term.column]
        if rest.any():
            terms.append(term.times(rest.astype(np.float64)))
        if not rest.all():
            terms += composed(term.times(~rest), written[term.site].terms)
    return Affine(form.shape, form.dtype, tuple(terms)).merged()


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
    import networkx as nx  # slow to import

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
    """Whether any block is read, and every one at steps next to each other."""
    block, step = (np.concatenate(part) for part in zip(*pairs, strict=True))
    blocks = int(block.max(initial=-1)) + 1
    first, last = np.full(blocks, np.iinfo(np.int64).max), np.full(blocks, -1)
    np.minimum.at(first, block, step)
    np.maximum.at(last, block, step)
    return bool(blocks and ((last - first)[last >= 0] < NEAR).all())
