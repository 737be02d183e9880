"""From text back to a program, with the store of what text does not hold, or without it.

A :class:`Store` keeps what stands beside a program's text: the tape with its constants and
fragments, and of every site what has no notation (pytree structure, ``infer``, densities). With
it, lines that are as they were printed become the very nodes that they were printed from, and lines
that were edited are built anew. Without it, expressions have no meaning but their names: passes
that only look at the structure still work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.jaxprs import Primitive
from autmarg.errors import InternalError, ModelError, RequestError
from autmarg.ir.edit import written
from autmarg.ir.evaluate import evaluate, names_of
from autmarg.ir.expressions import HOLE
from autmarg.ir.nodes import (
    Ancestral,
    Deterministic,
    DistributionSpec,
    Factor,
    Marginal,
    Node,
    NonCentred,
    Observe,
    Param,
    Plate,
    Recover,
    Sample,
    Structure,
)
from autmarg.ir.parser import parse
from autmarg.ir.printer import Printer, sites_of
from autmarg.ir.program import Program
from autmarg.ir.tape import Builder, Equation, Tape
from autmarg.ir.text import Expression, Line, Text, all_lines, atoms
from autmarg.ir.verifier import check

_MEANINGLESS = Primitive(HOLE)


@_MEANINGLESS.def_impl
@_MEANINGLESS.def_abstract_eval
def _no_meaning(*inputs: Any, expression: Expression, **params: Any) -> Any:
    raise RequestError(
        f"the program was read from text without its store, so '{expression}' cannot be computed: "
        "expected a pass that looks at the structure only, or the store"
    )


@dataclass(frozen=True, eq=False)
class Store:
    """What stands beside a program's text."""

    program: Program

    @cached_property
    def printer(self) -> Printer:
        return Printer(self.program)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """All nodes by name, those inside others too."""
        return {node.name: node for node in sites_of(self.program)}

    @cached_property
    def lines(self) -> dict[str, Line]:
        """What each was printed as."""
        return {line.name: line for line in all_lines(self.printer.text.lines)}


def read_program(text: str | Text, store: Store | None = None) -> Program:
    """The program that a text says.

    Args:
        text: in the syntax of ``grammar/ir.lark``.
        store: of the program that it was printed from.

    Raises:
        ModelError: the text is not in the grammar, or names what there is not.
    """
    text = parse(text) if isinstance(text, str) else text
    reader = _Filled(text, store) if store else _Hollow(text)
    nodes = tuple(reader.node(line) for line in text.lines)
    plates = tuple(Plate(*plate) for plate in text.plates)
    if store is None:
        return _checked(Program(text.name, nodes, plates, reader.tape))
    return _checked(replace(store.program, nodes=nodes, plates=plates, tape=reader.tape))


def _checked(program: Program) -> Program:
    try:
        return check(program)
    except InternalError as error:
        raise ModelError(f"the text is no program: {error}") from error


