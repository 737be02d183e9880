"""Programs and plans as bytes: what they say survives, what only this process can run does not.

Trees of pytrees and primitives are written by what they are made of, arrays and dataclasses as
ever. A function that cannot be imported, and a jaxpr, become a :class:`Lost`; a density that needs
one says so. Plans that are read back print and explain themselves as before.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from autmarg.compat.jaxprs import ClosedJaxpr, Jaxpr, Primitive, exported
from autmarg.compat.pytrees import PyTreeDef, node_of, tree_of
from autmarg.errors import RequestError

_SHALLOW = (TypeError, AttributeError, pickle.PicklingError, NotImplementedError)


class Lost:
    """What could not be written, and cannot be run."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse.

        Raises:
            RequestError: always; it says what to do instead.
        """
        raise RequestError(
            f"a {self.kind} of this program was left behind when it was pickled: expected only to "
            "be looked at; make it anew with marg.plan(*args) or marg.program(*args)"
        )

    def __repr__(self) -> str:
        return f"<{self.kind}, left behind>"


class AsValue:
    """Copied as itself, being immutable, and pickled with what can be written of it."""

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def shown(self) -> dict[str, Any]:
        """Attributes that are computed before what they are computed from is lost."""
        return {}

    def __reduce__(self) -> Any:
        file = io.BytesIO()
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(self)
        return pickle.loads, (file.getvalue(),)


class _Pickler(pickle.Pickler):
    """Writes trees and primitives, and leaves behind what it cannot write."""

    def reducer_override(self, obj: Any, /) -> Any:
        """How one object is written."""
        if isinstance(obj, AsValue):
            return _bare, (type(obj),), {**vars(obj), **obj.shown()}
        if isinstance(obj, PyTreeDef):
            return tree_of, (node_of(obj), obj.children(), obj.num_leaves)
        if isinstance(obj, Primitive):
            return _primitive, (obj.name,)
        if isinstance(obj, Jaxpr | ClosedJaxpr) or _is_key(obj):
            return Lost, (type(obj).__name__,)
        if isinstance(obj, type | types.FunctionType):
            return NotImplemented if _is_importable(obj) else (Lost, (type(obj).__name__,))
        try:
            found = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        except _SHALLOW:
            return Lost, (type(obj).__name__,)
        made_by = obj if isinstance(found, str) else found[0]
        if isinstance(made_by, types.FunctionType | type | str) and not _is_importable(made_by):
            return Lost, (type(obj).__name__,)
        return NotImplemented


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended)


def _is_importable(value: Any) -> bool:
    """Whether a class or function is found under its own name."""
    found: Any = sys.modules.get(getattr(value, "__module__", "") or "")
    for part in getattr(value, "__qualname__", "<none>").split("."):
        found = getattr(found, part, None)
    return found is value


def _bare(kind: type) -> Any:
    return object.__new__(kind)


@cache
def _primitive(name: str) -> Primitive:
    """The primitive that JAX exports under a name, or one that has only the name."""
    return exported(name) or Primitive(name)


__all__ = ["AsValue", "Lost"]
