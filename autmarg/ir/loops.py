"""Loop distribution: a scan as vectorised expressions, with small scans for what truly recurs.

A loop body is split along the strongly connected components of its dependence graph, values of one
step feeding the next through the carry (Allen and Kennedy 1987, Automatic translation of Fortran
programs to vector form, ACM TOPLAS 9(4)). What is on no circle is done for all steps at once: a
carry that is a shift register becomes a shifted array. Only circles stay scans. So a site inside a
loop reads its own past by index, as if the user had written arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from autmarg.compat.jaxprs import Param
from autmarg.errors import Place
from autmarg.ir.walk import computed, walk

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class _Carry:
    """The j-th carry as a vertex of the dependence graph: its value as a step begins."""

    j: int


@dataclass(frozen=True)
class _Value:
    """A body value in the outer program: one number for all steps, or one with a leading axis."""

    number: int
    stacked: bool


class DistributedLoop:
    """One scan, written onto the outer tape.

    Args:
        outer: the builder of the outer tape.
        body: a builder that holds the inlined body.
        inputs, outputs: the body's input and output numbers, as ``lax.scan`` orders them.
        operands: the outer numbers of the scan's operands.
        params: the scan's parameters.
        place: the user's line of the scan.
    """

    def __init__(
        self,
        outer: Any,
        body: Any,
        inputs: Sequence[int],
        outputs: Sequence[int],
        operands: Sequence[int],
        params: dict[str, Any],
        place: Place | None,
    ) -> None:
        self.outer, self.body, self.place = outer, body, place
        consts, carries = params[Param.NUM_CONSTS], params[Param.NUM_CARRY]
        self.length, self.reverse = params[Param.LENGTH], params[Param.REVERSE]
        self.carry_in = list(inputs[consts : consts + carries])
        self.carry_out, self.stacked_out = list(outputs[:carries]), list(outputs[carries:])
        self.start = list(operands[consts : consts + carries])
        self.producer = {v: i for i, e in enumerate(body.equations) for v in e.outputs}
        self.carry_of = {v: j for j, v in enumerate(self.carry_in)}
        self.values: dict[int, _Value] = {}
        for number, constant in body.constants.items():
            copied = outer.constant(constant, body.avals[number])
            self.values[number] = _Value(copied, False)
        for number, operand in zip(inputs[:consts], operands[:consts], strict=True):
            self.values[number] = _Value(operand, False)
        for number, operand in zip(
            inputs[consts + carries :], operands[consts + carries :], strict=True
        ):
            self.values[number] = _Value(self._turned(operand), True)

    def run(self) -> list[int]:
        """Write the loop; the outer numbers of its outputs."""
        import networkx as nx  # slow to import

        graph = self._dependences()
        condensed = nx.condensation(graph)
        for component in nx.lexicographical_topological_sort(condensed):
            vertices = condensed.nodes[component]["members"]
            (first, *more) = vertices
            if more or graph.has_edge(first, first):
                self._circle(vertices)
            elif isinstance(first, _Carry):
                self._shifted(first.j)
            else:
                self._vectorised(self.body.equations[first])
        last = [self._last(j) for j in range(len(self.carry_out))]
        return [*last, *(self._turned(self._stack(number)) for number in self.stacked_out)]

    def _dependences(self) -> nx.DiGraph[Any]:
        """What each live equation and carry needs: an edge from what is needed to what needs it."""
        import networkx as nx  # slow to import

        graph = nx.DiGraph()
        sources = [
            s for v in (*self.carry_out, *self.stacked_out) if (s := self._source(v)) is not None
        ]
        seen: set[Any] = set()
        while sources:
            vertex = sources.pop()
            if vertex in seen:
                continue
            seen.add(vertex)
            graph.add_node(vertex)
            isa_carry = isinstance(vertex, _Carry)
            needs = [self.carry_out[vertex.j]] if isa_carry else self.body.equations[vertex].inputs
            for number in needs:
                source = self._source(number)
                if source is not None:
                    graph.add_edge(source, vertex)
                    sources.append(source)
        return graph

    def _source(self, number: int) -> Any:
        """The vertex that makes a body value; None for constants and inputs."""
        if number in self.carry_of:
            return _Carry(self.carry_of[number])
        return self.producer.get(number)

    def _vectorised(self, equation: Any) -> None:
        """An equation off every circle: once if nothing changes, else for all steps at once."""
        operands = [self.values[v] for v in equation.inputs]
        place = equation.place or self.place
        function: Callable[..., Any] = equation.bind
        if any(o.stacked for o in operands):
            function = jax.vmap(function, in_axes=[0 if o.stacked else None for o in operands])
        numbers = self.outer.apply(function, [o.number for o in operands], place)
        stacked = any(o.stacked for o in operands)
        for output, number in zip(equation.outputs, numbers, strict=True):
            self.values[output] = _Value(number, stacked)

    def _shifted(self, j: int) -> None:
        """A carry off every circle: the start, then what the step before made."""
        after = self._stack(self.carry_out[j])

        def shift(start: Any, after: Any) -> list[Any]:
            return [jnp.concatenate([start[None], after[:-1]])]

        (number,) = self.outer.apply(shift, [self.start[j], after], self.place)
        self.values[self.carry_in[j]] = _Value(number, True)

    def _circle(self, vertices: set[Any]) -> None:
        """A circle: unchanged carries are constants; anything else stays a scan."""
        carries = sorted(v.j for v in vertices if isinstance(v, _Carry))
        rest = sorted(v for v in vertices if not isinstance(v, _Carry))
        equations = [self.body.equations[i] for i in rest]
        if not equations and len(carries) == 1:
            self.values[self.carry_in[carries[0]]] = _Value(self.start[carries[0]], False)
            return
        inside = {v for e in equations for v in e.outputs} | {self.carry_in[j] for j in carries}
        reads = {v for e in equations for v in e.inputs} | {self.carry_out[j] for j in carries}
        outside = sorted(reads - inside)
        fixed = [v for v in outside if not self.values[v].stacked]
        moving = [v for v in outside if self.values[v].stacked]
        made = [v for e in equations for v in e.outputs] + [self.carry_in[j] for j in carries]

        def loop(*operands: Any) -> list[Any]:
            start = operands[: len(carries)]
            known = dict(zip(fixed, operands[len(carries) :], strict=False))
            rest = operands[len(carries) + len(fixed) :]

            def step(carry: Any, xs: Any) -> tuple[Any, Any]:
                env = {**known, **dict(zip(moving, xs, strict=True))}
                env.update(zip((self.carry_in[j] for j in carries), carry, strict=True))
                walk(equations, env, computed)
                return [env[self.carry_out[j]] for j in carries], [env[v] for v in made]

            return jax.lax.scan(step, list(start), list(rest), length=self.length)[1]

        numbers = [self.start[j] for j in carries]
        numbers += [self.values[v].number for v in (*fixed, *moving)]
        place = next((e.place for e in equations if e.place), self.place)
        outputs = self.outer.apply(loop, numbers, place, distribute=False)
        self.values.update({v: _Value(n, True) for v, n in zip(made, outputs, strict=True)})

    def _stack(self, number: int) -> int:
        """The outer number of a body value with a leading axis of steps."""
        value = self.values[number]
        if value.stacked:
            return value.number
        shape = (self.length, *self.outer.avals[value.number].shape)
        function = lambda x: [jnp.broadcast_to(x, shape)]  # noqa: E731
        return self.outer.apply(function, [value.number], self.place)[0]

    def _last(self, j: int) -> int:
        value = self.values[self.carry_out[j]]
        if not value.stacked:
            return value.number
        return self.outer.apply(lambda x: [x[-1]], [value.number], self.place)[0]

    def _turned(self, number: int) -> int:
        """Steps in the order of the loop (its own inverse)."""
        if not self.reverse:
            return number
        return self.outer.apply(lambda x: [jnp.flip(x, 0)], [number], self.place)[0]
