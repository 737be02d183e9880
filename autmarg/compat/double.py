"""Double precision inside of a single-precision session.

With noise of 10⁻³ of the signal, cross-products need more digits than float32 has. A function is
worked out in float64 here, whatever the session's precision: inputs are widened, results narrowed.

``jax.enable_x64`` alone serves for values only. JAX differentiates and batches a function later,
outside of that context, and makes float32 zeros among float64 numbers. So the function becomes a
primitive of JAX whose arguments and results are numbers of the session. Each of its rules (its
tangents, their transpose, a batch) is again such a function, traced once, within the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, TypeVarTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from autmarg.compat.jaxprs import ClosedJaxpr, jaxpr_as_fun
from autmarg.compat.names import register

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def in_double(function: Callable[[*Arguments], Result]) -> Callable[[*Arguments], Result]:
    """``function`` of pytrees of arrays, worked out in float64; its results in the session's.

    It is traced once for each shape, and must not close over traced values.
    """
    known: dict[Any, tuple[_Body, Any]] = {}
    whole_of: Callable[..., Result] = function

    def run(*args: *Arguments) -> Result:
        if jax.config.read("jax_enable_x64"):
            return function(*args)
        flat, tree = jax.tree.flatten(args)
        flat = [jnp.asarray(x) for x in flat]
        key = (tree, tuple((x.shape, x.dtype) for x in flat))
        if key not in known:
            structure: list[Any] = []

            def whole(*flat: Array) -> list[Array]:
                out = whole_of(*tree.unflatten(map(_widened, flat)))
                structure.append(jax.tree.structure(out))
                return [_narrowed(x) for x in jax.tree.leaves(out)]

            body = _Body.of(whole, flat)
            known[key] = body, structure[0]
        body, out = known[key]
        return jax.tree.unflatten(out, _double.bind(*flat, body=body))

    return run


@dataclass(frozen=True, eq=False)
class _Body:
    """A program of float64, from arrays of the session to a list of such arrays.

    What is derived from it is kept with it.
    """

    closed: ClosedJaxpr

    @classmethod
    def of(cls, function: Callable[..., list[Array]], like: Sequence[Any]) -> _Body:
        """That of a function, traced at the shapes of some arrays."""
        with jax.enable_x64(True):
            return cls(jax.make_jaxpr(function)(*(_shape(x) for x in like)))

    @cached_property
    def _derived(self) -> dict[Any, _Body]:
        return {}

    @cached_property
    def compiled(self) -> Callable[..., list[Array]]:
        """The program for arrays that are known."""
        return jax.jit(jaxpr_as_fun(self.closed))

    @property
    def function(self) -> Callable[..., list[Array]]:
        """The program as a function, for inside of another such program."""
        return jaxpr_as_fun(self.closed)

    def _once(self, key: Any, function: Callable[..., list[Array]], like: Sequence[Any]) -> _Body:
        if key not in self._derived:
            self._derived[key] = _Body.of(function, like)
        return self._derived[key]

    def tangents(self, moving: tuple[bool, ...]) -> _Body:
        """(arguments, tangents of those ``moving``) → tangents of the results."""
        shapes = self.closed.in_avals

        def tangents(*args: Array) -> list[Array]:
            primals, changes = args[: len(moving)], args[len(moving) :]

            def function(*some: Array) -> list[Array]:
                return self.function(*_merged(primals, moving, some))

            return jax.jvp(function, _chosen(primals, moving), list(changes))[1]

        return self._once(("tangents", moving), tangents, [*shapes, *_chosen(shapes, moving)])

    def transposed(self, linear: tuple[bool, ...]) -> _Body:
        """(arguments that are not linear, cotangents) → cotangents of the ``linear`` arguments."""
        shapes = self.closed.in_avals
        fixed = tuple(not each for each in linear)

        def transposed(*args: Array) -> list[Array]:
            known, cotangents = args[: sum(fixed)], list(args[sum(fixed) :])
            whole = _merged([None] * len(fixed), fixed, known)

            def function(*some: Array) -> list[Array]:
                return self.function(*_merged(whole, linear, some))

            some = [_shape(x) for x in _chosen(shapes, linear)]
            return list(jax.linear_transpose(function, *some)(cotangents))

        like = [*_chosen(shapes, fixed), *self.closed.out_avals]
        return self._once(("transposed", linear), transposed, like)

    def batched(self, axes: tuple[int | None, ...], like: Sequence[Any]) -> _Body:
        """The program over a leading axis of the results, at arguments ``like`` some."""
        key = ("batched", axes, tuple(x.shape for x in like))
        return self._once(key, jax.vmap(self.function, axes), like)


_double = Primitive("in_double")
_double.multiple_results = True


@_double.def_impl
def _run(*args: Array, body: _Body) -> list[Array]:
    with jax.enable_x64(True):
        return body.compiled(*args)


@_double.def_abstract_eval
def _shapes(*args: ShapedArray, body: _Body) -> list[ShapedArray]:
    return [ShapedArray(x.shape, x.dtype) for x in body.closed.out_avals]


def _jvp(
    primals: Sequence[Array], tangents: Sequence[Array | ad.Zero], *, body: _Body
) -> tuple[list[Array], list[Array]]:
    moving = tuple(not isinstance(t, ad.Zero) for t in tangents)
    out = _double.bind(*primals, body=body)
    changes = _chosen(tangents, moving)
    return out, _double.bind(*primals, *changes, body=body.tangents(moving))


def _transpose(
    cotangents: Sequence[Array | ad.Zero], *args: Array | ad.UndefinedPrimal, body: _Body
) -> list[Array | None]:
    linear = tuple(ad.is_undefined_primal(x) for x in args)
    fixed = (x for x in args if not ad.is_undefined_primal(x))
    whole = (ad.instantiate_zeros(x) for x in cotangents)
    found = iter(_double.bind(*fixed, *whole, body=body.transposed(linear)))
    return [next(found) if each else None for each in linear]


def _batch(
    args: Sequence[Array], axes: Sequence[int | None], *, body: _Body
) -> tuple[list[Array], list[int]]:
    out = _double.bind(*args, body=body.batched(tuple(axes), args))
    return out, [0] * len(out)


def _lower(context: mlir.LoweringRuleContext, *args: Any, body: _Body) -> Any:
    with jax.enable_x64(True):  # also where operations inside are lowered by tracing others
        return mlir.lower_fun(body.function, multiple_results=True)(context, *args)


ad.primitive_jvps[_double] = _jvp
ad.primitive_transposes[_double] = _transpose
batching.primitive_batchers[_double] = _batch
mlir.register_lowering(_double, _lower)
register(_double)


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _chosen(each: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:
    return [x for x, wanted in zip(each, chosen, strict=True) if wanted]


def _merged(
    args: Sequence[Array | None], chosen: Sequence[bool], some: Sequence[Array]
) -> list[Array | None]:
    """The arguments with those ``chosen`` replaced."""
    rest = iter(some)
    return [next(rest) if each else x for x, each in zip(args, chosen, strict=True)]


def _widened(x: Array) -> Array:
    return x.astype(jnp.float64) if x.dtype == jnp.float32 else x


def _narrowed(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype == jnp.float64 else x
