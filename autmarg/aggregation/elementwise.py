"""Programs of one element, as JAX traced them for arrays, at arrays of another length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.jaxprs import (
    ELEMENTWISE,
    INLINED,
    ClosedJaxpr,
    Jaxpr,
    Literal,
    Op,
    bind,
    body_of,
)

_SPREAD = frozenset({Op.BROADCAST_IN_DIM, Op.RESHAPE, Op.SQUEEZE, Op.EXPAND_DIMS})


def is_elementwise(closed: ClosedJaxpr) -> bool:
    """Whether element k of each result is the same function of element k of each argument."""
    shapes = _arrays((*closed.jaxpr.invars, *closed.jaxpr.outvars))
    if len(shapes) > 1 or any(np.size(c) > 1 for c in closed.consts):
        return False
    return all(_is_elementwise(eqn, shapes) for eqn in closed.jaxpr.eqns)


def _arrays(variables: Iterable[Any]) -> set[tuple[int, ...]]:
    """Shapes of more than one element."""
    return {v.aval.shape for v in variables if v.aval.size > 1}


def _is_elementwise(eqn: Any, shapes: set[tuple[int, ...]]) -> bool:
    op = Op.of(eqn.primitive)
    if op in INLINED or op is Op.CUSTOM_JVP_CALL:
        return is_elementwise(body_of(eqn.params))
    return op in ELEMENTWISE | _SPREAD and _arrays((*eqn.invars, *eqn.outvars)) <= shapes


def at_length(closed: ClosedJaxpr) -> Callable[..., tuple[Any, ...]]:
    """The function of an elementwise program, of arrays [k] for any k."""

    def run(*xs: Any) -> tuple[Any, ...]:
        xs = tuple(jnp.reshape(x, -1) for x in xs)
        consts = [jnp.reshape(c, -1) for c in closed.consts]
        env = dict(zip(closed.jaxpr.constvars, consts, strict=True))
        length = max(len(x) for x in xs)
        return tuple(jnp.broadcast_to(x, length) for x in _evaluate(closed.jaxpr, env, xs))

    return run


def _evaluate(jaxpr: Jaxpr, env: dict[Any, Any], xs: tuple[Any, ...]) -> list[Any]:
    env.update(zip(jaxpr.invars, xs, strict=True))

    def read(atom: Any) -> Any:
        if not isinstance(atom, Literal):
            return env[atom]
        aval: Any = atom.aval
        return jnp.full(1, atom.val, aval.dtype)

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _apply(eqn, [read(a) for a in eqn.invars]), strict=True))
    return [read(a) for a in jaxpr.outvars]


def _apply(eqn: Any, xs: list[Any]) -> list[Any]:
    op = Op.of(eqn.primitive)
    if op in INLINED:
        return list(at_length(body_of(eqn.params))(*xs))
    if op is Op.CUSTOM_JVP_CALL:
        slopes = derivative(eqn.primitive, eqn.params, [v.aval for v in eqn.invars])
        return with_derivative(body_of(eqn.params), slopes)(*xs)
    if op in _SPREAD:
        return xs[:1]
    return bind(eqn.primitive, eqn.params, *jnp.broadcast_arrays(*xs))


def with_derivative(body: ClosedJaxpr, slopes: ClosedJaxpr) -> Callable[..., list[Any]]:
    """A function of arrays [k], for any k, that keeps its own derivative.

    Args:
        body: the function, elementwise.
        slopes: as :func:`derivative` gives them.
    """
    value, both = at_length(body), at_length(slopes)
    function = jax.custom_jvp(lambda *xs: value(*xs))

    @function.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        found = both(*primals, *tangents)
        half = len(found) // 2
        return found[:half], found[half:]

    return lambda *xs: list(function(*xs))


def derivative(primitive: Any, params: Mapping[str, Any], avals: Sequence[Any]) -> ClosedJaxpr:
    """(arguments, tangents) → results and their tangents, as a program."""

    def run(*xs: Any) -> list[Any]:
        own, tangents = xs[: len(avals)], xs[len(avals) :]
        results, slopes = jax.jvp(lambda *ys: bind(primitive, params, *ys), own, tangents)
        return [*results, *slopes]

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    return jax.make_jaxpr(run)(*shapes, *shapes)


__all__ = ["at_length", "derivative", "is_elementwise", "with_derivative"]
