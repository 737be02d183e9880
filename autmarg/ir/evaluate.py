"""What an expression of the text computes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autmarg.errors import ModelError
from autmarg.ir.text import Apply, Atom, Expression, Line, atoms

_OPERATORS: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "@": operator.matmul, "**": operator.pow, "neg": operator.neg,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "T": jnp.transpose,
    "where": jnp.where,
    "sum": lambda a, *axes: jnp.sum(a, axes or None),
    "cumsum": lambda a, axis: jnp.cumsum(a, axis),
    "cholesky": jnp.linalg.cholesky,
    "stack": lambda *a: jnp.stack(a),
    "concatenate": lambda *a: jnp.concatenate(a),
    "broadcast": lambda a, *shape: jnp.broadcast_to(a, shape),
    "reshape": lambda a, *shape: jnp.reshape(a, shape),
    "rsqrt": jax.lax.rsqrt,
    "logistic": jax.nn.sigmoid,
    "erf": jax.lax.erf,
    "max": jnp.maximum,
    "min": jnp.minimum,
    **{
        name: getattr(jnp, name)
        for name in [
            "exp",
            "log",
            "log1p",
            "expm1",
            "sqrt",
            "tanh",
            "sin",
            "cos",
            "abs",
            "sign",
            "floor",
            "square",
        ]
    },
}
_SPECIAL = {"true": True, "false": False, "new": None}


def names_of(
    line: Line, expression: Expression, sites: Collection[str], constants: Collection[str]
) -> list[Atom]:
    """The sites, constants and fragments that an expression names.

    Raises:
        ModelError: there is none of that name.
    """
    found = [a for a in atoms(expression) if a.kind != "number"]
    for atom in found:
        if atom.text not in (sites if atom.kind == "name" else constants):
            raise ModelError(
                f"'{line.name}' reads '{atom.text}', which is no site, constant or fragment; "
                f"expected one of {', '.join([*sites, *constants])}"
            )
    return found


def evaluate(expression: Expression | None, values: Mapping[str, Any]) -> Any:
    """The array, or the distribution, that an expression says.

    Args:
        values: of sites, constants and fragments by name.

    Raises:
        ModelError: a function that is not in the language.
    """
    if isinstance(expression, Atom):
        return values[expression.text] if expression.kind != "number" else _number(expression.text)
    assert expression is not None
    function = expression.function
    if function.startswith("%"):
        return values[function]
    if function == "[]":
        array, *entries = expression.arguments
        return jnp.asarray(evaluate(array, values))[tuple(_entry(e, values) for e in entries)]
    if function in _OPERATORS or function in _FUNCTIONS:
        call = _OPERATORS.get(function) or _FUNCTIONS[function]
        return call(*(evaluate(a, values) for a in expression.arguments))
    made = getattr(dist, function, None) or getattr(dist.transforms, function, None)
    if made is None:
        known = ", ".join(sorted(_FUNCTIONS))
        raise ModelError(f"unknown function '{function}': expected a distribution, or {known}")
    plain: list[Any] = []
    named: dict[str, Any] = {}
    for argument in expression.arguments:
        if isinstance(argument, Apply) and argument.function == "=":
            word, value = argument.arguments
            named[str(word)] = evaluate(value, values)
        else:
            plain.append(evaluate(argument, values))
    return made(*plain, **named)


def _entry(expression: Expression, values: Mapping[str, Any]) -> Any:
    if isinstance(expression, Atom) and ":" in expression.text and expression.kind == "number":
        return slice(*(int(part) if part else None for part in expression.text.split(":")))
    return evaluate(expression, values)


def _number(text: str) -> Any:
    if text in _SPECIAL:
        return _SPECIAL[text]
    return int(text) if text.lstrip("-").isdigit() else float(text)
