"""The generative model in LaTeX, before and after, the way a methods section prints it.

The second argument of a normal or log-normal distribution is its variance, or its covariance.
Indices count from one. A letter stands for an axis of the site that a line is about; an array
that the line reads has the letters of the axes with which it lines up, as arrays broadcast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sympy

from autmarg.ir.nodes import WHITENED
from autmarg.ir.printer import describe
from autmarg.ir.text import Apply, Atom, Expression, Line, Text, all_lines
from autmarg.plan.plan import Plan

# Distributions with a usual symbol; others are set in roman by their names.
_SYMBOLS = {
    "Normal": r"\mathcal{N}",
    "MultivariateNormal": r"\mathcal{N}",
    "HalfNormal": r"\mathcal{N}^{+}",
    "LogNormal": r"\operatorname{LogNormal}",
    "LKJCholesky": r"\operatorname{LKJ}",
}
_BOUND = {"+": 1, "-": 1, "*": 2, "/": 4, "@": 2, "neg": 3, "**": 3}
_INDICES = "ijklmn"
_SCALED = ("Normal", "HalfNormal", "LogNormal")  # whose last argument is a standard deviation

Axes = tuple[tuple[str, int], ...]  # letter (or "") and size of each axis


def to_latex(plan: Plan) -> str:
    """Two ``aligned`` environments: the model as written, and as it is sampled."""
    written = describe(plan.program)
    sampled = describe(plan.rewritten or plan.program)
    before = [f"% {plan.program.name} as written", *_environment(written), ""]
    after = [f"% {plan.program.name} as sampled", *_environment(sampled)]
    return "\n".join([*before, *after])


def _environment(text: Text) -> Iterator[str]:
    lines = {line.name: line for line in all_lines(text.lines)}
    writer = _LatexWriter(lines, {d.name: _shape(d.type) for d in text.declarations})
    rows = [row for line in text.lines for row in writer.rows(line)]
    yield r"\begin{aligned}"
    yield " \\\\\n".join(rows)
    yield r"\end{aligned}"


@dataclass(frozen=True)
class _LatexWriter:
    """Writes the lines of one program, elementwise in the plates.

    Attributes:
        sites: the lines by name.
        shapes: shapes of the declared constants and fragments.
    """

    sites: dict[str, Line]
    shapes: dict[str, tuple[int, ...]]

    def rows(self, line: Line) -> Iterator[str]:
        if line.keyword == "marginal":
            yield from self._marginal(line)
        elif line.keyword == "recover":
            names = ", ".join(name(inner.name) for inner in line.inner)
            if line.rule == WHITENED:
                yield rf"({names}) &= T({', '.join(map(name, line.given))})"
                return
            given = ", ".join(name(n) for n in (*self._data(line.source), *line.given))
            yield rf"({names}) &\sim p({names} \mid {given}) \quad \text{{(recovery)}}"
        elif line.keyword == "factor":
            yield rf"\log f_{{\mathrm{{{_roman(line.name)}}}}} &= {self.of(line.value, ())}"
        elif line.value is not None:
            relation = r"\sim" if line.keyword == "" else "="
            index = _axes(line)
            left = name(line.name, _letters(index))
            yield f"{left} &{relation} {self.of(line.value, index)}{_range(index)}"
            for inner in line.inner:
                yield from self.rows(inner)

    def _marginal(self, line: Line) -> Iterator[str]:
        recovers = [l for l in self.sites.values() if l.keyword == "recover"]
        recover = next((l for l in recovers if l.source == line.name), None)
        members = () if recover is None else recover.inner
        if recover is None or recover.rule == WHITENED:  # (the first is in cross-products only)
            for inner in (*members, *line.inner):
                yield from self.rows(inner)
            return
        sites = [*(inner.name for inner in line.inner), *(line.mark("of") or ())]
        data, gone = ", ".join(map(name, sites)), ", ".join(name(m.name) for m in members)
        given = ", ".join(map(name, line.given)) or r"\cdot"
        prior = rf"p({gone} \mid {given})"
        yield (
            rf"p({data} \mid {given}) &= \int p({data} \mid {gone}, {given})\, {prior}\, "
            rf"\mathrm{{d}}({gone})"
        )
        for inner in (*members, *line.inner):
            yield from (r"&\quad " + row.replace("&", "") for row in self.rows(inner))

    def _data(self, marginal: str) -> list[str]:
        return [inner.name for inner in self.sites[marginal].inner]

    def of(self, expression: Expression | None, index: Axes, level: int = 0) -> str:
        """An expression, elementwise at ``index``."""
        if isinstance(expression, Atom):
            return self._atom(expression, index)
        assert expression is not None
        function, arguments = expression.function, expression.arguments
        if function in _BOUND:
            text = self._operation(function, arguments, index)
            return rf"\left({text}\right)" if _BOUND[function] < level else text
        if function == "[]":
            return self._indexed(arguments, index)
        if function == "=":
            return self.of(arguments[1], index)
        if function == "T":
            return f"{self.of(arguments[0], (), 5)}^{{\\top}}"
        if function in ("exp", "log", "sqrt"):
            inner = self.of(arguments[0], index)
            return (
                rf"\sqrt{{{inner}}}" if function == "sqrt" else rf"\{function}\left({inner}\right)"
            )
        inside = ", ".join(self.of(a, () if function[0] == "%" else index) for a in arguments)
        if function.startswith("%"):
            return f"{name(function[1:])}({inside})"
        symbol = _SYMBOLS.get(function, rf"\operatorname{{{_roman(function)}}}")
        if function == "MultivariateNormal" and len(arguments) > 1:
            inside = self._covariance(arguments, index)
        elif function in _SCALED and arguments:
            means = ", ".join(self.of(a, index) for a in arguments[:-1]) or "0"
            inside = f"{means}, {self._square(arguments[-1], index)}"
        return rf"{symbol}\left({inside}\right)"

    def _square(self, scale: Expression, index: Axes) -> str:
        text = self.of(scale, index, 4)
        return text if text == "1" else f"{text}^{{2}}" if "^" not in text else rf"({text})^{{2}}"

    def _covariance(self, arguments: tuple[Expression, ...], index: Axes) -> str:
        mean, scale = self.of(arguments[0], index), arguments[1]
        word = str(scale.arguments[0]) if isinstance(scale, Apply) else ""
        inner = scale.arguments[1] if isinstance(scale, Apply) and scale.function == "=" else scale
        matrix = self.of(inner, (), 3)
        if word == "scale_tril":
            return rf"{mean}, {matrix} {matrix}^{{\top}}"
        return f"{mean}, {matrix}^{{-1}}" if word == "precision_matrix" else f"{mean}, {matrix}"

    def _operation(self, function: str, arguments: tuple[Expression, ...], index: Axes) -> str:
        if function == "neg":
            return f"-{self.of(arguments[0], index, 3)}"
        left, right = arguments
        if function == "/":
            return rf"\frac{{{self.of(left, index)}}}{{{self.of(right, index)}}}"
        if function == "**":
            return f"{self.of(left, index, 4)}^{{{self.of(right, index)}}}"
        if function == "*" and (scale := _diagonal(left)) is not None:
            return rf"\operatorname{{diag}}({self.of(scale, ())}) {self.of(right, (), 2)}"
        if function == "@" and _letters(index):
            return rf"\left[{self._operation(function, arguments, ())}\right]_{{{_letters(index)}}}"
        level = _BOUND[function]
        sign = {"+": " + ", "-": " - ", "*": r" \, ", "@": r" \, "}[function]
        return (
            f"{self.of(left, index, level)}{sign}{self.of(right, index, level + (function == '-'))}"
        )

    def _indexed(self, arguments: tuple[Expression, ...], index: Axes) -> str:
        base, *entries = arguments
        parts = [self._entry(e, index) for e in entries]
        if isinstance(base, Atom):
            return name(base.text, ", ".join(parts))
        return rf"\left[{self.of(base, ())}\right]_{{{', '.join(parts)}}}"

    def _entry(self, entry: Expression, index: Axes) -> str:
        if isinstance(entry, Atom) and entry.kind == "constant":
            return name(entry.text.lstrip("%"), self._at(entry, index) or "i")
        if isinstance(entry, Atom) and entry.text.isdigit():
            return str(int(entry.text) + 1)  # a methods section counts from one
        return r"\cdot" if str(entry) == ":" else str(entry)

    def _atom(self, atom: Atom, index: Axes) -> str:
        if atom.kind == "number":
            return {"inf": r"\infty", "-inf": r"-\infty"}.get(atom.text, atom.text)
        if atom.kind == "constant":
            return name(atom.text.lstrip("%"), self._at(atom, index))
        return name(atom.text, self._at(atom, index))

    def _at(self, atom: Atom, index: Axes) -> str:
        """The letters of an array's axes, where it is read elementwise."""
        line = self.sites.get(atom.text) if atom.kind != "constant" else None
        shape = tuple(d.size for d in line.dims) if line else self.shapes.get(atom.text, ())
        return _letters(_aligned(shape, index))


