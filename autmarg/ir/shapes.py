"""The shape of what an expression of the text says, by NumPy's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from autmarg.ir.text import Apply, Atom, Expression

Shape = tuple[int, ...]


def shape_of(expression: Expression, known: Callable[[str], Shape]) -> Shape:
    """The shape of an array-valued expression.

    Args:
        expression: without keywords.
        known: shape of a site, constant or fragment, by its name.

    Raises:
        ValueError: its parts do not fit.
    """
    if isinstance(expression, Atom):
        return () if expression.kind == "number" else known(expression.text)
    name, arguments = expression.function, expression.arguments
    if name.startswith("%"):
        return known(name)
    if name in ("broadcast", "reshape"):
        return tuple(_integer(a) for a in arguments[1:])
    first = shape_of(arguments[0], known)
    if name == "[]":
        return _picked(first, arguments[1:], known)
    if name in ("sum", "cumsum"):
        gone = {_integer(a) % len(first) for a in arguments[1:]} or {*range(len(first))}
        return tuple(n for k, n in enumerate(first) if k not in gone or name == "cumsum")
    if name == "T":
        return first[::-1]
    others = [shape_of(a, known) for a in arguments[1:]]
    if name == "@":
        return (*first[:-1], *others[0][1:])
    if name == "stack":
        return (1 + len(others), *first)
    if name == "concatenate":
        return (first[0] + sum(s[0] for s in others), *first[1:])
    return np.broadcast_shapes(first, *others)


def _integer(expression: Expression) -> int:
    return int(str(expression))


def _picked(shape: Shape, entries: tuple[Expression, ...], known: Any) -> Shape:
    """Of an array that is indexed."""

    def read(entry: Expression) -> Any:
        text = str(entry)
        if text == "new":
            return None
        if isinstance(entry, Atom) and entry.kind == "number" and ":" in text:
            return slice(*(int(part) if part else None for part in text.split(":")))
        whole = isinstance(entry, Atom) and entry.kind == "number"
        return int(text) if whole else np.broadcast_to(0, shape_of(entry, known))

    try:
        return np.broadcast_to(np.int8(0), shape)[tuple(map(read, entries))].shape
    except IndexError as error:
        raise ValueError(str(error)) from error


def broadcasts(found: Shape, shape: Shape) -> bool:
    """Whether an array of one shape broadcasts to another."""
    pairs = zip(reversed(found), reversed(shape), strict=False)
    return len(found) <= len(shape) and all(a in (1, b) for a, b in pairs)


def fitted(expression: Expression, found: Shape, shape: Shape) -> Expression:
    """An expression of as many entries in another shape: ``a[:, new]``, ``a[0]``, or a reshape."""
    numbers = tuple(Atom("number", str(n)) for n in shape)
    if int(np.prod(found)) != int(np.prod(shape)):
        return Apply("broadcast", (expression, *numbers))
    grown, shrunk = (_units(*pair) for pair in ((found, shape), (shape, found)))
    if grown is not None:
        entries = (Atom("number", "new" if unit else ":") for unit in grown)
        return Apply("[]", (expression, *entries))
    if shrunk is not None:
        last = max(k for k, unit in enumerate(shrunk) if unit)
        entries = (Atom("number", "0" if unit else ":") for unit in shrunk[: last + 1])
        return Apply("[]", (expression, *entries))
    return Apply("reshape", (expression, *numbers))


def _units(short: Shape, long: Shape) -> list[bool] | None:
    """Which axes of the longer shape are ones that the shorter one has not, if that is all."""

    def marks() -> Iterator[bool]:
        k = 0
        for n in long:
            own = k < len(short) and n == short[k]
            k += own
            yield not own

    found = [*marks()]
    extra = [n for n, unit in zip(long, found, strict=True) if unit]
    fits = len(long) - len(extra) == len(short) and all(n == 1 for n in extra) and extra
    return found if fits else None
