"""The user's model, which also takes columns of tables for arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from numpyro import handlers

from autmarg.compat.numpyro import traced_arguments_unchecked
from autmarg.trace.columns import as_arrays, with_arrays
from autmarg.trace.record import name_of


class Source:
    """The user's model, which also takes columns of tables for arrays."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())
        self.__name__ = name_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on arrays."""
        args, kwargs = as_arrays(args, kwargs)
        with traced_arguments_unchecked():
            return with_arrays(self.fn)(*args, **kwargs)

    def prior(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
        """(key, values of some sites) → values of all sites, from one run of the model."""

        def run(key: Any, values: Mapping[str, Any]) -> dict[str, Any]:
            given = {k: v for k, v in values.items() if not k.startswith("@")}
            model = handlers.seed(handlers.substitute(self, data=given), key)
            with handlers.block():
                sites = handlers.trace(model).get_trace(*args, **kwargs)
            return {n: s["value"] for n, s in sites.items() if s["type"] == "sample"}

        return run

    def __repr__(self) -> str:
        return f"<source {self.__name__}>"
