"""Functions that are traced for their arrays, and say what else is known meanwhile.

Classes, structure and known arrays are at hand while a function is traced, whatever its arguments
are. They come out beside the arrays, so that nothing has to be noted from inside of the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax

from autmarg.compat.jaxprs import ClosedJaxpr

T = TypeVar("T")


@jax.tree_util.register_static
class _Known(Generic[T]):
    """An output that is no array: a pytree without leaves."""

    def __init__(self, value: T) -> None:
        self.value = value


def staged(function: Callable[..., tuple[T, Any]], *avals: Any) -> tuple[T, ClosedJaxpr]:
    """What a function knows, and its arrays as a jaxpr.

    Args:
        function: of arrays, or pytrees of them; returns both.
        avals: its arguments' shapes and types.
    """

    def run(*arguments: Any) -> tuple[_Known[T], Any]:
        known, arrays = function(*arguments)
        return _Known(known), arrays

    closed, (known, _) = jax.make_jaxpr(run, return_shape=True)(*avals)
    return known.value, closed


def known(function: Callable[..., T], *avals: Any) -> T:
    """What a function knows whatever its arguments are; nothing is computed.

    Args:
        function: of arrays, or pytrees of them.
        avals: its arguments' shapes and types.
    """
    return jax.eval_shape(lambda *arguments: _Known(function(*arguments)), *avals).value


__all__ = ["T", "known", "staged"]
