"""A program in text, one line a site, in the syntax of ``grammar/ir.lark``.

Expressions are written out; data, indices and what has no notation are declared above the sites,
with type and hash, and stay in a store beside the text (:mod:`autmarg.ir.store`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import Transform

from autmarg.compat.numpyro import array_fields, attributes_of, unwrapped
from autmarg.ir.expressions import HOLE, Writer, content
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
    Recover,
    Sample,
)
from autmarg.ir.tape import Tape
from autmarg.ir.text import (
    Apply,
    Atom,
    Declaration,
    Dimension,
    Expression,
    Line,
    Text,
    all_lines,
    atoms,
)


def print_program(program: Any) -> str:
    """The program's text."""
    return str(describe(program))


def describe(program: Any) -> Text:
    """The program as values of text."""
    known = vars(program).get("text")  # of a program that was pickled
    return Printer(program).text if known is None else known


class Printer:
    """Writes one program's lines, and remembers which value stands behind each expression."""

    def __init__(self, program: Any) -> None:
        self.program = program
        roots = [v for node in program.nodes for v in node.numbers]
        hollow = any(e.name == HOLE for e in program.tape.equations)
        self.tape = program.tape if hollow else program.tape.folded(roots)
        sites = frozenset(self.tape.inputs) | {node.name for node in sites_of(program)}
        self.writer = Writer(self.tape, _names(program.names), sites)
        self.dtype = _float_type(program)
        self.slots: dict[tuple[str, int], int] = {}  # (line, position) → value
        lines = tuple(self._line(node) for node in program.nodes)
        plates = tuple((p.name, p.size, p.dim) for p in program.plates)
        self.text = Text(program.name, self.dtype, plates, self._declared(lines), lines)

    def _declared(self, lines: tuple[Line, ...]) -> tuple[Declaration, ...]:
        """What the lines name, constants before fragments, in the order in which they do."""
        named = (a.text for line in all_lines(lines) for e in line.expressions for a in atoms(e))
        found = [self.writer.declared[n] for n in dict.fromkeys(named) if n in self.writer.declared]
        return tuple(sorted(found, key=lambda d: bool(d.primitives)))

    def _line(self, node: Node) -> Line:
        if isinstance(node, Marginal):
            inner = tuple(self._line(site) for site in node.observed)
            names = (("of", node.children),) if node.children else ()
            given = tuple(sorted(node.parents))
            return Line(
                node.name, "marginal", marks=names, given=given, stages=node.structure, inner=inner
            )
        if isinstance(node, Recover):
            inner, given = tuple(map(self._line, node.members)), tuple(sorted(node.parents))
            return Line(
                node.name, "recover", source=node.marginal, rule=node.rule, given=given, inner=inner
            )
        if isinstance(node, Sample):
            return self._sample(node)
        if isinstance(node, Param):
            values = [node.initial] if isinstance(node.initial, int) else []
            dims, left = _dimensions(node, node.shape, 0, self._several)
            (value,) = self._written(node, values) or (None,)
            return Line(node.name, "param", dims, value=value, marks=left)
        assert isinstance(node, Deterministic | Factor)
        (value,) = self._written(node, [node.value])
        if isinstance(node, Factor):
            return Line(node.name, "factor", value=value)
        aval = self.tape.avals[node.value]
        dims, left = _dimensions(node, aval.shape, 0, self._several)
        return Line(node.name, "let", dims, self._dtype(aval.dtype), value, left)

    def _sample(self, node: Sample) -> Line:
        leaves, build = arguments(node.distribution, self.tape)
        marked: list[tuple[str, int]] = []
        if isinstance(node, Observe):
            marked.append(("observed", node.value))
        if isinstance(node, NonCentred):
            marked += [("as", node.value), ("slope", node.log_jacobian)]
        if node.scale is not None:
            marked.append(("scale", node.scale))
        written = self._written(node, [*leaves, *(v for _, v in marked)])
        value, rest = build(written[: len(leaves)]), written[len(leaves) :]
        marks: list[Any] = [(w, e) for (w, _), e in zip(marked, rest, strict=True)]
        if isinstance(node, Ancestral):
            marks.append(("ancestral", node.marginal))
        if node.scanned:
            marks.append(("scanned", None))
        events = len(node.distribution.event_shape)
        dims, left = _dimensions(node, node.shape, events, self._several)
        inner = (self._line(node.base),) if isinstance(node, NonCentred) else ()
        dtype = self._dtype(node.dtype)
        return Line(node.name, "", dims, dtype, value, (*marks, *left), inner=inner)

    def _written(self, node: Node, numbers: Sequence[int]) -> list[Expression]:
        """Expressions of a node's values, in the order in which they stand in its line."""
        self.slots.update({(node.name, k): v for k, v in enumerate(numbers)})
        return [self.writer.write(v) for v in numbers]

    def _dtype(self, dtype: Any) -> str:
        name = jnp.dtype(dtype).name
        return "" if name == self.dtype else name

    def _several(self, name: str) -> bool:
        return sum(plate.name == name for plate in self.program.plates) > 1


