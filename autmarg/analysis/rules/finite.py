"""Questions whether a number is finite, which no finite latent decides.

``isnan``, ``isfinite`` and ``nan_to_num`` compare a value with itself or with infinity.
Of a value that is affine in latents, the known part alone has the answer, a known array. (Factors
that depend on kept latents are taken for finite; where one is not, the density is NaN.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine
from autmarg.analysis.rules.base import CannotExtract
from autmarg.compat.jaxprs import COMPARISONS, Op
from autmarg.ir.tape import Equation


def settled(equation: Equation, known: Sequence[Any]) -> bool:
    """Whether an equation asks that, ``known`` being the values of its known operands (None for
    those that are not computed yet)."""
    if equation.op is Op.IS_FINITE:
        return True
    if equation.op not in COMPARISONS:
        return False
    if not known:
        return equation.inputs[0] == equation.inputs[1]
    return all(v is not None and np.size(v) and np.isinf(v).all() for v in known)


def answer(equation: Equation, values: Sequence[Any]) -> list[np.ndarray]:
    """The answer, given at least one Affine operand."""
    parts = [_known_part(v) if isinstance(v, Affine) else v for v in values]
    with jax.ensure_compile_time_eval():
        return [np.asarray(out) for out in equation.bind(*(jnp.asarray(p) for p in parts))]


def _known_part(value: Affine) -> np.ndarray:
    """An array that is NaN or infinite where a value is, for finite latents, and else zero."""
    total = np.zeros(value.size)
    for term in value.terms:
        known = term.known
        if term.site is None and term.lookup is None:
            total = total + known.sum(axis=1)
        elif not np.isfinite(known).all():
            raise CannotExtract("a coefficient in it is not finite")
    return np.where(np.isfinite(total), 0.0, total).astype(value.dtype).reshape(value.shape)


__all__ = ["answer", "settled"]
