"""A traced program in a file, beside its text: JSON for its structure, NumPy's format for arrays.

Nothing in the file is executed when it is read: it holds values of a closed set of types, JAX's
primitives by name, NumPyro's distributions by class. What is not in the set is refused in words.
Bodies of primitives (of a scan, say) are tapes of their own, traced again when they are read. Since
names and parameters of primitives are JAX's own business, a file is read under the versions that it
was written under only.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from autmarg.compat.jaxprs import ClosedJaxpr, Op, Param, exported, is_jaxs, jaxpr_as_fun
from autmarg.compat.numpyro import array_fields, static_fields
from autmarg.compat.pytrees import PyTreeDef, TreeNode, node_of, tree_of
from autmarg.errors import ModelError, Place, Refusal, RequestError
from autmarg.ir import nodes
from autmarg.ir.program import Program
from autmarg.ir.tape import Equation, Tape, body_tape

_CLASSES = {
    each.__name__: each
    for each in (
        Program, Tape, Place, Refusal, nodes.Plate, nodes.Static, nodes.Structure,
        nodes.DistributionSpec, nodes.Sample, nodes.Observe, nodes.Deterministic, nodes.Factor,
        nodes.Param,
    )
}  # fmt: skip
_FIELDS = repr([(name, [f.name for f in fields(kind)]) for name, kind in _CLASSES.items()])
_VERSIONS = {
    "jax": jax.__version__,
    "numpyro": numpyro.__version__,
    "nodes": hashlib.blake2b(_FIELDS.encode(), digest_size=4).hexdigest(),
}
_PLAIN = (bool, int, float, str, type(None))
_SEQUENCES = {"tuple": tuple, "list": list, "frozenset": frozenset}
_NOTED = {"dict": dict, "OrderedDict": OrderedDict}


def save(program: Program, path: Path, notes: Mapping[str, Any]) -> None:
    """Write a program as traced, with notes (of plain values) for who reads it.

    Raises:
        RequestError: it holds what has no place in a file; says what, and at which site or line.
    """
    if program.plan is not None:
        raise RequestError(
            f"the program '{program.name}' has been through passes, whose schedules cannot be "
            "stored: expected the program as traced; run the passes again where it is read"
        )
    writer = _JsonWriter()
    written = {"program": writer.write(live(program)), "rules": writer.rules}
    content = {"versions": _VERSIONS, "notes": dict(notes), **written}
    with path.open("wb") as file:
        arrays: dict[str, Any] = {"json": np.array(json.dumps(content)), **writer.arrays}
        np.savez_compressed(file, **arrays)


def live(program: Program) -> Program:
    """The program without expressions that no site reads."""
    roots = {v for node in program.nodes for v in node.numbers}
    return replace(program, tape=_sliced(program.tape, roots))


def _sliced(tape: Tape, roots: set[int]) -> Tape:
    equations = tuple(tape.slice(roots))
    read = roots | {v for equation in equations for v in equation.inputs}
    constants = {v: c for v, c in tape.constants.items() if v in read}
    return replace(tape, equations=equations, constants=constants)


def load(path: Path) -> tuple[Program, dict[str, Any]]:
    """The program and the notes of a file.

    Raises:
        RequestError: there is no such file, or it was written by something else.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        content = json.loads(str(arrays.pop("json")))
        versions = content["versions"]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise RequestError(f"{path} is no store of a program: {error}") from error
    if versions != _VERSIONS:
        was, now = (", ".join(f"{k} {v}" for k, v in x.items()) for x in (versions, _VERSIONS))
        raise RequestError(f"{path} was written under {was}, this is {now}: write it again")
    return _JsonReader(arrays, content["rules"]).read(content["program"]), content["notes"]