def name(text: str, index: str = "") -> str:
    r"""A site's name, ``tau_u`` as :math:`\tau_u`, with an index."""
    head, *tail = text.split("_")
    if numbered := re.fullmatch(r"([A-Za-z]+)(\d+)", head):
        head, tail = numbered[1], [numbered[2], *tail]
    symbol = sympy.latex(sympy.Symbol(head)) if head.isalpha() else rf"\mathrm{{{_roman(head)}}}"
    if head.isalpha() and len(head) > 1 and not symbol.startswith("\\"):
        symbol = rf"\mathrm{{{head}}}"
    under = [
        rf"\mathrm{{{_roman(t)}}}" if len(t) > 1 and not t.isdigit() else _roman(t)
        for t in tail
        if t
    ]
    under += [index] if index else []
    return f"{symbol}_{{{', '.join(under)}}}" if under else symbol


def _roman(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%").replace("#", r"\#").replace("&", r"\&")


def _diagonal(expression: Expression) -> Expression | None:
    """x where an expression is x[:, new], a scale for every row of a matrix."""
    if isinstance(expression, Apply) and expression.function == "[]":
        base, *entries = expression.arguments
        if [str(e) for e in entries] == [":", "new"]:
            return base
    return None


def _shape(type_: str) -> tuple[int, ...]:
    """The shape in ``float64[3, 4]``."""
    return tuple(map(int, re.findall(r"\d+", type_.partition("[")[2])))


def _axes(line: Line) -> Axes:
    """The axes of a site; those that are plates have letters, outermost first."""
    letters = iter(_INDICES)
    return tuple((next(letters) if d.plate else "", d.size) for d in line.dims)


def _letters(index: Axes) -> str:
    return ", ".join(letter for letter, _ in index if letter)


def _aligned(shape: tuple[int, ...], index: Axes) -> Axes:
    """The axes of ``index`` with which an array lines up, from the right or else the left."""
    size = min(len(shape), len(index))
    for own, theirs in (
        (shape[len(shape) - size :], index[len(index) - size :]),
        (shape[:size], index[:size]),
    ):
        if all(n in (1, m) for n, (_, m) in zip(own, theirs, strict=True)):
            pairs = zip(own, theirs, strict=True)
            return tuple(axis for n, axis in pairs if n == axis[1])
    return ()


def _range(index: Axes) -> str:
    each = (rf"{letter} = 1, \ldots, {size}" for letter, size in index if letter)
    text = r",\ ".join(each)
    return rf", \quad {text}" if text else ""