class _LineReader(ABC):
    """Makes nodes of lines on a growing tape."""

    tape: Tape

    def __init__(self, text: Text) -> None:
        self.text = text
        self.declared = {d.name: d for d in text.declarations}

    @abstractmethod
    def node(self, line: Line) -> Node:
        """The node of a line."""

    @abstractmethod
    def value(self, line: Line, expression: Expression, dtype: Any = None) -> int:
        """The number of an expression's value."""

    @abstractmethod
    def spec(self, line: Line, events: int) -> DistributionSpec:
        """The distribution of a site."""

    @abstractmethod
    def reads(self, numbers: Iterable[int]) -> frozenset[str]:
        """What values depend on."""

    def inputs(self) -> Iterator[tuple[str, tuple[int, ...], Any]]:
        """Latent and param sites: name, shape, dtype."""
        for line in all_lines(self.text.lines):
            if line.keyword == "param" or (line.keyword == "" and line.mark("observed") is None):
                yield line.name, self.shape(line), self.dtype(line)

    def shape(self, line: Line) -> tuple[int, ...]:
        return tuple(d.size for d in line.dims)

    def dtype(self, line: Line) -> Any:
        return np.dtype(line.dtype or self.text.dtype)

    def plates(self, line: Line) -> tuple[tuple[Plate, ...], int]:
        """The plates of a site, and how many of its last axes belong to one draw."""
        found, events = [], 0
        for axis, d in enumerate(line.dims):
            if d.plate:
                plate = self._plate(line, d.plate, d.size, d.dim)
                events = len(line.dims) + plate.dim - axis
                found.append(plate)
        left = line.mark("in")
        for name in left if isinstance(left, tuple) else ():
            found.append(self._plate(line, name, None, None))
        return tuple(sorted(found, key=lambda p: p.dim, reverse=True)), events

    def _plate(self, line: Line, name: str, size: int | None, dim: int | None) -> Plate:
        for plate in self.text.plates:
            if plate[0] == name and size in (None, plate[1]) and dim in (None, plate[2]):
                return Plate(*plate)
        raise ModelError(
            f"'{line.name}' stands in plate '{name}' of {size}: expected one of "
            f"{[f'{n}:{s}' for n, s, _ in self.text.plates]}"
        )

    def built(self, line: Line) -> Node:
        """The node of one line by what it says."""
        name, marks = line.name, dict(line.marks)
        plates, events = self.plates(line)
        if line.keyword in ("let", "factor"):
            assert line.value is not None
            value = self.value(line, line.value)
            reads, kind = self.reads([value]), Deterministic
            if line.keyword == "factor":
                kind = Factor
            return kind(name, reads, None, plates, value=value)
        if line.keyword == "param":
            initial: Any = _no_initial if line.value is None else self.value(line, line.value)
            options = Structure(jax.tree.structure({}), ())
            return Param(name, frozenset(), None, plates, shape=self.shape(line),
                         initial=initial, options=options)  # fmt: skip
        if line.keyword == "marginal":
            observed: Any = tuple(self.node(inner) for inner in line.inner)
            children = line.mark("of") or ()
            return Marginal(
                name, frozenset(line.given), None, observed=observed, children=children,
                density=None, structure=line.stages,
            )  # fmt: skip
        if line.keyword == "recover":
            members: Any = tuple(self.node(inner) for inner in line.inner)
            return Recover(
                name, frozenset(line.given), None, members=members, marginal=line.source,
                density=None, rule=line.rule,
            )  # fmt: skip
        spec = self.spec(line, events)
        scale = marks.get("scale")
        common: dict[str, Any] = {
            "distribution": spec, "shape": self.shape(line), "dtype": self.dtype(line),
            "scanned": "scanned" in marks,
            "scale": None if scale is None else self.value(line, scale),
        }  # fmt: skip
        reads = self.reads(spec.values)
        if "observed" in marks:
            value = self.value(line, marks["observed"], self.dtype(line))
            reads |= self.reads([value])
            return Observe(name, reads, None, plates, value=value, **common)
        if "ancestral" in marks:
            return Ancestral(name, reads, None, plates, marginal=marks["ancestral"], **common)
        if "as" in marks:
            base: Any = self.node(line.inner[0])
            value, slope = (self.value(line, marks[w]) for w in ("as", "slope"))
            return NonCentred(
                name, reads, None, plates, base=base, value=value, log_jacobian=slope, **common
            )
        return Sample(name, reads, None, plates, **common)


def _no_initial(key: Any) -> Any:
    raise ModelError("a param read from text has no initial value")


