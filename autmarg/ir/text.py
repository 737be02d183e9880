"""The text of a program as values: what the printer writes and the parser reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

RESERVED = frozenset({
    "program", "plate", "at", "const", "fragment", "by", "factor", "param", "random", "marginal",
    "given", "stage", "recover", "from", "observed", "ancestral", "as", "slope", "scale", "scanned",
    "in", "of", "inf", "nan", "true", "false", "new",
})  # fmt: skip
_LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "neg": 3, "**": 4}
_ATOM = 9


@dataclass(frozen=True)
class Atom:
    """A number (``2.5``, ``:`` in an index), a site (``u``) or a constant (``subj``, ``%c1``)."""

    kind: str
    text: str

    def __str__(self) -> str:
        return quoted(self.text) if self.kind == "name" else self.text


@dataclass(frozen=True)
class Apply:
    """A function of expressions.

    ``function`` is an operator (``+ - * / @ ** neg``), ``[]`` (the first argument indexed by the
    others), ``=`` (an argument by keyword), or a name to call.
    """

    function: str
    arguments: tuple[Expression, ...]

    def __str__(self) -> str:
        level = _LEVELS.get(self.function)
        if level is None:
            return self._call()
        if self.function == "neg":
            return f"-{_inside(self.arguments[0], level)}"
        left, right = self.arguments
        own = level + (self.function == "**")  # powers group to the right, the others to the left
        return f"{_inside(left, own)} {self.function} {_inside(right, level + (own == level))}"

    def _call(self) -> str:
        first, *rest = self.arguments if self.arguments else (Atom("number", ""),)
        if self.function == "[]":
            return f"{_inside(first, _ATOM)}[{_commas(rest)}]"
        if self.function == "=":
            return f"{first}={_commas(rest)}"
        return f"{self.function}({_commas(self.arguments)})"


Expression = Atom | Apply


def _inside(expression: Expression, level: int) -> str:
    """An argument, in parentheses where its operator binds less tightly."""
    own = _ATOM
    if isinstance(expression, Apply):
        own = _LEVELS.get(expression.function, _ATOM)
    elif expression.text.startswith("-"):
        own = _LEVELS["neg"]
    return str(expression) if own >= level else f"({expression})"


def atoms(expression: Expression | None) -> Iterator[Atom]:
    """The atoms of an expression, from left to right; a fragment counts as a constant."""
    if isinstance(expression, Atom):
        yield expression
    elif expression is not None:
        if expression.function.startswith("%"):
            yield Atom("constant", expression.function)
        for argument in expression.arguments[expression.function == "=" :]:
            yield from atoms(argument)


@dataclass(frozen=True)
class Dimension:
    """An axis of a site: its size, with the plate that it is (and its ``dim`` where the name
    stands for several)."""

    size: int
    plate: str = ""
    dim: int | None = None

    def __str__(self) -> str:
        at = "" if self.dim is None else f"@{self.dim}"
        return f"{quoted(self.plate)}{at}:{self.size}" if self.plate else str(self.size)


@dataclass(frozen=True)
class Line:
    """One site.

    Attributes:
        keyword: "" for a latent or observed site, "let", "factor", "param", "marginal", "recover".
        dims: of its value; ``dtype`` where it is not the program's.
        value: its distribution, or its expression.
        marks: what else there is to it, in order: (word, expression, name or nothing).
        given: names of the kept latents that a marginal or a recovery reads.
        stages: of elimination; ``source`` and ``rule`` of a recovery.
        inner: the sites inside it.
    """

    name: str
    keyword: str = ""
    dims: tuple[Dimension, ...] = ()
    dtype: str = ""
    value: Expression | None = None
    marks: tuple[tuple[str, Any], ...] = ()
    given: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    source: str = ""
    rule: str = ""
    inner: tuple[Line, ...] = ()

    def mark(self, word: str) -> Any:
        """What stands after a mark, or None."""
        return dict(self.marks).get(word)

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All its own expressions, from left to right."""
        found = [self.value, *(m for _, m in self.marks if isinstance(m, Atom | Apply))]
        return tuple(e for e in found if e is not None)

    def lines(self, indent: str = "  ") -> Iterator[str]:
        """Its text."""
        head = [self.keyword] if self.keyword not in ("", "let") else []
        shape = f"[{_commas(self.dims)}]" if self.dims else ""
        head.append(quoted(self.name) + shape)
        if self.dtype:
            head.append(f": {self.dtype}")
        if self.value is not None:
            head.append("~" if self.keyword == "" else "=")
            head.append(str(self.value))
        elif self.keyword == "param":
            head.append("= random")
        for word, mark in self.marks:
            head += [word] if mark is None else [word, _mark(mark)]
        for word, text in (("from", self.source and quoted(self.source)), ("by", self.rule)):
            if text:
                head += [word, text if word == "from" else quoted(text, always=True)]
        if self.given:
            head += ["given", _commas(map(quoted, self.given))]
        block = self.keyword in ("marginal", "recover") or self.inner
        yield indent + " ".join(head) + (" {" if block else "")
        for stage in self.stages:
            yield f"{indent}  stage {quoted(stage, always=True)}"
        for line in self.inner:
            yield from line.lines(indent + "  ")
        if block:
            yield indent + "}"


def _mark(mark: Expression | str | tuple[str, ...]) -> str:
    if isinstance(mark, str):
        return quoted(mark)
    return _commas(map(quoted, mark)) if isinstance(mark, tuple) else str(mark)


@dataclass(frozen=True)
class Declaration:
    """A named constant, or a named fragment of the program's jaxpr.

    Attributes:
        name: ``subj``, ``%c1``, ``%f2``.
        type: dtype and shape; ``hash`` of the content.
        reads: latents that a fragment is a function of; ``primitives`` that it applies, in order.
    """

    name: str
    type: str
    hash: str
    reads: tuple[str, ...] = ()
    primitives: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.primitives:
            return f"const {self.name} : {self.type} {self.hash}"
        by = f" by {', '.join(self.primitives)}"
        reads = _commas(map(quoted, self.reads))
        return f"fragment {self.name}({reads}) : {self.type} {self.hash}{by}"


@dataclass(frozen=True)
class Text:
    """A whole program: its name, float type, plates (name, size, dim), declarations and sites."""

    name: str
    dtype: str
    plates: tuple[tuple[str, int, int], ...]
    declarations: tuple[Declaration, ...]
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        out = [f"program {quoted(self.name)} : {self.dtype}"]
        out += [f"  plate {quoted(n)}:{size} at {dim}" for n, size, dim in self.plates]
        out += [f"  {declaration}" for declaration in self.declarations]
        out += [text for line in self.lines for text in line.lines()]
        return "\n".join(out)


def all_lines(lines: Iterable[Line]) -> Iterator[Line]:
    """Lines and those inside them."""
    for line in lines:
        yield line
        yield from all_lines(line.inner)


def quoted(name: str, always: bool = False) -> str:
    """Bare where it reads as an identifier, else in quotes."""
    if name.isidentifier() and name not in RESERVED and not always:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _commas(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
