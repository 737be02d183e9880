"""Known numbers of a site that no density can be computed with, as errors about the user's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autmarg.analysis.domain import Affine, Opaque
from autmarg.analysis.naming import a
from autmarg.errors import ModelError
from autmarg.ir.nodes import Node, Sample


def check_value(node: Sample, value: Any, keep: np.ndarray | None, *, transformed: bool) -> None:
    """Raise where a known observed value is not finite, among the rows ``keep``.

    ``transformed`` values have been taken back to a Gaussian, as log y of a LogNormal's.

    Raises:
        ModelError: it is NaN or infinite; NumPyro's density is zero everywhere.
    """
    if isinstance(value, Opaque):
        return
    if isinstance(value, Affine):  # of latents: what is known of it
        parts = [term.known for term in value.terms]
    else:
        parts = [value.reshape(-1, 1)]
    found = {"NaN": np.isnan, "infinite": np.isinf}
    for word, is_bad in found.items():
        bad = np.zeros(parts[0].shape[0] if parts else 0, bool)
        for part in parts:
            bad = bad | is_bad(part).any(axis=1)
        bad = bad if keep is None or len(bad) == 1 else bad[keep]
        if count := int(bad.sum()):
            what = f"outside the support of {a(node.distribution.kind)}" if transformed else word
            raise ModelError(
                f"observed site '{node.name}' ({node.place}): found {count} {what} among "
                f"{bad.size} values, expected numbers inside the support; drop those rows or mask "
                "them"
            )


def check_mean(node: Node, residual: Affine, names: Mapping[str, Any]) -> None:
    """Raise where a known number in a mean is not finite.

    Args:
        node: an observed site, or a kept one.
        residual: its value - mean, of the rows that count.
        names: arrays that the user has a name for.

    Raises:
        ModelError: one is NaN or infinite.
    """
    for term in residual.terms:
        if not np.isfinite(term.known).all():
            bad = ~np.isfinite(term.known).all(axis=1)
            reads = f" that multiply '{term.site}'" if term.site else ""
            raise ModelError(
                f"the mean of site '{node.name}' ({node.place}) has numbers{reads} that are NaN or "
                f"infinite, in {int(bad.sum())} of its {residual.size} rows{_called(names)}: drop "
                "those rows, or fill them and mask the rows of the site"
            )


def check_scale(node: Node, scale: np.ndarray, names: Mapping[str, Any]) -> None:
    """Raise where a known standard deviation, or a diagonal of a factor, is not positive.

    Raises:
        ModelError: it is not, or is not finite.
    """
    scale = np.asarray(scale, np.float64)
    if scale.size and not ((scale > 0) & np.isfinite(scale)).all():
        bad = scale[~((scale > 0) & np.isfinite(scale))]
        raise ModelError(
            f"the scale of site '{node.name}' ({node.place}) is not positive and finite in "
            f"{bad.size} of its {scale.size} entries ({bad.reshape(-1)[0]}){_called(names)}: "
            "expected standard deviations above zero, or a positive definite covariance"
        )


def _called(names: Mapping[str, Any]) -> str:
    """In brackets, the user's arrays with such entries, and where the first one is."""
    found = []
    for name, array in names.items():
        array = np.asarray(array) if np.issubdtype(array.dtype, np.floating) else None
        if array is not None and (bad := ~np.isfinite(array)).any():
            first = tuple(int(k) for k in np.argwhere(bad)[0])
            where = first[0] if len(first) == 1 else first
            found.append(f"'{name}' has {int(bad.sum())}, the first at {where}")
    return f" ({'; '.join(found[:3])})" if found else ""


__all__ = ["check_mean", "check_scale", "check_value"]