class _JsonWriter:
    """Values as JSON; ``arrays`` are beside it."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.rules: list[Any] = []  # functions with their own derivatives
        self.open: dict[str, int] = {}  # those whose rule is being written
        self.where = "the program"

    def write(self, value: Any) -> Any:
        """A plain value, or {kind: content}."""
        if type(value) in _PLAIN:
            return value
        kind = type(value).__name__
        if kind in _SEQUENCES and type(value) is _SEQUENCES[kind]:
            items = sorted(value) if kind == "frozenset" else value
            return {kind: [self.write(v) for v in items]}
        if isinstance(value, Mapping):
            kind = kind if kind in _NOTED else "dict"
            return {kind: [[self.write(k), self.write(v)] for k, v in value.items()]}
        if isinstance(value, Equation):
            return self._equation(value)
        if is_dataclass(value) and _CLASSES.get(kind) is type(value):
            self.where = f"'{value.name}'" if isinstance(value, nodes.Node) else self.where
            return {"class": [kind, [self.write(getattr(value, f.name)) for f in fields(value)]]}
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(value)
        if isinstance(value, jax.ShapeDtypeStruct):
            return {"aval": [list(value.shape), self._dtype(value.dtype)]}
        if isinstance(value, np.dtype):
            return {"dtype": self._dtype(value)}
        if isinstance(value, ClosedJaxpr):
            tape, outputs = body_tape(value)
            return {"body": [self.write(_sliced(tape, {*outputs})), list(outputs)]}
        if isinstance(value, PyTreeDef):
            return self._tree(value, itertools.count())
        if isinstance(value, enum.Enum):
            return {"enum": [self._class(type(value)), value.name]}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"named": [self._class(type(value)), [self.write(v) for v in value]]}
        raise self._refused(f"a value of {type(value).__module__}.{kind}")

    def _refused(self, what: str) -> RequestError:
        return RequestError(
            f"{self.where} holds {what}, which cannot be stored: expected numbers, arrays, "
            "NumPyro's distributions and JAX's primitives; keep the program in memory instead"
        )

    def _equation(self, equation: Equation) -> Any:
        name, params = equation.name, dict(equation.params)
        self.where = f"{name} at {equation.place}" if equation.place else name
        if equation.op is Op.CUSTOM_JVP_CALL:
            params = {"rule": self._rule(equation)}
        elif not is_jaxs(equation.primitive):
            raise self._refused(f"the primitive '{name}', which JAX does not export,")
        place = self.write(equation.place)
        return {"eqn": [name, self.write(params), equation.inputs, equation.outputs, place]}

    def _rule(self, equation: Equation) -> int:
        """The number of a function with its rule of derivatives, in which it may call itself."""
        call: ClosedJaxpr = equation.params[Param.CALL_JAXPR]
        key = str(call.jaxpr)
        if key not in self.open:
            self.open[key] = len(self.rules)
            self.rules.append(None)
            self.rules[self.open[key]] = [self.write(call), self.write(_slopes(equation))]
            return self.open.pop(key)
        return self.open[key]

    def _array(self, value: Any) -> Any:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype.kind not in "biufc":
            raise self._refused(f"an array of {value.dtype}")
        name = f"a{len(self.arrays)}"
        self.arrays[name] = np.asarray(value)
        return {"number" if isinstance(value, np.generic) else "array": name}

    def _dtype(self, dtype: Any) -> str:
        if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return jnp.dtype(dtype).name
        if dtype != _key_type():
            raise self._refused(f"a random key of another kind than {_key_type()}")
        return "key"

    def _tree(self, tree: Any, leaves: Iterator[int]) -> Any:
        """With NumPyro's fields by name: their order is another in each process."""
        node = node_of(tree)
        if node is None:
            return {"leaf": next(leaves)}
        kind, static = node
        children = [self._tree(child, leaves) for child in tree.children()]
        if not issubclass(kind, dist.Distribution):
            return {"tree": [self._class(kind), self.write(static), children]}
        if len(names := static_fields(kind)) != len(static):
            raise self._refused(f"a {kind.__name__}, which is no pytree as NumPyro has them,")
        known = {n: self.write(v) for n, v in zip(names, static, strict=True)}
        filled = dict(zip(array_fields(kind), children, strict=True))
        return {"distribution": [self._class(kind), known, filled]}

    def _class(self, kind: type) -> str:
        name = f"{kind.__module__}:{kind.__qualname__}"
        if not _known(name):
            raise self._refused(f"a {name.replace(':', '.')}")
        return name


