"""What an expression is as a function of one latent x: c · xᵖ · (1 - x)^q, element by element.

The slice of the tape that an argument of a distribution needs is interpreted with three kinds of
value: known (a NumPy array), opaque (depends on other latents only), and :class:`Monomial`: each
element is a coefficient times powers of one element of x, or the logarithm of that. So
``tau**-0.5``, ``rsqrt(tau)``, ``sqrt(1 / tau)`` and ``exp(-0.5 * log(tau))`` are one and the same.
Primitives that only move entries are applied to an array of x's element numbers. Everything else
is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.naming import spelled
from autmarg.analysis.rules.structural import MOVING
from autmarg.compat.jaxprs import Op, Param
from autmarg.errors import Place
from autmarg.ir.bounds import check_bounds
from autmarg.ir.tape import Equation, Tape, run_body


class NoMatch(Exception):
    """Why a rule does not apply, in words; ``equation`` or ``place`` is where, if that is known.

    ``near`` says whether the user is told of the rule also where the child is a Gaussian: the rule
    has the right power of x, and something else is in the way.
    """

    def __init__(
        self,
        reason: str,
        equation: Equation | None = None,
        place: Place | None = None,
        near: bool = False,
    ) -> None:
        super().__init__(reason)
        self.near = near
        self.equation = equation
        self.place = (equation.place if equation is not None else None) or place


@dataclass(frozen=True, eq=False)
class Monomial:
    """c · xᵖ · (1 - x)^q, or with ``log`` its logarithm, where ``coefficient`` is log c.

    Attributes:
        coefficient: known or opaque, of the shape of ``index``, or a known number.
        index: which element of x.
        p, q: the powers.
    """

    coefficient: Any
    index: np.ndarray
    p: Fraction
    q: Fraction = Fraction(0)
    log: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.index.shape

    @property
    def powers(self) -> tuple[Fraction, Fraction]:
        """p and q."""
        return self.p, self.q

    def is_exactly(self, coefficient: float, p: int, q: int) -> bool:
        """Whether all its elements have this (known) coefficient and these powers."""
        return self.powers == (p, q) and _is(self.coefficient, coefficient)

    def whole(self) -> Any:
        """The coefficient as an array."""
        if isinstance(self.coefficient, np.ndarray):
            return np.broadcast_to(self.coefficient, self.shape)
        return jnp.broadcast_to(self.coefficient, self.shape)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, np.ndarray) and bool((value == number).all())


def _number(value: Any) -> Fraction | None:
    """The one number that a known array holds."""
    if isinstance(value, np.ndarray) and value.size and (value == value.flat[0]).all():
        number = float(value.flat[0])
        return Fraction(number) if np.isfinite(number) else None
    return None


class MonomialInterpreter:
    """Values of a tape as functions of the latent ``name``.

    Args:
        tape: on which known values are constants.
        name: of x.
        values: arrays of all other inputs.
        positive: whether x is known to be positive: powers and logarithms are refused otherwise.
        unit: whether x is between 0 and 1.
        zeros: whether coefficients may be zero where a known condition says so.
    """

    def __init__(
        self,
        tape: Tape,
        name: str,
        values: Mapping[str, Any],
        positive: bool,
        unit: bool,
        zeros: bool = False,
    ) -> None:
        self.tape, self.positive, self.unit, self.zeros = tape, positive, unit, zeros
        self.env: dict[int, Any] = {v: np.asarray(c) for v, c in tape.constants.items()}
        for other, number in tape.inputs.items():
            if other == name:
                shape = tape.avals[number].shape
                index = np.arange(int(np.prod(shape))).reshape(shape)
                self.env[number] = Monomial(np.ones(()), index, Fraction(1))
            elif other in values:
                self.env[number] = values[other]

    def read(self, number: int) -> Any:
        """The value with that number.

        Raises:
            NoMatch: it is another function of x.
        """
        return self.tape.interpret([number], self.env, self._apply)[0]

    def _apply(self, equation: Equation, values: list[Any]) -> list[Any]:
        if not any(isinstance(v, Monomial) for v in values):
            if all(isinstance(v, np.ndarray) for v in values):
                with jax.ensure_compile_time_eval():
                    return [np.asarray(out) for out in equation.bind(*values)]
            return equation.bind(*values)
        op = equation.op
        if op is Op.CUSTOM_JVP_CALL:
            return self._called(equation, values)
        if op in _MOVING:
            return _moved(equation, values)
        functions = _FUNCTIONS | _WITH_ZEROS if self.zeros else _FUNCTIONS
        found = functions[op](*values, *_options(equation)) if op in functions else None
        if found is None or not self._allowed(found):
            where = f" ({equation.place})" if equation.place else ""
            raise NoMatch(f"through {spelled(equation.name)}{where}", equation)
        return [found]

    def _called(self, equation: Equation, values: list[Any]) -> list[Any]:
        """The outputs of a function that has a derivative of its own."""
        return run_body(equation.params[Param.CALL_JAXPR], values, self._apply, np.asarray)

    def _allowed(self, value: Monomial) -> bool:
        """Logarithms and powers need a positive x, powers of 1 - x one below 1."""
        plain = not value.log and value.powers == (1, 0)
        return plain or (self.positive and (value.q == 0 or self.unit))


# What the function of a primitive reads beside its operands.
_OPTIONS = {
    Op.INTEGER_POW: Param.Y, Op.CONVERT_ELEMENT_TYPE: Param.NEW_DTYPE, Op.REDUCE_SUM: Param.AXES,
    Op.DOT_GENERAL: Param.DIMENSION_NUMBERS,
}  # fmt: skip
_MOVING = (*MOVING, Op.CONCATENATE, Op.GATHER, Op.DYNAMIC_SLICE)


def _options(equation: Equation) -> list[Any]:
    """The parameters of a primitive that matter here."""
    return [equation.params[_OPTIONS[equation.op]]] if equation.op in _OPTIONS else []


def _moved(equation: Equation, values: list[Any]) -> list[Any]:
    """A primitive that only moves entries, of x's (all of one power) and nothing else."""
    several = equation.op is Op.CONCATENATE
    moving, rest = (values, []) if several else (values[:1], values[1:])
    head = moving[0]
    kinds = {(v.powers, v.log) if isinstance(v, Monomial) else None for v in moving}
    if kinds != {(head.powers, head.log) if isinstance(head, Monomial) else None}:
        raise NoMatch("joined with something else", equation)
    if not all(isinstance(v, np.ndarray) for v in rest):
        raise NoMatch("by an index that depends on a latent or is traced", equation)
    if equation.op is Op.GATHER:
        check_bounds(equation, rest[0], head.shape)
    with jax.ensure_compile_time_eval():
        indices = equation.bind(*(jnp.asarray(v.index) for v in moving), *rest)
    coefficients = [head.coefficient] * len(indices)
    if several or np.ndim(head.coefficient):
        parts = [v.whole() for v in moving]
        if all(isinstance(part, np.ndarray) for part in parts):
            with jax.ensure_compile_time_eval():
                coefficients = [np.asarray(c) for c in equation.bind(*parts, *rest)]
        else:
            coefficients = equation.bind(*(jnp.asarray(part) for part in parts), *rest)
    pairs = zip(coefficients, indices, strict=True)
    return [replace(head, coefficient=c, index=np.asarray(i)) for c, i in pairs]


