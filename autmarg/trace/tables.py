"""Whole tables as arguments: the columns that a model takes out of one are arrays."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

_MARK = "_autmarg_converts"


def as_table(table: Any, convert: Callable[[Any], Any]) -> Any:
    """A table whose columns come out as ``convert`` makes them.

    One of pandas stays an instance of its class, for the functions that ask; its library sees it as
    it is. Any other is wrapped.
    """
    if hasattr(table, "iloc"):
        view = table.copy(deep=False)
        view.__class__ = _seen_by_users(type(table), convert)
        return view
    return _Wrapped(table, convert)


@functools.cache
def _seen_by_users(kind: type, convert: Callable[[Any], Any]) -> type:
    """A subclass of a pandas table; columns are converted unless the library itself asks."""
    library = kind.__module__.partition(".")[0]

    def asked_by_library() -> bool:
        return sys._getframe(2).f_globals.get("__name__", "").partition(".")[0] == library

    def getitem(self: Any, key: Any) -> Any:
        found = kind.__getitem__(self, key)  # pyright: ignore[reportAttributeAccessIssue]
        return found if asked_by_library() else convert(found)

    def getattribute(self: Any, name: str) -> Any:
        found = kind.__getattr__(self, name)  # pyright: ignore[reportAttributeAccessIssue]
        return found if asked_by_library() else convert(found)

    own = {"__getitem__": getitem, "__getattr__": getattribute, _MARK: True}
    own["__module__"] = kind.__module__
    return type(kind.__name__, (kind,), own)


def is_converted(table: Any) -> bool:
    """Whether a table is what :func:`as_table` returns."""
    return hasattr(type(table), _MARK)


class _Wrapped:
    """A table of another library."""

    _autmarg_converts = True

    def __init__(self, table: Any, convert: Callable[[Any], Any]) -> None:
        self._table, self._convert = table, convert

    def __getitem__(self, key: Any) -> Any:
        return self._convert(self._table[key])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._table, name)
        if not callable(found):
            return self._convert(found)

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._convert(found(*args, **kwargs))

        return call

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Any]:
        return map(self._convert, self._table)

    def __contains__(self, key: Any) -> bool:
        return key in self._table

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self._table.__array__(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._table)


__all__ = ["as_table", "is_converted"]
