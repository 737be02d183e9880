"""Passes by name: the built-in ones, and those of installed packages.

A package offers a pass through an entry point of the group ``autmarg.passes`` whose value is the
pass's class, or any function of no arguments that returns one. An entry point of the group
``autmarg.plugins`` is a function of no arguments; it is called once, when the first model is
transformed, and registers families, stages or rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from autmarg.errors import RequestError
from autmarg.passes.conjugate import Conjugate
from autmarg.passes.detect import Detect
from autmarg.passes.hoist import Hoist
from autmarg.passes.marginalise import Marginalise
from autmarg.passes.noncentre import NonCentre
from autmarg.passes.quadrature import Quadrature
from autmarg.passes.simplify import Simplify
from autmarg.passes.whiten import Whiten

PASSES, PLUGINS = "autmarg.passes", "autmarg.plugins"
# In the order in which ``transform`` runs them; the first three decide, and take the request.
BUILT_IN = (Quadrature, Whiten, Detect, Marginalise, Conjugate, NonCentre, Hoist, Simplify)
_MAKERS: dict[str, Callable[[], Any]] = {each.name: each for each in BUILT_IN}


def available() -> dict[str, Callable[[], Any]]:
    """Name → what makes the pass of that name; built-in names are not taken over."""
    own = {point.name: _maker(point) for point in entry_points(group=PASSES)}
    return {**_MAKERS, **own, **_MAKERS}


def is_built_in(each: Any) -> bool:
    """Whether a pass is one of autmarg's own."""
    return type(each) in BUILT_IN


def named(name: str) -> Any:
    """The pass of a name, with its default options.

    Raises:
        RequestError: there is none, or its package cannot be imported.
    """
    makers = available()
    if name not in makers:
        raise RequestError(f"there is no pass '{name}'; expected one of {', '.join(makers)}")
    return makers[name]()


@cache
def load_plugins() -> tuple[str, ...]:
    """Call every installed plugin, once in a process; their names.

    Raises:
        RequestError: one cannot be imported, or fails.
    """
    found = tuple(entry_points(group=PLUGINS))
    for point in found:
        _maker(point)()
    return tuple(point.name for point in found)


def _maker(point: EntryPoint) -> Callable[[], Any]:
    def make() -> Any:
        try:
            return point.load()()
        except Exception as error:  # of another package's code, whatever it is
            package = getattr(point.dist, "name", "a package")
            where = f"'{point.name}' ({point.value}) of {package}"
            raise RequestError(f"plugin {where} failed: {error!r}") from error

    return make