def _array(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of known values (then NumPy's) or opaque ones, by its name in both modules."""

    def apply(*values: Any) -> Any:
        known = all(isinstance(v, np.ndarray) for v in values)
        with np.errstate(all="ignore"):
            out = getattr(np if known else jnp, function.__name__)(*values)
        return np.asarray(out) if known else out

    return apply


_multiply, _divide, _power = _array(np.multiply), _array(np.divide), _array(np.power)
_sum, _exp, _log = _array(np.add), _array(np.exp), _array(np.log)


def _together(a: Monomial, b: Monomial) -> np.ndarray | None:
    """The index of two values of the same elements."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    indices = [np.broadcast_to(m.index, shape) for m in (a, b)]
    return indices[0] if (indices[0] == indices[1]).all() else None


def _broadcast(m: Monomial, other: Any) -> np.ndarray:
    return np.broadcast_to(m.index, np.broadcast_shapes(m.shape, np.shape(other)))


def _mul(a: Any, b: Any) -> Monomial | None:
    if isinstance(a, Monomial) and isinstance(b, Monomial):
        index = _together(a, b)
        if index is None or a.log or b.log:
            return None
        c = _multiply(a.coefficient, b.coefficient)
        return Monomial(c, index, a.p + b.p, a.q + b.q)
    m, other = (a, b) if isinstance(a, Monomial) else (b, a)
    if m.log:
        factor = _number(other)
        return None if factor is None else _times(m, factor)
    return replace(m, coefficient=_multiply(m.coefficient, other), index=_broadcast(m, other))


def _times(m: Monomial, factor: Fraction) -> Monomial:
    """A logarithm times a number."""
    c = _multiply(m.coefficient, np.asarray(float(factor)))
    return replace(m, coefficient=c, p=m.p * factor, q=m.q * factor)


def _div(a: Any, b: Any) -> Monomial | None:
    if not isinstance(b, Monomial):
        if not a.log:
            return replace(a, coefficient=_divide(a.coefficient, b), index=_broadcast(a, b))
        number = _number(b)
        return _times(a, 1 / number) if number else None
    if b.log:
        return None
    if isinstance(a, Monomial):
        return _mul(a, _raised(b, Fraction(-1)))
    c = _divide(a, b.coefficient)
    return Monomial(c, _broadcast(b, a), -b.p, -b.q)


def _raised(m: Monomial, power: Fraction) -> Monomial | None:
    """A power; that of a coefficient of one is not computed."""
    if m.log or not power:
        return None
    c = m.coefficient
    if not _is(c, 1.0):
        c = _power(c, np.asarray(float(power)))
    return replace(m, coefficient=c, p=m.p * power, q=m.q * power)


def _pow(base: Any, exponent: Any) -> Monomial | None:
    number = None if isinstance(exponent, Monomial) else _number(exponent)
    if number is None or not isinstance(base, Monomial):
        return None
    raised = _raised(base, number)
    return raised and replace(raised, index=_broadcast(base, exponent))


def _logarithm(m: Monomial) -> Monomial | None:
    return None if m.log else replace(m, coefficient=_log(m.coefficient), log=True)


def _exponential(m: Monomial) -> Monomial | None:
    return replace(m, coefficient=_exp(m.coefficient), log=False) if m.log else None


def _neg(m: Monomial) -> Monomial:
    if m.log:
        return _times(m, Fraction(-1))
    return replace(m, coefficient=_multiply(m.coefficient, np.asarray(-1.0)))


def _complement(m: Monomial, sign: int) -> Monomial | None:
    """1 + m, where m is ``sign`` times x or 1 - x, and the sum is the other of the two."""
    for p in (1, 0):
        if not m.log and sign == -1 and m.is_exactly(-1.0, p, 1 - p):
            return Monomial(np.ones(()), m.index, Fraction(1 - p), Fraction(p))
    return None


def _add(a: Any, b: Any) -> Monomial | None:
    if isinstance(a, Monomial) and isinstance(b, Monomial):
        index = _together(a, b)
        if index is None or a.log != b.log or not (a.log or a.powers == b.powers):
            return None
        c = _sum(a.coefficient, b.coefficient)
        if not a.log:
            return replace(a, coefficient=c, index=index)
        return Monomial(c, index, a.p + b.p, a.q + b.q, True)
    m, other = (a, b) if isinstance(a, Monomial) else (b, a)
    if m.log:
        return replace(m, coefficient=_sum(m.coefficient, other), index=_broadcast(m, other))
    if _is(other, 1.0):
        one = _complement(m, -1)
        return one and replace(one, index=_broadcast(m, other))
    return None


def _sub(a: Any, b: Any) -> Monomial | None:
    if isinstance(b, Monomial):
        return _add(a, _neg(b))
    return _add(a, _array(np.negative)(b))


def _log1p(m: Monomial) -> Monomial | None:
    one = _add(m, np.ones(()))
    return _logarithm(one) if one is not None and not m.log else None


def _logistic(m: Monomial) -> Monomial | None:
    """1 / (1 + 1/o) where m is the logarithm of the odds o = x / (1 - x), or of their inverse."""
    for p in (1, 0):
        if m.log and m.is_exactly(0.0, 2 * p - 1, 1 - 2 * p):
            return Monomial(np.ones(()), m.index, Fraction(p), Fraction(1 - p))
    return None


def _converted(m: Monomial, new_dtype: Any) -> Monomial | None:
    """In a type that holds every number of the old one (x is a float of the default precision)."""
    wide = jnp.issubdtype(new_dtype, jnp.floating)
    wide = wide and jnp.finfo(new_dtype).bits >= jnp.finfo(jnp.result_type(float)).bits
    return m if wide else None


def _selected(which: Any, *cases: Any) -> Monomial | None:
    """Entries by a known condition, of x's and zeros."""
    heads = [c for c in cases if isinstance(c, Monomial)]
    known = isinstance(which, np.ndarray) and not any(h.log for h in heads)
    if not known or any(h.powers != heads[0].powers for h in heads):
        return None
    if not all(isinstance(c, Monomial) or _is(c, 0.0) for c in cases):
        return None
    # Where the coefficient is zero any element of x will do.
    indices = [c.index if isinstance(c, Monomial) else heads[0].index for c in cases]
    parts = [c.whole() if isinstance(c, Monomial) else c for c in cases]
    choose = lambda values: jax.lax.select_n(which, *values)  # noqa: E731
    with jax.ensure_compile_time_eval():
        index = np.asarray(choose([np.ascontiguousarray(i) for i in indices]))
        if all(isinstance(part, np.ndarray) for part in parts):
            return replace(heads[0], coefficient=np.asarray(choose(parts)), index=index)
    return replace(heads[0], coefficient=choose([jnp.asarray(p) for p in parts]), index=index)


def _used(m: Monomial) -> np.ndarray:
    """Which entries are not known to be zero, as 1 and 0."""
    known = isinstance(m.coefficient, np.ndarray)
    return np.broadcast_to((m.coefficient != 0) if known else True, m.shape).astype(np.int64)


def _summed(m: Monomial, axes: tuple[int, ...]) -> Monomial | None:
    """A sum of which no more than one summand is not known to be zero."""
    used = _used(m)
    if m.log or (used.sum(axes) > 1).any():
        return None
    index = (used * m.index).sum(axes)
    return replace(m, coefficient=m.whole().sum(axes), index=index)


def _product(a: Any, b: Any, dimension_numbers: Any) -> Monomial | None:
    """A product with a known matrix that picks one element of x for each of its own (one-hot)."""
    m, matrix = (a, b) if isinstance(a, Monomial) else (b, a)
    if isinstance(matrix, Monomial) or m.log or not isinstance(matrix, np.ndarray):
        return None

    def product(matrix: Any, own: Any) -> Any:
        pair = (own, matrix) if m is a else (matrix, own)
        return jax.lax.dot_general(*pair, dimension_numbers, precision="highest")

    some, used = (matrix != 0).astype(np.int64), _used(m)
    with jax.ensure_compile_time_eval():
        if (np.asarray(product(some, used)) > 1).any():
            return None
        index = np.asarray(product(some, used * m.index))
        if isinstance(m.coefficient, np.ndarray):
            whole = m.whole()
            coefficient = np.asarray(product(matrix.astype(whole.dtype), whole))
            return replace(m, coefficient=coefficient, index=index)
    whole = m.whole()
    return replace(m, coefficient=product(jnp.asarray(matrix, whole.dtype), whole), index=index)


def _cholesky(m: Monomial) -> Monomial | None:
    """Of a matrix of one element of x: its square root is a factor."""
    if m.log or not m.index.size or (m.index != m.index.flat[0]).any():
        return None
    c = jnp.linalg.cholesky(jnp.asarray(m.whole()))
    return replace(m, coefficient=c, p=m.p / 2, q=m.q / 2)


_WITH_ZEROS: dict[Op, Callable[..., Monomial | None]] = {
    Op.SELECT_N: _selected, Op.CHOLESKY: _cholesky,
}  # fmt: skip
_FUNCTIONS: dict[Op, Callable[..., Monomial | None]] = {
    Op.MUL: _mul,
    Op.DIV: _div,
    Op.NEG: _neg,
    Op.ADD: _add,
    Op.ADD_ANY: _add,
    Op.SUB: _sub,
    Op.POW: _pow,
    Op.INTEGER_POW: lambda m, y: _raised(m, Fraction(y)),
    Op.SQUARE: lambda m: _raised(m, Fraction(2)),
    Op.SQRT: lambda m: _raised(m, Fraction(1, 2)),
    Op.RSQRT: lambda m: _raised(m, Fraction(-1, 2)),
    Op.LOG: _logarithm,
    Op.EXP: _exponential,
    Op.LOG1P: _log1p,
    Op.LOGISTIC: _logistic,
    Op.CONVERT_ELEMENT_TYPE: _converted,
    Op.REDUCE_SUM: _summed,
    Op.DOT_GENERAL: _product,
}