def sites_of(program: Any) -> Iterator[Node]:
    """All nodes, those inside marginals, recoveries and non-centred sites too."""
    for node in program.nodes:
        yield node
        yield from getattr(node, "observed", ())
        yield from getattr(node, "members", ())
        if isinstance(node, NonCentred):
            yield node.base


def _float_type(program: Any) -> str:
    """The type of the program's numbers: that of its first site of floats."""
    sites = (*program.integrated, *program.latents, *program.observed)
    floats = (jnp.dtype(s.dtype).name for s in sites if jnp.issubdtype(s.dtype, np.floating))
    return next(floats, jnp.result_type(float).name)


def _names(named: Mapping[str, Any]) -> dict[str, str]:
    """Content of arrays, as given and in single precision → what the user calls them."""
    found: dict[str, str] = {}
    for name, array in named.items():
        found.setdefault(content(array), name)
        if jnp.issubdtype(array.dtype, np.floating):
            found.setdefault(content(np.asarray(array, np.float32)), name)
    return found


def _dimensions(
    node: Node, shape: tuple[int, ...], events: int, several: Any
) -> tuple[tuple[Dimension, ...], tuple[Any, ...]]:
    """The axes of a site, and a mark with those of its plates that are none of them."""
    dims, left = [Dimension(n) for n in shape], []
    for plate in node.plates:
        axis = len(shape) - events + plate.dim
        if 0 <= axis < len(shape) and shape[axis] == plate.size and not dims[axis].plate:
            dim = plate.dim if several(plate.name) else None
            dims[axis] = Dimension(plate.size, plate.name, dim)
        else:
            left.append(plate.name)
    return tuple(dims), (("in", tuple(left)),) if left else ()


@dataclass(frozen=True)
class _Leaf:
    """Stands for a leaf of a distribution while its fields are read."""

    number: int


def arguments(spec: DistributionSpec, tape: Tape) -> tuple[list[int], Any]:
    """Values of a distribution's arguments, and the function of their expressions that writes it.

    Expansion and independence are in the site's shape; masks are an argument. What a distribution
    computes from its arguments and keeps is left out.
    """
    leaves = [_Leaf(v) for v in spec.values]
    order: list[int] = []
    if spec.treedef is None:  # read from text without its store
        return list(spec.values), lambda written: written[0]
    shape = _shape_of(spec.unflatten(leaves), order)
    seen = tape.dependencies(order)
    missing = [v for v in spec.values if v not in order and not tape.dependencies([v]) <= seen]
    if missing:
        shape = (shape[0], [*shape[1], *((f"part{k}", _Leaf(v)) for k, v in enumerate(missing))])
        order += missing

    def build(written: list[Expression]) -> Expression:
        each = iter(written)

        def fill(part: Any) -> Expression:
            if isinstance(part, _Leaf):
                return next(each)
            if isinstance(part, Atom | Apply):
                return part
            name, fields = part
            filled = [(word, fill(value)) for word, value in fields]
            return Apply(
                name,
                tuple(Apply("=", (Atom("name", w), e)) if w else e for w, e in filled),
            )

        return fill(shape)

    return order, build


def _shape_of(value: Any, order: list[int]) -> Any:
    """(class, [(keyword or "", field), …]) of a distribution or transform, leaves in order."""
    if isinstance(value, _Leaf):
        order.append(value.number)
        return value
    value, masks = unwrapped(value) if isinstance(value, dist.Distribution) else (value, ())
    fields = []
    for name, field, positional in _fields(value):
        if isinstance(field, _Leaf | dist.Distribution | Transform):
            fields.append(("" if positional else name, _shape_of(field, order)))
        elif isinstance(field, list | tuple):
            fields += [("", _shape_of(f, order)) for f in field if isinstance(f, Transform)]
        elif isinstance(field, int | float) and not isinstance(field, bool):
            fields.append(("" if positional else name, Atom("number", str(field))))
    for mask, _ in masks[-1:]:
        leaf = isinstance(mask, _Leaf)
        fields.append(("mask", _shape_of(mask, order) if leaf else _word(mask)))
    return type(value).__name__, fields


def _word(mask: Any) -> Atom:
    return Atom("number", str(mask).lower())


def _fields(value: Any) -> Iterator[tuple[str, Any, bool]]:
    """The fields of a distribution or transform that may hold leaves: name, field, positional."""
    names = list(inspect.signature(type(value).__init__).parameters)[1:]
    held = attributes_of(value)
    own = [name for name in names if held.get(name) is not None]
    if not any(isinstance(held[name], _Leaf | dist.Distribution) for name in own):
        data = array_fields(type(value))
        # Sorted: NumPyro holds fields in an order that is another in each process.
        names = own = sorted(name for name in held if name in data or name == "transforms")
    for name in own:
        yield name, held[name], own[: own.index(name)] == names[: names.index(name)]