class _JsonReader:
    """Values from JSON and arrays."""

    def __init__(self, arrays: Mapping[str, np.ndarray], rules: list[Any]) -> None:
        self.arrays, self.rules = arrays, rules

    def read(self, value: Any) -> Any:
        """What :class:`_JsonWriter` wrote."""
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](map(self.read, content))
        if kind in _NOTED:
            return _NOTED[kind]((self.read(k), self.read(v)) for k, v in content)
        return getattr(self, f"_{kind}")(content)

    def _class(self, content: Any) -> Any:
        kind, values = content
        made = _CLASSES[kind]
        found = dict(zip((f.name for f in fields(made)), values, strict=True))
        if not issubclass(made, nodes.Structure):
            return made(**{name: self.read(value) for name, value in found.items()})
        order: list[int] = []
        tree, leaves = self._tree(found.pop("treedef"), order), self.read(found.pop("leaves"))
        own = {name: self.read(value) for name, value in found.items()}
        return made(treedef=tree, leaves=tuple(leaves[k] for k in order), **own)

    def _array(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def _number(self, name: str) -> Any:
        return self.arrays[name][()]

    def _dtype(self, name: str) -> Any:
        return _key_type() if name == "key" else jnp.dtype(name)

    def _aval(self, content: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(content[0]), self._dtype(content[1]))

    def _tree(self, content: Any, leaves: list[int]) -> Any:
        """The tree; ``leaves`` get the numbers that its leaves had, in their order now."""
        ((kind, inside),) = content.items()
        if kind == "leaf":
            leaves.append(inside)
            return jax.tree.structure(0)
        found, static, children = _found(inside[0]), inside[1], inside[2]
        if kind == "tree":
            static = self.read(static)
        else:
            static = tuple(self.read(static[name]) for name in static_fields(found))
            children = [children[name] for name in array_fields(found)]
        within = [self._tree(child, leaves) for child in children]
        return tree_of(TreeNode(found, static), within, 0)

    def _enum(self, content: Any) -> Any:
        return _found(content[0])[content[1]]

    def _named(self, content: Any) -> Any:
        return _found(content[0])(*map(self.read, content[1]))

    def _body(self, content: Any) -> ClosedJaxpr:
        run, avals = _function(self.read(content[0]), content[1])
        return jax.make_jaxpr(run)(*avals)

    def _eqn(self, content: Any) -> Equation:
        name, params, inputs, outputs, place = content
        params, primitive = self.read(params), exported(name)
        if name == Op.CUSTOM_JVP_CALL:
            (made,) = self._with_rule(*self.rules[params["rule"]]).jaxpr.eqns
            primitive, params = made.primitive, dict(made.params)
        if primitive is None:
            raise ModelError(f"the store has the primitive '{name}', which JAX does not export")
        return Equation(primitive, params, tuple(inputs), tuple(outputs), self.read(place))

    def _with_rule(self, call: Any, rule: Any) -> ClosedJaxpr:
        """One call of a function that has its own rule of derivatives."""
        closed = self.read(call)
        body = jaxpr_as_fun(closed)

        @jax.custom_jvp
        def run(*values: Any) -> list[Any]:
            return body(*values)

        @run.defjvp
        def _(values: Any, tangents: Any) -> tuple[Any, Any]:
            slopes = jaxpr_as_fun(self.read(rule))  # read late, since it may call the function
            return run(*values), slopes(*values, *tangents)

        return jax.make_jaxpr(run)(*closed.in_avals)


@cache
def _key_type() -> Any:
    return jax.eval_shape(jax.random.key, 0).dtype


def _known(name: str) -> bool:
    """Whether a class is JAX's, NumPyro's or Python's own."""
    return name.partition(":")[0].partition(".")[0] in ("jax", "numpyro", "builtins")


def _found(name: str) -> Any:
    """The class of a name.

    Raises:
        ModelError: it is none that a store may name.
    """
    module, _, attribute = name.partition(":")
    kind = getattr(importlib.import_module(module), attribute, None) if _known(name) else None
    if not isinstance(kind, type):
        raise ModelError(f"the store names {name}, expected a class of JAX or NumPyro")
    return kind


def _function(tape: Tape, outputs: list[int]) -> tuple[Callable[..., list[Any]], list[Any]]:
    """A body as a function of its inputs in their order, with their shapes."""

    def run(*values: Any) -> list[Any]:
        return tape.evaluate(outputs, {str(k): v for k, v in enumerate(values)})

    return run, [tape.avals[tape.inputs[str(k)]] for k in range(len(tape.inputs))]


def _slopes(equation: Equation) -> ClosedJaxpr:
    """(values, tangents) → tangents of a function's outputs, by its own rule."""
    avals = equation.params[Param.CALL_JAXPR].in_avals

    def rule(*both: Any) -> Any:
        values, tangents = both[: len(avals)], both[len(avals) :]
        return jax.jvp(lambda *v: equation.bind(*v), values, tangents)[1]

    return jax.make_jaxpr(rule)(*avals, *avals)


__all__ = ["load", "save"]
