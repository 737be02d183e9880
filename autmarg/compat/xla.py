"""XLA's options for a program that runs once: compiling it takes longer than running it."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax

_QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_OLDER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}  # they take half of the time


@cache
def quick() -> dict[str, Any]:
    """Compiler options for quick compilation, those that this version knows."""
    options = {**_QUICK, **_OLDER_EMITTERS}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:  # they were removed
        return _QUICK
    return options


__all__ = ["quick"]
