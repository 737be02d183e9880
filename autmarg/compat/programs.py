"""Functions as programs: traced once for each shape of their arguments, numbers apart.

The numbers that a function closes over (data, cross-products) are found when it is traced.
:func:`traced_once` lets a program around it see them as its own, and :func:`compiled` makes them
arguments of an executable, which all programs of equal text share: other data of the same structure
are not compiled again, in this process or, by the files that it leaves, in another. Integers
(levels, places in arrays) are structure, and stay constants.

A kernel of NumPyro's compiles its loop itself and has no arguments for such numbers. There they are
constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from autmarg.compat.executables import executable
from autmarg.compat.jaxprs import ClosedJaxpr, jaxpr_as_fun


@dataclass(frozen=True, eq=False)
class Program:
    """A traced function of flat arrays.

    Attributes:
        numbers: the arrays of floats that it closes over.
        run: (numbers, flat arguments) → flat results, under ``jax.jit``.
        tree: the structure of its results.
    """

    numbers: list[Any]
    run: Any
    tree: Any

    @classmethod
    def of(cls, function: Callable[..., Any], structure: Any, flat: Sequence[Any]) -> Program:
        """Trace a function of pytrees at the shapes of its flat arguments."""

        def run(*xs: Any) -> Any:
            return function(*jax.tree.unflatten(structure, xs))

        types = [jax.typeof(x) for x in flat]
        shapes = [jax.ShapeDtypeStruct(t.shape, t.dtype, weak_type=t.weak_type) for t in types]
        closed, out = jax.make_jaxpr(run, return_shape=True)(*shapes)

        real = [jnp.issubdtype(x.dtype, jnp.inexact) for x in closed.consts]
        numbers = [x for x, r in zip(closed.consts, real, strict=True) if r]

        def whole(numbers: list[Array], *xs: Array) -> list[Array]:
            each = iter(numbers)
            consts = [next(each) if r else x for x, r in zip(closed.consts, real, strict=True)]
            return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*xs)

        # (with all arguments, also those that nothing reads, the text tells which is which)
        return cls(numbers, jax.jit(whole, keep_unused=True), jax.tree.structure(out))

    def __call__(self, *flat: Any) -> Any:
        """The results, as part of a program around it, or of derivatives of numbers."""
        return jax.tree.unflatten(self.tree, self.run(self.numbers, *flat))

    def executable(self, flat: Sequence[Any], briefly: bool) -> Callable[..., Any]:
        """The program compiled, its numbers being arguments."""
        arrays = [x for x in (*self.numbers, *flat) if isinstance(x, Array)]
        if any(isinstance(x, Tracer) for x in arrays):
            return self  # the function closes over what is traced around it
        if any(len(x.sharding.device_set) > 1 for x in arrays):
            return self  # where arrays lie is part of such a program
        with jax.ensure_compile_time_eval():  # also inside another program
            numbers = [jax.device_put(x) for x in self.numbers]  # (jnp.asarray compiles a copy)
        found = executable(self.run.lower(numbers, *flat), len(numbers), briefly=briefly)
        return lambda *xs: jax.tree.unflatten(self.tree, found(numbers, *xs))


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
        types = [jax.typeof(x) for x in flat]
        shapes = tuple((str(t), t.weak_type) for t in types)
        key = (structure, shapes, jax.config.read("jax_enable_x64"))
        if key not in programs:
            programs[key] = Program.of(function, structure, flat)
        if traced:
            return programs[key](*flat)
        if key not in executables:
            executables[key] = programs[key].executable(flat, briefly)
        return executables[key](*flat)

    return run
