"""Functions as programs: traced once for each shape of their arguments, numbers apart.

The numbers that a function closes over (data, cross-products) are found when it is traced.
:func:`traced_once` lets a program around it see them as its own, and :func:`compiled` makes them
arguments of an executable, which all equal programs share: other data of the same structure are not
compiled again, in this process or, by the files that it leaves, in another. Integers (levels,
places in arrays) are structure, and stay constants.

A kernel of NumPyro's compiles its loop itself and has no arguments for such numbers. There they are
constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from autmarg.compat.executables import executable
from autmarg.compat.jaxprs import ClosedJaxpr, jaxpr_as_fun, live
from autmarg.compat.names import name_of


@dataclass(frozen=True, eq=False)
class Program:
    """A traced function of flat arrays.

    Attributes:
        closed: the trace, with its own copies of the arrays that the function closes over.
        tree: the structure of its results.
    """

    closed: ClosedJaxpr
    tree: Any

    @classmethod
    def of(cls, function: Callable[..., Any], structure: Any, flat: Sequence[Any]) -> Program:
        """Trace a function of pytrees at the shapes of its flat arguments."""

        def run(*xs: Any) -> Any:
            return function(*jax.tree.unflatten(structure, xs))

        closed, out = jax.make_jaxpr(run, return_shape=True)(*map(_shape, flat))
        consts = [x if isinstance(x, Array) else np.array(x) for x in closed.consts]
        return cls(ClosedJaxpr(closed.jaxpr, consts), jax.tree.structure(out))

    @cached_property
    def _real(self) -> list[bool]:
        return [jnp.issubdtype(x.dtype, jnp.inexact) for x in self.closed.consts]

    @cached_property
    def numbers(self) -> list[Any]:
        """The arrays of floats that the function closes over."""
        return [x for x, real in zip(self.closed.consts, self._real, strict=True) if real]

    @cached_property
    def run(self) -> Any:
        """(numbers, flat arguments) → flat results, under ``jax.jit``."""

        def whole(numbers: list[Array], *xs: Array) -> list[Array]:
            each = iter(numbers)
            both = zip(self.closed.consts, self._real, strict=True)
            consts = [next(each) if real else x for x, real in both]
            return jaxpr_as_fun(ClosedJaxpr(self.closed.jaxpr, consts))(*xs)

        # (with all arguments, also those that nothing reads, the text tells which is which)
        return jax.jit(whole, keep_unused=True)

    def __call__(self, *flat: Any) -> Any:
        """The results, as part of a program around it, or of derivatives of numbers."""
        return jax.tree.unflatten(self.tree, self.run(self.numbers, *flat))

    def executable(self, flat: Sequence[Any], briefly: bool) -> Callable[..., Any]:
        """The program compiled, its numbers being arguments."""
        numbers = self.known_numbers(flat)
        if numbers is None:
            return self
        found = executable(
            lambda: self.run.lower(numbers, *flat), len(numbers),
            name=lambda: name_of(live(self.closed)), briefly=briefly,
        )  # fmt: skip
        return lambda *xs: jax.tree.unflatten(self.tree, found(numbers, *xs))

    def known_numbers(self, flat: Sequence[Any]) -> list[Array] | None:
        """The numbers on their device; None where no executable can have them as arguments.

        They, or the arguments, may be traced by a program around, or lie on several devices, where
        the place of each is part of the program.
        """
        arrays = [x for x in (*self.numbers, *flat) if isinstance(x, Array)]
        if any(isinstance(x, Tracer) or len(x.sharding.device_set) > 1 for x in arrays):
            return None
        with jax.ensure_compile_time_eval():  # also inside another program
            return [jax.device_put(x) for x in self.numbers]  # (jnp.asarray compiles a copy)


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of pytrees of arrays, compiled where it is called with numbers.

    Inside another program it is traced once for each shape, and its numbers are those of the
    program around it.
    """
    return _by_shape(function, inside=True)


