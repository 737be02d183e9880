"""Read a program's text back (``grammar/ir.lark``)."""

from __future__ import annotations

from functools import cache
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput

from autmarg.errors import ModelError
from autmarg.grammar_files import read
from autmarg.ir.text import Line, Text


@cache
def _parser() -> Lark:
    return Lark(read("ir.lark"), parser="lalr", maybe_placeholders=True)


def parse(text: str) -> Text:
    """The lines of a program's text.

    Raises:
        ModelError: not in the grammar; says line, column, what was found and what was expected.
    """
    try:
        return _Reader().transform(_parser().parse(text))
    except UnexpectedInput as error:
        lines = text.splitlines() or [""]
        line = min(max(error.line, 1), len(lines))
        column = max(error.column, 1)
        expected = sorted(getattr(error, "expected", None) or getattr(error, "allowed", None) or ())
        raise ModelError(
            f"line {line}, column {column} of the program's text:\n  {lines[line - 1]}\n"
            f"  {' ' * (column - 1)}^ expected one of {', '.join(expected).lower()}"
        ) from error


class _Reader(Transformer[Any, Any]):
    """Builds :class:`Text` bottom-up."""

    def name(self, items: list[Token]) -> str:
        text = str(items[0])
        return text[1:-1].replace('\\"', '"') if text.startswith('"') else text

    def names(self, items: list[str]) -> tuple[str, ...]:
        return tuple(items)

    def shape(self, items: list[Any]) -> str:
        return ", ".join(str(i) for i in items if i is not None)

    def type(self, items: list[Any]) -> str:
        return f"{items[0]}[{items[1]}]"

    def plate(self, items: list[Any]) -> tuple[str, int, int]:
        return items[0], int(items[1]), int(items[2])

    def distribution(self, items: list[Any]) -> tuple[str, str]:
        return str(items[0]), items[1]

    def site(self, items: list[Any]) -> Line:
        keyword, name, distribution, plates, of, reads = items
        kind, type_ = distribution or ("", "")
        return Line(str(keyword), name, kind, type_, of or (), reads or (), plates or ())

    def start(self, items: list[Any]) -> Text:
        plates = tuple(i for i in items[1:] if isinstance(i, tuple))
        return Text(items[0], plates, tuple(i for i in items[1:] if isinstance(i, Line)))
