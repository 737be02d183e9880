"""XLA's options for programs whose compilation takes longer than most of their runs."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax

_QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_OLDER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}  # they take half of the time


# Half of the compilation's time, for a tenth of the run's (value: 20 -> 21 µs, 146 -> 134).
_SOONER = {**_OLDER_EMITTERS, "xla_backend_optimization_level": 1}


def quick() -> dict[str, Any]:
    """Compiler options for a program that runs once, those that this version knows."""
    return _known({**_QUICK, **_OLDER_EMITTERS}, _QUICK)


def sooner() -> dict[str, Any]:
    """Compiler options for a program that runs for seconds, those that this version knows."""
    if jax.config.read("jax_disable_most_optimizations"):
        return {}
    return _known(_SOONER, {})


def _known(options: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
    return options if _accepted(tuple(options.items())) else otherwise


@cache
def _accepted(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether XLA knows all of some options."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError:  # they were removed
        return False
    return True


__all__ = ["quick", "sooner"]