class _Hollow(_LineReader):
    """Without a store: every expression is a hole that only knows what it reads."""

    def __init__(self, text: Text) -> None:
        super().__init__(text)
        self.builder, self.numbers = Builder(), {}
        self.dependencies: dict[int, frozenset[str]] = {}  # of expressions, by their numbers
        for name, shape, dtype in self.inputs():
            self.numbers[name] = self.builder.number(jax.ShapeDtypeStruct(shape, dtype))
        for line in all_lines(text.lines):  # traced constants
            for atom in (a for e in line.expressions for a in atoms(e)):
                if atom.kind == "name" and atom.text.startswith("@"):
                    aval = jax.ShapeDtypeStruct((), np.dtype(text.dtype))
                    self.numbers.setdefault(atom.text, self.builder.number(aval))

    @property
    def tape(self) -> Tape:  # pyright: ignore
        return self.builder.tape(self.numbers)

    def node(self, line: Line) -> Node:
        return self.built(line)

    def reads(self, numbers: Iterable[int]) -> frozenset[str]:
        return frozenset().union(*(self.dependencies[v] for v in numbers))

    def value(self, line: Line, expression: Expression, dtype: Any = None) -> int:
        named = names_of(line, expression, self.numbers, self.declared)
        reads = tuple(dict.fromkeys(a.text for a in named if a.kind == "name"))
        used = {a.text: self.declared[a.text] for a in named if a.kind == "constant"}
        dtype = dtype or self.dtype(line)
        number = self.builder.number(jax.ShapeDtypeStruct(self.shape(line), dtype))
        self.dependencies[number] = frozenset(reads)
        params = {"expression": expression, "declared": used}
        inputs = tuple(self.numbers[n] for n in reads)
        self.builder.equations.append(Equation(_MEANINGLESS, params, inputs, (number,), None))
        return number

    def spec(self, line: Line, events: int) -> DistributionSpec:
        assert line.value is not None
        number, shape = self.value(line, line.value), self.shape(line)
        kind, split = getattr(line.value, "function", ""), len(shape) - events
        return DistributionSpec(None, (number,), kind, shape[:split], shape[split:])


class _Filled(_LineReader):
    """With a store: what is as it was printed is as it was; the rest is built."""

    def __init__(self, text: Text, store: Store) -> None:
        super().__init__(text)
        self.store, self.tape = store, store.program.tape
        for name, shape, dtype in self.inputs():
            old = store.nodes.get(name)
            if old is None:
                self.tape = self.tape.with_input(name, shape, dtype)
            elif (kept := getattr(old, "shape", shape)) != shape:
                raise ModelError(f"'{name}' has shape {shape} in the text, {kept} in the store")

    def reads(self, numbers: Iterable[int]) -> frozenset[str]:
        return self.tape.dependencies(numbers)

    def node(self, line: Line) -> Node:
        old = self.store.nodes.get(line.name)
        if old is not None and self.store.lines[line.name] == line:
            return old
        if line.keyword in ("marginal", "recover"):
            raise ModelError(
                f"'{line.name}' was edited: a {line.keyword} node is made by a pass, so edit the "
                "program before it and run the passes again"
            )
        new = self.built(line)
        return new if old is None else replace(new, place=old.place)

    def value(self, line: Line, expression: Expression, dtype: Any = None) -> int:
        arrays, numbers = self._environment(line, expression)
        shape = self.shape(line)

        def run(*values: Any) -> list[Any]:
            found = evaluate(expression, arrays | dict(zip(numbers, values, strict=True)))
            found = jnp.asarray(found, dtype)
            return [found if line.keyword == "factor" else jnp.broadcast_to(found, shape)]

        with _as_edited(line):
            self.tape, (number,) = self.tape.extend(run, tuple(numbers.values()))
        return number

    def spec(self, line: Line, events: int) -> DistributionSpec:
        assert line.value is not None
        arrays, numbers = self._environment(line, line.value)

        def make(*values: Any) -> Any:
            return evaluate(line.value, arrays | dict(zip(numbers, values, strict=True)))

        with _as_edited(line):
            places = tuple(numbers.values())
            self.tape, spec = written(self.tape, make, places, self.shape(line), events)
        return spec

    def _environment(
        self, line: Line, expression: Expression
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Constants' values, and the tape's numbers of sites and fragments, by name."""
        writer = self.store.printer.writer
        known = {**self.tape.inputs}
        found = names_of(line, expression, known, writer.declared)
        names = {a.text: a for a in found}
        arrays = {n: writer.arrays[n] for n in names if n in writer.arrays}
        fragments = {n: writer.fragments[n] for n in names if n in writer.fragments}
        return arrays, {n: known[n] for n in names if n in known} | fragments


@contextmanager
def _as_edited(line: Line) -> Generator[None, None, None]:
    """Say of which line it is that it cannot be computed."""
    try:
        yield
    except (TypeError, ValueError, IndexError) as error:
        words = " ".join(str(error).split())
        raise ModelError(f"'{line.name}' as edited cannot be computed: {words}") from error


__all__ = ["Store", "read_program"]