def compiled(function: Callable[..., Any], *, briefly: bool = False) -> Callable[..., Any]:
    """``function`` of pytrees of arrays, compiled for each shape, its numbers being arguments.

    Inside another program it is the function itself.

    Args:
        function: what is compiled.
        briefly: whether all of its calls take so little time that half of the compilation for one
            to three times as long a run pays.
    """
    return _by_shape(function, inside=False, briefly=briefly)


def mapped(
    function: Callable[..., Any],
    over: Callable[[Callable[..., Any]], Callable[..., Any]],
    one: Callable[..., tuple[Any, ...]],
) -> Callable[..., Any]:
    """``over(function)``, compiled as :func:`compiled` does, and sooner found again.

    ``function`` alone is traced. Where its trace has a name, so has the executable, and a later
    process that finds it neither traces nor lowers the whole.

    Args:
        function: of pytrees of arrays.
        over: makes of any function one that maps it over many arguments, with results of the same
            structure. It is a function of this package that closes over nothing.
        one: (arguments of the whole, as shapes) → those of ``function``, as shapes.
    """
    executables: dict[Any, Callable[..., Any]] = {}

    def run(*args: Any) -> Any:
        flat, structure = jax.tree.flatten(args)
        if any(isinstance(x, Tracer) for x in flat):
            return over(function)(*args)
        key = _key(flat, structure)
        if key not in executables:
            shapes = jax.tree.unflatten(structure, map(_shape, flat))
            executables[key] = _over(function, over, one(*shapes), flat, structure)
        return executables[key](*flat)

    return run


def _over(
    function: Callable[..., Any],
    over: Callable[[Callable[..., Any]], Callable[..., Any]],
    one: tuple[Any, ...],
    flat: Sequence[Any],
    structure: Any,
) -> Callable[..., Any]:
    """What :func:`mapped` runs at flat arguments of some shapes."""
    like, inner = jax.tree.flatten(one)
    each = Program.of(function, inner, like)

    def whole(numbers: list[Array], *xs: Array) -> list[Array]:
        def of_one(*args: Any) -> Any:
            return jax.tree.unflatten(each.tree, each.run(numbers, *jax.tree.leaves(args)))

        return jax.tree.leaves(over(of_one)(*jax.tree.unflatten(structure, xs)))

    jitted, numbers = jax.jit(whole, keep_unused=True), each.known_numbers(flat)
    if numbers is None:
        return lambda *xs: jax.tree.unflatten(each.tree, jitted(each.numbers, *xs))
    types = [f"{t} {t.weak_type}" for t in map(jax.typeof, flat)]
    others = (str(each.tree), str(inner), str(structure), types, over)
    found = executable(
        lambda: jitted.lower(numbers, *flat), len(numbers),
        name=lambda: name_of(live(each.closed), *others),
    )  # fmt: skip
    return lambda *xs: jax.tree.unflatten(each.tree, found(numbers, *xs))


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    found = jax.typeof(x) if not isinstance(x, jax.ShapeDtypeStruct) else x
    return jax.ShapeDtypeStruct(found.shape, found.dtype, weak_type=found.weak_type)


def without_axes(x: Any, count: int) -> jax.ShapeDtypeStruct:
    """The shape of an element along some first axes."""
    return jax.ShapeDtypeStruct(x.shape[count:], x.dtype)


def _key(flat: Sequence[Any], structure: Any) -> Any:
    """What a trace depends on besides its function."""
    types = [jax.typeof(x) for x in flat]
    shapes = tuple((str(t), t.weak_type) for t in types)
    return (structure, shapes, jax.config.read("jax_enable_x64"))


def _by_shape(
    function: Callable[..., Any], *, inside: bool, briefly: bool = False
) -> Callable[..., Any]:
    programs: dict[Any, Program] = {}
    executables: dict[Any, Callable[..., Any]] = {}

    def run(*args: Any) -> Any:
        flat, structure = jax.tree.flatten(args)
        traced = any(isinstance(x, Tracer) for x in flat)
        if traced and not inside:
            return function(*args)
        key = _key(flat, structure)
        if key not in programs:
            programs[key] = Program.of(function, structure, flat)
        if traced:
            return programs[key](*flat)
        if key not in executables:
            executables[key] = programs[key].executable(flat, briefly)
        return executables[key](*flat)

    return run
