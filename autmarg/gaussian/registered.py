"""Lists of classes that users add, each tried before the built-in ones."""

from __future__ import annotations

from typing import Generic, TypeVar

from autmarg.errors import RequestError

Kind = TypeVar("Kind")


class Registered(list[type[Kind]], Generic[Kind]):
    """Classes with a class method ``method``, in the order in which they were added."""

    def __init__(self, kind: str, method: str, arguments: str) -> None:
        super().__init__()
        self.kind, self.method, self.arguments = kind, method, arguments

    def check(self, each: type[Kind]) -> None:
        """Raise unless a class has the method.

        Raises:
            RequestError: it has not.
        """
        if not callable(getattr(each, self.method, None)):
            raise RequestError(f"{each!r} has no class method {self.method}({self.arguments})")

    def add(self, each: type[Kind], *, replace: bool) -> None:
        """Add a class; with ``replace``, in the place of one of the same module and name.

        Raises:
            RequestError: it has no such method, or it is there already and ``replace`` is false.
        """
        self.check(each)
        known = [i for i, other in enumerate(self) if _name(other) == _name(each)]
        if known and not replace:
            raise RequestError(
                f"a {self.kind} {each.__name__} is registered already; expected another name, or "
                "replace=True to put this one in its place"
            )
        for i in known or [len(self)]:
            self[i : i + 1] = [each]


def _name(each: type) -> tuple[str, str]:
    return each.__module__, each.__qualname__
