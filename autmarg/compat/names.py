"""Names of traced programs that hold from one process to the next.

A name says all that an executable is made of: the equations of the program, the versions and the
options that decide what they mean, and this package's own files. It is given to a program only
where nothing else can change under it: each primitive is JAX's or this package's own, and no
parameter is a function, or an object, of anybody else. Other programs have no name.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from autmarg.compat.fingerprint import Fingerprint
from autmarg.compat.jaxprs import WITH_DERIVATIVE, ClosedJaxpr, Op, Param, Primitive, is_jaxs

_PACKAGE = Path(__file__).parents[1]
_OURS = ("jax", "jaxlib", "numpy", "builtins", "autmarg")
_own: set[Primitive] = set()


def register(primitive: Primitive) -> None:
    """Say that a primitive's rules are in this package's files."""
    _own.add(primitive)


def name_of(closed: ClosedJaxpr, *others: Any) -> str | None:
    """A program's name, or None.

    The numbers that it closes over are arguments of its executable: only their shapes and types
    count.

    Args:
        closed: the program, which is not differentiated any more.
        others: what else decides on the executable: text, functions of this package.
    """
    if jax.default_backend() != "cpu":
        return None  # what lowering sets up for other backends is not known here
    _set_up()
    found = _Lasting()
    consts = [
        f"{x.dtype} {x.shape}" if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in closed.consts
    ]
    found.feed(_files(), _options(), ClosedJaxpr(closed.jaxpr, consts), others)
    return found.hexdigest() if found.comparable else None


class _Lasting(Fingerprint):
    """A hash by which equal programs of different processes are equal."""

    def equation(self, primitive: Primitive, params: Mapping[str, Any]) -> None:
        if not (is_jaxs(primitive) or primitive in _own):
            self.comparable = False
        if Op.of(primitive) in WITH_DERIVATIVE:  # of which there is nothing but the call
            params = {Param.CALL_JAXPR: params[Param.CALL_JAXPR]}
        super().equation(primitive, params)

    def _derivative(self, primitive: Primitive, params: Mapping[str, Any]) -> None:
        pass

    def _function(self, function: types.FunctionType) -> None:
        if function.__closure__ or not _is_ours(function):
            self.comparable = False
        self._text("function", function.__module__, function.__qualname__)

    def _identity(self, kind: str, value: Any) -> None:
        if not _is_ours(value):
            self.comparable = False
        self._text(kind, value.__module__, value.__qualname__)

    def _equality(self, value: Any) -> None:
        """Meshes and shardings: of one device there are none."""
        if not getattr(value, "empty", False):
            self.comparable = False
        self._text("empty", type(value).__qualname__)


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in _OURS


@cache
def _set_up() -> None:
    """Load LAPACK, which programs call: JAX does so when it lowers the first one that does."""
    root = partial(jax.lax.linalg.cholesky, symmetrize_input=False)
    jax.jit(root).lower(jax.ShapeDtypeStruct((1, 1), jnp.float32))


@cache
def _files() -> str:
    """This package's files, by their content."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _options() -> str:
    """JAX's options; those of a context, too, where programs depend on them."""
    return repr([(name, getattr(jax.config, name, "")) for name in sorted(jax.config.values)])


__all__ = ["name_of", "register"]
