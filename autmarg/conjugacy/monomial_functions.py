"""Functions of monomials: what the primitives that compute make of them, None where that is another
function of x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.jaxprs import Op
from autmarg.conjugacy.monomial import Monomial, is_number, the_number


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
        factor = the_number(other)
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
        number = the_number(b)
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
    if not is_number(c, 1.0):
        c = _power(c, np.asarray(float(power)))
    return replace(m, coefficient=c, p=m.p * power, q=m.q * power)


def _pow(base: Any, exponent: Any) -> Monomial | None:
    number = None if isinstance(exponent, Monomial) else the_number(exponent)
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
    if is_number(other, 1.0):
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
    if not all(isinstance(c, Monomial) or is_number(c, 0.0) for c in cases):
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


WITH_ZEROS: dict[Op, Callable[..., Monomial | None]] = {
    Op.SELECT_N: _selected, Op.CHOLESKY: _cholesky,
}  # fmt: skip
FUNCTIONS: dict[Op, Callable[..., Monomial | None]] = {
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
