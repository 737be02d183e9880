"""A hash of what a program is made of, by content, so that equal hashes mean equal programs.

Whatever has contents that can be read is hashed by them: arrays, nested jaxprs with their constants
and literals, pytrees, dataclasses, objects by their attributes. A Python callable among a
primitive's parameters (a host callback) may read anything, so nothing that holds one is ever equal
to anything; nor is an object whose contents cannot be seen. A function in a static field of a
distribution is equal to itself as long as what it closes over is unchanged.

Derivative rules of custom functions are traced and hashed as jaxprs.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
import types
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from scipy.sparse import issparse

from autmarg.compat.jaxprs import (
    WITH_DERIVATIVE,
    ClosedJaxpr,
    Jaxpr,
    Literal,
    Op,
    Param,
    Primitive,
    bind,
    own_backward,
)
from autmarg.compat.pytrees import PyTreeDef, node_of, one_level
from autmarg.compat.shards import is_sharded, shards

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis))
_LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy", "scipy", "autmarg", "builtins")
_VALUES = (jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh, jax.Device)
_HEAP_TYPE = 1 << 9  # CPython's flag of a class made by a class statement
_HELD = 1024  # values of JAX's own classes that are remembered to compare others with

_counter = itertools.count()
_tokens: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_equal: dict[Any, int] = {}


class Fingerprint:
    """A running hash; ``comparable`` turns False when something cannot be compared."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._inside: set[int] = set()  # objects and bodies that are being read
        self._rules: set[str] = set()
        self._avals: dict[Any, str] = {}
        self.comparable = True

    def hexdigest(self) -> str:
        """The hash; of what cannot be compared one that no other has."""
        if not self.comparable:
            self._text("unlike", next(_counter))
        return self._digest.hexdigest()

    def feed(self, *values: Any) -> None:
        """Add values of any kind."""
        for value in values:
            self._value(value)

    def equation(self, primitive: Primitive, params: Mapping[str, Any]) -> None:
        """Add a primitive with its parameters."""
        self._text("primitive", primitive.name, len(params))
        derived = Op.of(primitive) in WITH_DERIVATIVE
        for name, value in sorted(params.items()):
            self._text(name)
            if derived and not isinstance(value, (ClosedJaxpr, *_PLAIN)):
                continue  # its functions, which are traced below
            if _holds_callable(value):
                self.comparable = False
            else:
                self._value(value)
        if derived:
            self._derivative(primitive, params)

    def _text(self, *parts: object) -> None:
        for part in parts:
            self._written(str(part))

    def _written(self, text: str) -> None:
        encoded = text.encode()
        self._digest.update(b"%d:%b" % (len(encoded), encoded))

    def _aval(self, aval: Any) -> None:
        """The type of a value, of which a program has few."""
        if aval not in self._avals:
            self._avals[aval] = str(aval)
        self._written(self._avals[aval])

    def _value(self, value: Any) -> None:
        if isinstance(value, Tracer):
            self.comparable = False
        elif isinstance(value, enum.Enum):
            self._text("enum", type(value).__qualname__, value.name)
        elif isinstance(value, _PLAIN):
            self._text(type(value).__name__, repr(value))
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            self._array(value)
        elif isinstance(value, np.dtype) or jnp.issubdtype(type(value), jax.dtypes.extended):
            self._text("dtype", value)
        elif isinstance(value, Jaxpr):
            self._jaxpr(value, ())
        elif isinstance(value, ClosedJaxpr):
            self._jaxpr(value.jaxpr, value.consts)
        elif isinstance(value, PyTreeDef):
            self._treedef(value)
        elif isinstance(value, type):
            self._identity("class", value)
        elif isinstance(value, types.ModuleType):
            self._text("module", value.__name__)
        elif isinstance(value, _VALUES):
            self._equality(value)
        elif id(value) in self._inside:
            self._text("again")
        else:
            self._inside.add(id(value))
            self._composite(value)
            self._inside.discard(id(value))

    def _composite(self, value: Any) -> None:
        """What is made of other values."""
        if isinstance(value, dict):
            self._text("dict", len(value))
            self._identity("class", type(value))
            for key, entry in value.items():
                self.feed(key, entry)
        elif isinstance(value, tuple | list):
            self._text("sequence", len(value))
            self._identity("class", type(value))
            self.feed(*value)
        elif isinstance(value, set | frozenset):
            self._text("set", *sorted(self._apart(entry) for entry in value))
        elif issparse(value):
            entries = value.tocoo()
            self._text("sparse", value.format, value.shape)
            self.feed(entries.row, entries.col, entries.data)
        elif isinstance(value, functools.partial):
            self._text("partial")
            self.feed(value.func, value.args, value.keywords)
        elif isinstance(value, types.MethodType):
            self._text("method")
            self.feed(value.__func__, value.__self__)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif (node := one_level(value)) is not None:
            self._identity("node", type(value))
            self.feed(*node)
        elif is_dataclass(value):
            self._identity("dataclass", type(value))
            self.feed(*(getattr(value, f.name, None) for f in fields(value)))
        elif _is_open(value):
            self._identity("object", type(value))
            self.feed(dict(sorted(getattr(value, "__dict__", {}).items())))
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
            self._identity("builtin", value)
        else:
            self.comparable = False

    def _apart(self, value: Any) -> str:
        """The hash of one value of a set."""
        own = Fingerprint()
        own.feed(value)
        self.comparable &= own.comparable
        return own._digest.hexdigest()

    def _array(self, value: Any) -> None:
        if value.dtype == object:
            self._text("objects", value.shape)
            self.feed(*np.asarray(value).reshape(-1).tolist())
            return
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            self._text("key", value.dtype)
            with jax.ensure_compile_time_eval():
                value = jax.random.key_data(value)
        self._text(value.dtype, value.shape)
        if is_sharded(value):
            self._equality(value.sharding)
        for _, part in shards(value) if is_sharded(value) else ((None, value),):
            self._digest.update(np.ascontiguousarray(part).tobytes())

    def _jaxpr(self, jaxpr: Jaxpr, constants: Iterable[Any]) -> None:
        """A body, whatever its variables are called."""
        numbers: dict[Any, int] = {}

        def define(variables: Iterable[Any]) -> None:
            for variable in variables:
                numbers[variable] = len(numbers)
                self._aval(variable.aval)

        def read(atoms: Iterable[Any]) -> None:
            for atom in atoms:
                if isinstance(atom, Literal):
                    self._text("literal", atom.aval)
                    self._value(atom.val)
                else:
                    self._text(numbers[atom])

        self._text("jaxpr", len(jaxpr.invars), len(jaxpr.constvars), len(jaxpr.eqns))
        define([*jaxpr.invars, *jaxpr.constvars])
        self.feed(list(constants))
        for eqn in jaxpr.eqns:
            self.equation(eqn.primitive, eqn.params)
            read(eqn.invars)
            define(eqn.outvars)
        read(jaxpr.outvars)

    def _derivative(self, primitive: Primitive, params: Mapping[str, Any]) -> None:
        """The rule of a custom derivative; one that calls its own function is read once."""
        call = params[Param.CALL_JAXPR]
        own = Fingerprint()
        own._rules = self._rules
        own.feed(call)
        name = primitive.name + own._digest.hexdigest()
        if name in self._rules:
            self._text("again")
            return
        self._rules.add(name)
        self.feed(_rule(primitive, params))
        if (backward := own_backward(params)) is not None:
            # It may be wrong, which is found when a gradient is taken.
            self.feed(backward)
        self._rules.discard(name)

    def _treedef(self, treedef: Any) -> None:
        node = node_of(treedef)
        children = treedef.children()
        self._text("tree", treedef.num_leaves, len(children))
        if node is not None:
            self.feed(*node)
        for child in children:
            self._treedef(child)

    def _function(self, function: types.FunctionType) -> None:
        """The very function, with what it closes over; a library's own by its name."""
        if function.__module__.partition(".")[0] in _LIBRARIES and not function.__closure__:
            self._text("function", function.__module__, function.__qualname__)
            return
        self._identity("function", function)
        names = _names(function.__code__)
        cells = [c.cell_contents for c in function.__closure__ or () if c != types.CellType()]
        outside = {n: v for n, v in function.__globals__.items() if n in names}
        self.feed(cells, function.__defaults__, function.__kwdefaults__, outside)

    def _identity(self, kind: str, value: Any) -> None:
        """A class or function is equal to itself, for as long as it lives."""
        if kind == "builtin":
            self._text(kind, value.__name__, getattr(value, "__module__", ""))
            return
        if isinstance(value, type) and value.__module__.partition(".")[0] in _LIBRARIES:
            self._text(kind, value.__module__, value.__qualname__)
            return
        if value not in _tokens:
            _tokens[value] = next(_counter)
        self._text(kind, _tokens[value])

    def _equality(self, value: Any) -> None:
        """Values of JAX's own classes, which say themselves what they are equal to."""
        if value not in _equal:
            while len(_equal) >= _HELD:
                _equal.pop(next(iter(_equal)))
            _equal[value] = next(_counter)
        self._text("equal", _equal[value])


