"""Primitives that only move the elements of known arrays, by NumPy, which compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from autmarg.compat.jaxprs import Op, Param

Params: TypeAlias = Mapping[str, Any]


def moved(op: Op, params: Params, values: Sequence[Any]) -> np.ndarray | None:
    """The output of a primitive at NumPy arrays of JAX's types; None where it takes JAX.

    Args:
        op, params: the primitive and its parameters.
        values: its operands.
    """
    if op not in _BY_NUMPY or not all(map(_is_known, values)):
        return None
    return _BY_NUMPY[op](params, *values)


def _is_known(value: Any) -> bool:
    plain = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return plain and jax.dtypes.canonicalize_dtype(value.dtype) == value.dtype


def _iota(params: Params) -> np.ndarray | None:
    shape, axis = params[Param.SHAPE], params[Param.DIMENSION]
    if np.dtype(params[Param.DTYPE]).kind not in "iu":
        return None
    along = np.arange(shape[axis], dtype=params[Param.DTYPE])
    return np.array(np.broadcast_to(along.reshape(-1, *[1] * (len(shape) - axis - 1)), shape))


def _broadcast(params: Params, x: np.ndarray) -> np.ndarray:
    shape = params[Param.SHAPE]
    wide = [1] * len(shape)
    for axis, size in zip(params[Param.BROADCAST_DIMENSIONS], x.shape, strict=True):
        wide[axis] = size
    return np.array(np.broadcast_to(x.reshape(wide), shape))


def _converted(params: Params, x: np.ndarray) -> np.ndarray | None:
    """Whole numbers in another type; others are rounded, which is left to JAX."""
    to = np.dtype(params[Param.NEW_DTYPE])
    return x.astype(to) if x.dtype.kind in "biu" and to.kind in "biuf" else None


def _sliced(params: Params, x: np.ndarray) -> np.ndarray:
    ends = params[Param.START_INDICES], params[Param.LIMIT_INDICES]
    return x[tuple(map(slice, *ends, params[Param.STRIDES] or (1,) * x.ndim))]


_BY_NUMPY: dict[Op, Callable[..., np.ndarray | None]] = {
    Op.IOTA: _iota,
    Op.BROADCAST_IN_DIM: _broadcast,
    Op.CONVERT_ELEMENT_TYPE: _converted,
    Op.SLICE: _sliced,
    Op.SQUEEZE: lambda params, x: np.squeeze(x, tuple(params[Param.DIMENSIONS])),
    Op.TRANSPOSE: lambda params, x: x.transpose(params[Param.PERMUTATION]),
    Op.CONCATENATE: lambda params, *xs: np.concatenate(xs, params[Param.DIMENSION]),
}

__all__ = ["moved"]
