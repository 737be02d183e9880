"""The user's model, which also takes columns of tables for arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from autmarg.trace.columns import as_arrays, with_arrays
from autmarg.trace.record import name_of


class Source:
    """The user's model, which also takes columns of tables for arrays."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())
        self.__name__ = name_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = as_arrays(args, kwargs)
        return with_arrays(self.fn)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<source {self.__name__}>"