def _holds_callable(value: Any) -> bool:
    """Whether a primitive's parameter is, or has in a field, a Python callable."""
    if isinstance(value, tuple | list):
        return any(map(_holds_callable, value))
    if isinstance(value, dict):
        return any(map(_holds_callable, value.values()))
    known = (Jaxpr, ClosedJaxpr, type, np.dtype, PyTreeDef, *_VALUES)
    return callable(value) and not isinstance(value, known)


def _is_open(value: Any) -> bool:
    """Whether all that an object has is in its attributes: its classes are written in Python."""
    bases = [kind for kind in type(value).__mro__ if kind is not object]
    python = all(kind.__flags__ & _HEAP_TYPE for kind in bases)
    slots = any(vars(kind).get("__slots__") for kind in bases)
    return bool(bases) and python and not slots


def _names(code: types.CodeType) -> set[str]:
    """Global names that a function's code, and the code inside it, may read."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _rule(primitive: Primitive, params: Mapping[str, Any]) -> ClosedJaxpr:
    """A custom function's own rule, traced: its derivative, or what it keeps to go backwards."""
    avals = params[Param.CALL_JAXPR].in_avals
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals)

    def call(*values: Any) -> Any:
        return bind(primitive, params, *values)

    def forwards(values: Any, tangents: Any) -> Any:
        return jax.jvp(call, values, tangents)

    if Op.of(primitive) is Op.CUSTOM_JVP_CALL:
        return jax.make_jaxpr(forwards)(shapes, tuple(map(_tangent, shapes)))
    closed = params[Param.NUM_CONSTS]  # what the function closes over, which has no derivative

    def backwards(values: Any) -> Any:
        return jax.vjp(lambda *own: call(*values[:closed], *own), *values[closed:])[0]

    return jax.make_jaxpr(backwards)(shapes)


def _tangent(aval: Any) -> jax.ShapeDtypeStruct:
    real = jnp.issubdtype(aval.dtype, jnp.inexact)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype if real else jax.dtypes.float0)


__all__ = ["Fingerprint"]
