"""Double precision inside of a single-precision session.

With noise of 10⁻³ of the signal, cross-products need more digits than float32 has. A function is
worked out in float64 here, whatever the session's precision: inputs are widened, results narrowed.

``jax.enable_x64`` alone serves for values only. JAX differentiates and batches a function later,
outside of that context, and makes float32 zeros among float64 numbers. So the function becomes a
primitive of JAX whose arguments and results are numbers of the session. Each of its rules (its
tangents, their transpose, a batch) is again such a function, and is traced within the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")
Flat: TypeAlias = Callable[..., list[Array]]  # of arrays


def in_double(function: Callable[[*Arguments], Result]) -> Callable[[*Arguments], Result]:
    """``function`` of pytrees of arrays, worked out in float64; its results in the session's.

    It must not close over traced values.
    """

    def run(*args: *Arguments) -> Result:
        if jax.config.read("jax_enable_x64"):
            return function(*args)
        flat, tree = jax.tree.flatten(args)
        flat = [jnp.asarray(x) for x in flat]
        whole = _Whole(function, tree)
        with jax.enable_x64(True):
            out = jax.eval_shape(whole.result, *flat)
        return jax.tree.unflatten(jax.tree.structure(out), _double.bind(*flat, function=whole))

    return run


@dataclass(frozen=True)
class _Whole:
    """Arrays of the session → the function's results, flat, as arrays of the session."""

    function: Callable[..., Any]
    tree: Any

    def result(self, *flat: Array) -> Any:
        """What the function returns, in float64."""
        return self.function(*self.tree.unflatten(map(_widened, flat)))

    def __call__(self, *flat: Array) -> list[Array]:
        return [_narrowed(x) for x in jax.tree.leaves(self.result(*flat))]


@dataclass(frozen=True)
class _Tangents:
    """(arguments, tangents of those ``moving``) → tangents of the results."""

    function: Flat
    moving: tuple[bool, ...]

    def __call__(self, *args: Array) -> list[Array]:
        primals, changes = args[: len(self.moving)], iter(args[len(self.moving) :])
        some = [x for x, moves in zip(primals, self.moving, strict=True) if moves]

        def function(*some: Array) -> list[Array]:
            return self.function(*_merged(primals, self.moving, some))

        return jax.jvp(function, some, list(changes))[1]


@dataclass(frozen=True)
class _Transposed:
    """(arguments that are not linear, cotangents) → cotangents of the ``linear`` arguments.

    ``shapes`` are those of all arguments.
    """

    function: Flat
    linear: tuple[bool, ...]
    shapes: tuple[jax.ShapeDtypeStruct | None, ...]

    def __call__(self, *args: Array) -> list[Array]:
        count = self.linear.count(False)
        fixed, cotangents = iter(args[:count]), list(args[count:])
        known = [None if linear else next(fixed) for linear in self.linear]

        def function(*some: Array) -> list[Array]:
            return self.function(*_merged(known, self.linear, some))

        some = [s for s, linear in zip(self.shapes, self.linear, strict=True) if linear]
        return list(jax.linear_transpose(function, *some)(cotangents))


@dataclass(frozen=True)
class _Batched:
    """The function over a leading axis of the results."""

    function: Flat
    axes: tuple[int | None, ...]

    def __call__(self, *args: Array) -> list[Array]:
        return jax.vmap(self.function, self.axes)(*args)


_double = Primitive("in_double")
_double.multiple_results = True


@cache
def _compiled(function: Flat) -> Flat:
    return jax.jit(function)


@_double.def_impl
def _run(*args: Array, function: Flat) -> list[Array]:
    with jax.enable_x64(True):
        return _compiled(function)(*args)


@_double.def_abstract_eval
def _shapes(*args: ShapedArray, function: Flat) -> list[ShapedArray]:
    with jax.enable_x64(True):
        out = jax.eval_shape(function, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args))
    return [ShapedArray(x.shape, x.dtype) for x in out]


def _jvp(
    primals: Sequence[Array], tangents: Sequence[Array | ad.Zero], *, function: Flat
) -> tuple[list[Array], list[Array]]:
    moving = tuple(not isinstance(t, ad.Zero) for t in tangents)
    out = _double.bind(*primals, function=function)
    changes = (t for t in tangents if not isinstance(t, ad.Zero))
    return out, _double.bind(*primals, *changes, function=_Tangents(function, moving))


def _transpose(
    cotangents: Sequence[Array | ad.Zero], *args: Array | ad.UndefinedPrimal, function: Flat
) -> list[Array | None]:
    linear = tuple(ad.is_undefined_primal(x) for x in args)
    shapes = tuple(
        jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) if ad.is_undefined_primal(x) else None
        for x in args
    )
    fixed = (x for x in args if not ad.is_undefined_primal(x))
    whole = (ad.instantiate_zeros(x) for x in cotangents)
    found = iter(_double.bind(*fixed, *whole, function=_Transposed(function, linear, shapes)))
    return [next(found) if each else None for each in linear]


def _batch(
    args: Sequence[Array], axes: Sequence[int | None], *, function: Flat
) -> tuple[list[Array], list[int]]:
    out = _double.bind(*args, function=_Batched(function, tuple(axes)))
    return out, [0] * len(out)


def _lower(context: mlir.LoweringRuleContext, *args: Any, function: Flat) -> Any:
    with jax.enable_x64(True):  # also where operations inside are lowered by tracing others
        return mlir.lower_fun(function, multiple_results=True)(context, *args)


ad.primitive_jvps[_double] = _jvp
ad.primitive_transposes[_double] = _transpose
batching.primitive_batchers[_double] = _batch
mlir.register_lowering(_double, _lower)


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
