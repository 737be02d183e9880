"""Read a program's text (``grammar/ir.lark``) as values, or say where it is none."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, UnexpectedToken

from autmarg.errors import ModelError
from autmarg.grammar_files import read
from autmarg.ir.text import Apply, Atom, Declaration, Dimension, Expression, Line, Text

# What a token is called in a complaint; keywords and brackets are called by themselves.
_WORDS = {
    "IDENTIFIER": "a name", "STRING": "text in quotes", "INT": "a whole number",
    "SIGNED_INT": "a whole number", "NUMBER": "a number", "PERCENT": "a %name",
    "HASH": "a hash such as #1f2e3d4c", "RANGE": "a range", "SPECIAL": "inf, nan, true or false",
    "NEW": "new", "$END": "the end",
}  # fmt: skip


@cache
def _parser() -> Lark:
    return Lark(read("ir.lark"), parser="lalr", maybe_placeholders=True)


def parse(text: str) -> Text:
    """A program's text as values.

    Raises:
        ModelError: not in the grammar; says line, column, what was found and what was expected.
    """
    try:
        return _TextBuilder().transform(_parser().parse(text))
    except UnexpectedInput as error:
        raise ModelError(_complaint(text, error)) from error


def _complaint(text: str, error: UnexpectedInput) -> str:
    """Line, caret, and what was expected there."""
    lines = text.splitlines() or [""]
    line, column = error.line, error.column
    found = f"found {text[error.pos_in_stream or 0]!r}" if error.pos_in_stream is not None else ""
    expected = getattr(error, "allowed", None) or set()
    if isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
        found = f"found '{error.token}'"
        if error.token.type == "$END":
            line, column, found = len(lines), len(lines[-1]) + 1, "the text ends"
    line = min(max(line, 1), len(lines))
    words = sorted({_word(name) for name in expected}, key=lambda w: (w.startswith("'"), w))
    where = lines[line - 1]
    return (
        f"line {line}, column {column} of the program's text:\n  {where}\n"
        f"  {' ' * (column - 1)}^ {found}, expected {_either(words)}"
    )


def _word(terminal: str) -> str:
    if terminal in _WORDS:
        return _WORDS[terminal]
    definition = next(t for t in _parser().terminals if t.name == terminal)
    return f"'{definition.pattern.value}'"


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _operator(function: str) -> Callable[[Any, list[Expression]], Expression]:
    def build(self: Any, items: list[Expression]) -> Expression:
        return Apply(function, tuple(items))

    return build


def _mark(word: str) -> Callable[[Any, list[Any]], tuple[str, Any]]:
    def build(self: Any, items: list[Any]) -> tuple[str, Any]:
        return word, items[0] if items else None

    return build


class _TextBuilder(Transformer[Any, Any]):
    """Builds :class:`Text` bottom-up, declarations before the sites that name them."""

    def __init__(self) -> None:
        super().__init__()
        self.constants: set[str] = set()

    # Declarations

    def start(self, items: list[Any]) -> Text:
        name, dtype, *rest = items
        plates = tuple(i for i in rest if isinstance(i, tuple))
        declared = tuple(i for i in rest if isinstance(i, Declaration))
        return Text(name, dtype, plates, declared, tuple(i for i in rest if isinstance(i, Line)))

    def plate(self, items: list[Any]) -> tuple[str, int, int]:
        return items[0], int(items[1]), int(items[2])

    def const(self, items: list[Any]) -> Declaration:
        name, type_, digest = items
        self.constants.add(name)
        return Declaration(name, type_, str(digest))

    def fragment(self, items: list[Any]) -> Declaration:
        name, reads, type_, digest, primitives = items
        return Declaration(str(name), type_, str(digest), reads or (), primitives)

    def constant(self, items: list[Token]) -> str:
        return str(items[0])

    def type(self, items: list[Token]) -> str:
        return str(items[0])

    def array(self, items: list[Any]) -> str:
        return f"{items[0]}[{', '.join(str(i) for i in items[1:] if i is not None)}]"

    def name(self, items: list[Token]) -> str:
        return _unquoted(items[0])

    def names(self, items: list[str]) -> tuple[str, ...]:
        return tuple(items)

    # Sites

    def sample(self, items: list[Any], keyword: str = "") -> Line:
        name, dims, dtype, value, *rest = items
        marks = tuple(i for i in rest if isinstance(i, tuple))
        inner = tuple(i for i in rest if isinstance(i, Line))
        return Line(name, keyword, dims or (), dtype or "", value, marks, inner=inner)

    def let(self, items: list[Any]) -> Line:
        return self.sample(items, "let")

    def factor(self, items: list[Any]) -> Line:
        return Line(items[0], "factor", value=items[1])

    def param(self, items: list[Any]) -> Line:
        name, dims, value, *marks = items
        return Line(name, "param", dims or (), value=value, marks=tuple(marks))

    def random(self, items: list[Any]) -> None:
        return None

    def marginal(self, items: list[Any]) -> Line:
        name, *rest = items
        marks = tuple(i for i in rest if isinstance(i, tuple) and i and i[0] == "of")
        given = next((i for i in rest if isinstance(i, tuple) and i not in marks), ())
        stages = tuple(i for i in rest if isinstance(i, str))
        inner = tuple(i for i in rest if isinstance(i, Line))
        return Line(name, "marginal", marks=marks, given=given, stages=stages, inner=inner)

    def recover(self, items: list[Any]) -> Line:
        name, source, rule, given, *inner = items
        rule = "" if rule is None else _unquoted(rule)
        return Line(
            name, "recover", source=source, rule=rule, given=given or (), inner=tuple(inner)
        )

    def stage(self, items: list[Token]) -> str:
        return _unquoted(items[0])

    def dims(self, items: list[Dimension]) -> tuple[Dimension, ...]:
        return tuple(items)

    def size(self, items: list[Token]) -> Dimension:
        return Dimension(int(items[0]))

    def plated(self, items: list[Any]) -> Dimension:
        name, dim, size = items
        return Dimension(int(size), name, None if dim is None else int(dim))

    observed, as_, slope, scale = map(_mark, ("observed", "as", "slope", "scale"))
    ancestral, scanned, in_, of = map(_mark, ("ancestral", "scanned", "in", "of"))

    # Expressions

    add, sub, mul, div = map(_operator, "+-*/")
    matmul, pow, index = map(_operator, ("@", "**", "[]"))

    def neg(self, items: list[Expression]) -> Expression:
        (inner,) = items
        if isinstance(inner, Atom) and inner.kind == "number" and not inner.text.startswith("-"):
            return Atom("number", "-" + inner.text)
        return Apply("neg", (inner,))

    def number(self, items: list[Token]) -> Expression:
        return Atom("number", str(items[0]))

    def site_name(self, items: list[str]) -> Expression:
        return Atom("constant" if items[0] in self.constants else "name", items[0])

    def constant_name(self, items: list[Token]) -> Expression:
        return Atom("constant", str(items[0]))

    def call(self, items: list[Any]) -> Expression:
        return Apply(str(items[0]), tuple(i for i in items[1:] if i is not None))

    def argument(self, items: list[Expression]) -> Expression:
        return items[0]

    def keyword(self, items: list[Any]) -> Expression:
        return Apply("=", (Atom("name", str(items[0])), items[1]))


def _unquoted(token: Token) -> str:
    return ast.literal_eval(token) if token.startswith('"') else str(token)
