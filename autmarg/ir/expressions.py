"""From the tape to expressions that a person reads: the user's arithmetic, written out.

Reshapes, casts and broadcasts along leading axes are understood and not written. What has no
notation is a *fragment*: a named function of the latents that it reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.jaxprs import Op, Param
from autmarg.ir.shapes import broadcasts, fitted, shape_of
from autmarg.ir.tape import Equation, Tape
from autmarg.ir.text import Apply, Atom, Declaration, Expression, atoms

HOLE = "hole"  # the primitive of an expression whose meaning is in a store that is not there
LONGEST = 240  # characters of an expression that is written out
_INFIX = {
    Op.ADD: "+", Op.ADD_ANY: "+", Op.SUB: "-", Op.MUL: "*", Op.DIV: "/", Op.POW: "**",
}  # fmt: skip
_CALLS = frozenset({  # functions of the language have JAX's names
    Op.EXP, Op.LOG, Op.LOG1P, Op.EXPM1, Op.SQRT, Op.RSQRT, Op.TANH, Op.LOGISTIC, Op.SIN, Op.COS,
    Op.ABS, Op.SIGN, Op.MAX, Op.MIN, Op.ERF, Op.FLOOR, Op.SQUARE,
})  # fmt: skip
_SILENT = frozenset({Op.RESHAPE, Op.SQUEEZE, Op.CONVERT_ELEMENT_TYPE, Op.COPY, Op.EXPAND_DIMS})


class Writer:
    """Writes values of one tape as expressions, and declares what they name.

    Some of what it declares may stand in no expression in the end: one that became too long, say.

    Args:
        tape: folded, so that what is known is a constant.
        names: content of an array (see :func:`content`) → what the user calls it.
        sites: names that constants must not take.
    """

    def __init__(self, tape: Tape, names: Mapping[str, str], sites: frozenset[str]) -> None:
        self.tape, self.names, self.sites = tape, names, sites
        self.declared: dict[str, Declaration] = {}
        self.arrays: dict[str, Any] = {}  # declared constants
        self.fragments: dict[str, int] = {}  # declared fragments, by their number on the tape
        self._written: dict[int, Expression] = {}
        self._called: dict[str, str] = {}  # content → name of a constant

    @cached_property
    def _inputs(self) -> dict[int, str]:
        return {v: name for name, v in self.tape.inputs.items()}

    @cached_property
    def _hollow(self) -> bool:
        return any(e.name == HOLE for e in self.tape.equations)

    def write(self, number: int) -> Expression:
        """The expression of a value; an array of its shape, or one that broadcasts to it."""
        if number not in self._written:
            found, shape = self._expression(number), self._shape(number)
            own = self._own_shape(found, shape)
            if not broadcasts(own, shape):
                found = fitted(found, own, shape)
            self._written[number] = found
        return self._written[number]

    def _whole(self, number: int) -> Expression:
        """The expression of a value, an array of its shape."""
        found, shape = self.write(number), self._shape(number)
        own = self._own_shape(found, shape)
        return found if own == shape else fitted(found, own, shape)

    def _own_shape(self, expression: Expression, otherwise: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an expression as it stands; what has no meaning has any."""
        return otherwise if self._hollow else shape_of(expression, self._known_shape)

    def _known_shape(self, name: str) -> tuple[int, ...]:
        if name in self.fragments:
            return self._shape(self.fragments[name])
        return (
            self.arrays[name].shape if name in self.arrays else self._shape(self.tape.inputs[name])
        )

    def _expression(self, number: int) -> Expression:
        if number in self._inputs:
            return Atom("name", self._inputs[number])
        if number in self.tape.constants:
            return self._constant(self.tape.constants[number])
        equation = self.tape.producer(number)
        assert equation is not None
        if equation.name == HOLE:  # a program read from text without its store
            self.declared |= equation.params["declared"]
            return equation.params["expression"]
        found = self._apply(equation)
        if found is not None and len(str(found)) <= LONGEST:
            named = frozenset(a.text for a in atoms(found) if a.kind == "name")
            if named == self.tape.dependencies([number]):
                return found
        return self._fragment(number)

    def _apply(self, equation: Equation) -> Expression | None:
        op, params = equation.op, equation.params
        if op in _INFIX:
            return self._infix(_INFIX[op], equation)
        if op in _CALLS:
            return Apply(equation.name, tuple(self.write(v) for v in equation.inputs))
        if op in _SILENT:
            return self._squeezed(equation) or self.write(equation.inputs[0])
        if op is Op.NEG:
            return Apply("neg", (self.write(equation.inputs[0]),))
        if op is Op.INTEGER_POW:
            power = Atom("number", str(params[Param.Y]))
            return Apply("**", (self.write(equation.inputs[0]), power))
        if op is Op.BROADCAST_IN_DIM:
            return self._broadcast(equation)
        if op is Op.GATHER:
            return self._gather(equation)
        if op is Op.SLICE:
            return self._slice(equation)
        if op is Op.DOT_GENERAL:
            return self._product(equation)
        if op is Op.TRANSPOSE:
            ndim = len(params[Param.PERMUTATION])
            flipped = tuple(params[Param.PERMUTATION]) == tuple(range(ndim))[::-1]
            return Apply("T", (self._whole(equation.inputs[0]),)) if flipped else None
        if op is Op.SELECT_N and len(equation.inputs) == 3:
            which, no, yes = (self.write(v) for v in equation.inputs)
            return Apply("where", (which, yes, no))
        if op is Op.STACK or (op is Op.CONCATENATE and params[Param.DIMENSION] == 0):
            return Apply(equation.name, tuple(self._whole(v) for v in equation.inputs))
        if op is Op.REDUCE_SUM:
            return self._sum(equation)
        if op is Op.CUMSUM and not params[Param.REVERSE]:
            axis = Atom("number", str(params[Param.AXIS]))
            return Apply("cumsum", (self._whole(equation.inputs[0]), axis))
        return None

    def _sum(self, equation: Equation) -> Expression:
        """``sum(a)``, or ``n * a`` of n times the same number."""
        inner, shape = equation.inputs[0], self._shape(equation.inputs[0])
        axes = equation.params[Param.AXES]
        rest = () if len(axes) == len(shape) else tuple(Atom("number", str(a)) for a in axes)
        found = self.write(inner)
        if not rest and shape and self._own_shape(found, shape) == ():
            return Apply("*", (Atom("number", str(int(np.prod(shape)))), found))
        return Apply("sum", (self._whole(inner), *rest))

    def _infix(self, operator: str, equation: Equation) -> Expression:
        left, right = (self.write(v) for v in equation.inputs)
        if operator == "+" and isinstance(right, Apply) and right.function == "neg":
            return Apply("-", (left, right.arguments[0]))
        zero, one = Atom("number", "0"), Atom("number", "1")
        if operator == "+" and zero in (left, right):
            return right if left == zero else left
        if operator == "*" and one in (left, right):
            return right if left == one else left
        if right == (zero if operator == "-" else one) and operator in "-/":
            return left
        return Apply(operator, (left, right))

    def _shape(self, number: int) -> tuple[int, ...]:
        return tuple(self.tape.avals[number].shape)

    def _broadcast(self, equation: Equation) -> Expression:
        """An operand with new leading axes is itself, one with new trailing axes ``a[:, new]``."""
        inner = self.write(equation.inputs[0])
        shape, to = self._shape(equation.inputs[0]), equation.params[Param.BROADCAST_DIMENSIONS]
        new = len(equation.params[Param.SHAPE])
        if int(np.prod(self._own_shape(inner, shape))) <= 1 or not to:
            return inner
        if list(to) == list(range(new - len(to), new)):
            return inner
        inner = self._whole(equation.inputs[0])
        entries = tuple(_entry(":" if k in to else "new") for k in range(to[0], new))
        return Apply("[]", (inner, *entries))

    def _gather(self, equation: Equation) -> Expression | None:
        """``u[index, 0, :]``, where every axis is picked from or taken whole."""
        operand, index = equation.inputs
        numbers, sizes = (
            equation.params[Param.DIMENSION_NUMBERS],
            equation.params[Param.SLICE_SIZES],
        )
        shape, picked = self._shape(operand), numbers.start_index_map
        if picked != numbers.collapsed_slice_dims or index not in self.tape.constants:
            return None
        if any(
            s != n for k, (s, n) in enumerate(zip(sizes, shape, strict=True)) if k not in picked
        ):
            return None
        last = max(picked, default=-1)
        array = np.asarray(self.tape.constants[index])
        entries = []
        for axis in range(last + 1):
            if axis not in picked:
                entries.append(_entry(":"))
                continue
            entries.append(self._constant(array[..., picked.index(axis)]))
        return Apply("[]", (self._whole(operand), *entries)) if entries else self.write(operand)

    def _slice(self, equation: Equation) -> Expression | None:
        params = equation.params
        if params[Param.STRIDES] is not None and any(s != 1 for s in params[Param.STRIDES]):
            return None
        shape = self._shape(equation.inputs[0])
        bounds = list(
            zip(params[Param.START_INDICES], params[Param.LIMIT_INDICES], shape, strict=True)
        )
        whole = [a == 0 and b == n for a, b, n in bounds]
        last = max((k for k, all_ in enumerate(whole) if not all_), default=-1)
        entries = [
            _entry(":" if w else f"{a}:{b}") for (a, b, _), w in zip(bounds, whole, strict=True)
        ]
        inner = self._whole(equation.inputs[0])
        return Apply("[]", (inner, *entries[: last + 1])) if last >= 0 else inner

    def _squeezed(self, equation: Equation) -> Expression | None:
        """``u[:, 0]`` for what is a slice of width one, squeezed."""
        inner = self.tape.producer(equation.inputs[0])
        if equation.op is not Op.SQUEEZE or inner is None or inner.op is not Op.SLICE:
            return None
        found, gone = self._slice(inner), equation.params[Param.DIMENSIONS]
        if not isinstance(found, Apply) or found.function != "[]":
            return None
        entries = [
            Atom("number", e.text.partition(":")[0]) if k in gone and isinstance(e, Atom) else e
            for k, e in enumerate(found.arguments[1:])
        ]
        return Apply("[]", (found.arguments[0], *entries))

    def _product(self, equation: Equation) -> Expression | None:
        (left, right), batch = equation.params[Param.DIMENSION_NUMBERS]
        a, b = (len(self._shape(v)) for v in equation.inputs)
        if any(batch) or len(left) != 1 or max(a, b) > 2:
            return None
        one, two = (self._whole(v) for v in equation.inputs)
        one = one if left[0] == a - 1 else Apply("T", (one,))
        two = two if right[0] == 0 else Apply("T", (two,))
        return Apply("@", (one, two))

    def _constant(self, value: Any) -> Expression:
        """A number where all entries agree, else a named constant."""
        key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        array = np.zeros(0) if key else np.asarray(value)
        if array.size and array.dtype.kind in "iufb" and (array == array.reshape(-1)[0]).all():
            return Atom("number", _number(array.reshape(-1)[0]))
        digest = content(value)
        if digest not in self._called:
            called = self.names.get(digest, "")
            free = called.isidentifier() and called not in self.sites | self.declared.keys()
            self._called[digest] = called if free else self._fresh(f"%{called}", "%c")
        name = self._called[digest]
        self.declared.setdefault(name, Declaration(name, _type(value), "#" + _digest(value)))
        self.arrays.setdefault(name, value)
        return Atom("constant", name)

    def _fresh(self, wanted: str, prefix: str) -> str:
        if wanted[1:].isidentifier() and wanted not in self.declared:
            return wanted
        taken = {*self.declared, *self._called.values()}
        return next(n for k in range(1, len(taken) + 2) if (n := f"{prefix}{k}") not in taken)

    def _fragment(self, number: int) -> Expression:
        reads = tuple(sorted(self.tape.dependencies([number])))
        name = self._fresh("", "%f")
        equations = self.tape.slice([number])
        primitives = tuple(dict.fromkeys(e.name for e in equations))
        aval = self.tape.avals[number]
        self.declared[name] = Declaration(
            name, _type(aval), "#" + self._fingerprint(equations, number), reads, primitives
        )
        self.fragments[name] = number
        return Apply(name, tuple(Atom("name", read) for read in reads))

    def _fingerprint(self, equations: list[Equation], number: int) -> str:
        """A hash of a slice's structure and constants, whatever its numbers are."""
        digest, local = hashlib.blake2b(digest_size=4), {}
        for equation in equations:
            for v in equation.inputs:
                if v in self.tape.constants:
                    digest.update(content(self.tape.constants[v]).encode())
                else:
                    digest.update(str(self._inputs.get(v) or local.get(v)).encode())
            local.update({v: len(local) + k for k, v in enumerate(equation.outputs)})
            digest.update(equation.name.encode())
            digest.update(str(self.tape.avals[equation.outputs[0]]).encode())
        digest.update(str(local.get(number)).encode())
        return digest.hexdigest()


def content(value: Any) -> str:
    """A hash of an array's numbers, whatever its type and shape are."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return "key"
    array = np.asarray(value)
    if array.dtype.kind not in "iufb":
        contents = np.ascontiguousarray(array).tobytes()
        return "other" + hashlib.blake2b(contents, digest_size=8).hexdigest()
    numbers = np.ascontiguousarray(array.reshape(-1), np.float64)
    if array.dtype.kind in "iu" and not (numbers.astype(array.dtype) == array.reshape(-1)).all():
        numbers = array  # beyond 53 bits
    return hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()


def _digest(value: Any) -> str:
    text = f"{value.dtype}{tuple(value.shape)}{content(value)}"
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _type(value: Any) -> str:
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


def _number(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    text = repr(value.item())
    return text[:-2] if text.endswith(".0") else text


def _entry(text: str) -> Atom:
    return Atom("number", text)
