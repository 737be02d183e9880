"""Standard deviations and correlations of effects, as their prior has them at each draw.

They are read off the scale or the covariance factor of the prior, evaluated at every draw of θ,
so that it makes no difference how a program writes it: as a standard deviation, a precision, a
Cholesky factor of correlations with scales, a covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.roles import Prior, Roles
from autmarg.compat.programs import compiled
from autmarg.posterior.estimates import Rows, rows_of

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

_TRIED = 16  # draws at which it is seen along which axes a scale does not change
_ROWS = 24  # rows that the scales of one site may take in a table
_BLOCK = 12  # elements of one draw whose covariance is printed


@dataclass(frozen=True, eq=False)
class Variances:
    """Rows for a table, and the latents that they do not show.

    Attributes:
        rows: draws [chains, draws] by name: ``sd(u[slope])``, ``cor(u[0], u[1])``.
        deviations: effects less their prior means, [chain, draw, …] by site.
        sizes: prior standard deviation of each element, by site.
        unseen: covariance parameters of sites that have no rows.
        left: of latents under a mask, which elements it leaves.
        same: elements of covariance parameters that a row is the same as, ``tau[0]``.
    """

    rows: Rows = field(default_factory=dict)
    deviations: dict[str, DataArray] = field(default_factory=dict)
    sizes: dict[str, np.ndarray] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    left: dict[str, np.ndarray] = field(default_factory=dict)
    same: frozenset[str] = frozenset()


class At:
    """Values on a tape at all draws.

    Args:
        roles: their program.
        posterior: arrays [chains, draws, …] of all latents.
    """

    def __init__(self, roles: Roles, posterior: Mapping[str, np.ndarray]) -> None:
        self.tape = roles.program.tape
        names = [n.name for n in roles.program.latents]
        self.lead = posterior[names[0]].shape[:2]
        count = self.lead[0] * self.lead[1]
        self.flat = {n: posterior[n].reshape(count, *posterior[n].shape[2:]) for n in names}

    def __call__(
        self, number: int, then: Callable[[Any], Any] = lambda x: x, some: int | None = None
    ) -> np.ndarray:
        """``then`` of a numbered value, [chains, draws, …]; [some, …] at some draws only."""
        needs = self.tape.dependencies([number])
        point = {name: jnp.asarray(x) for name, x in self.flat.items() if name in needs}
        count = self.lead[0] * self.lead[1]
        if some is not None:
            chosen = np.linspace(0, count - 1, min(some, count)).astype(int)
            point, count = {name: x[chosen] for name, x in point.items()}, len(chosen)

        def one(values: dict[str, Any]) -> Any:
            return then(self.tape.evaluate([number], values)[0])

        if point:
            found = np.asarray(compiled(lambda p: jax.lax.map(one, p, batch_size=64))(point))
        else:
            found = np.broadcast_to((known := np.asarray(one({}))), (count, *known.shape))
        return found if some is not None else found.reshape(*self.lead, *found.shape[1:])


def variances(roles: Roles, posterior: Dataset) -> Variances:
    """Standard deviations, correlations and deviations of all effects.

    Args:
        roles: of the latents.
        posterior: draws of all sites, with their coordinates.
    """
    at = At(roles, {str(name): x.values for name, x in posterior.items()})
    found = Variances()
    for name, mask in roles.masks.items():
        found.left[name] = at(mask, some=1)[0].reshape(posterior[name].shape[2:])
    for name, prior in roles.effects.items():
        array, rows = posterior[name], None
        found.deviations[name] = _deviation(at, name, prior, array)
        if prior.scale_tril is not None:
            rows = _of_factor(at, prior, array)
        elif prior.scale is not None:
            rows = _of_scale(at, prior, array)
        if rows is None:
            found.unseen.update(prior.reads)
        elif prior.reads:
            found.rows.update(rows)
        if (sizes := _sizes(at, prior, array, found.left.get(name))) is not None:
            found.sizes[name] = sizes
    named = {k: v for n in roles.covariance for k, v in rows_of(posterior[n]).items()}
    called = {row: _same(x, named) for row, x in found.rows.items() if not row.startswith("cor(")}
    names = {row: f"{row} = {same}" for row, same in called.items() if same}
    rows = {names.get(row, row): x for row, x in found.rows.items()}
    return replace(found, rows=rows, same=frozenset(called.values()) - {""})


def _same(draws: np.ndarray, named: Rows) -> str:
    """The user's own name of a row, where an element of a site has the same draws; else ""."""
    return next((n for n, x in named.items() if np.allclose(x, draws, 1e-6, 0)), "")


def _deviation(at: At, name: str, prior: Prior, array: DataArray) -> DataArray:
    """An effect less its prior mean; itself where that depends on the effect (a chain)."""
    if name in at.tape.dependencies([prior.loc]):
        return array
    return array - at(prior.loc).reshape(array.shape)


def _sizes(at: At, prior: Prior, array: DataArray, left: np.ndarray | None) -> np.ndarray | None:
    """Prior standard deviation of each element, on average over some draws; NaN where masked."""
    shape = array.shape[2:]
    if prior.scale is not None:
        found = at(prior.scale, some=_TRIED).mean(0)
    elif prior.scale_tril is not None:
        found = at(prior.scale_tril, _deviations, some=_TRIED).mean(0)
        found = np.broadcast_to(found, (math.prod(shape) // found.shape[-1], found.shape[-1]))
    else:
        found = np.ones(shape)
    if found.size != math.prod(shape):
        return None
    found = found.reshape(shape)
    return found if left is None else np.where(left, found, np.nan)


def _of_scale(at: At, prior: Prior, array: DataArray) -> Rows | None:
    """Rows of independent elements, along those axes on which the scale changes."""
    assert prior.scale is not None
    dims = [str(d) for d in array.dims[2:]]
    tried = at(prior.scale, some=_TRIED)
    if tried.shape[1:] != array.shape[2:]:
        return None
    same = [np.ptp(tried, axis=k + 1).max(initial=0.0) == 0 for k in range(len(dims))]
    index = tuple(0 if flat else slice(None) for flat in same)
    if not tried.size or tried[(0, *index)].size > _ROWS:
        return None
    draws = at(prior.scale, lambda x: x[index])
    word = "sd" if prior.gaussian else "scale"
    labels = _labels(array, [d for d, flat in zip(dims, same, strict=True) if not flat])
    flat = draws.reshape(*at.lead, len(labels))
    return {f"{word}({array.name}{label})": flat[..., k] for k, label in enumerate(labels)}


def _of_factor(at: At, prior: Prior, array: DataArray) -> Rows | None:
    """Rows of elements that are correlated in groups, alike in all groups."""
    assert prior.scale_tril is not None
    tried = at(prior.scale_tril, some=_TRIED)
    size = tried.shape[-1]
    if not tried.size or size > _BLOCK or np.ptp(tried, axis=1).max() > 0:
        return None
    matrix = at(prior.scale_tril, lambda x: x[0] @ x[0].T)
    last = str(array.dims[-1]) if array.ndim > 2 and array.shape[-1] == size else None
    labels = _labels(array, [last]) if last else [f"[{k}]" for k in range(size)]
    names = [f"{array.name}{label}" for label in labels]
    return covariance_rows(matrix, names)


def covariance_rows(matrix: np.ndarray, names: list[str]) -> Rows:
    """Standard deviations and correlations of covariance matrices [chains, draws, d, d]."""
    scale = np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))
    rows = {f"sd({name})": scale[..., k] for k, name in enumerate(names)}
    with np.errstate(invalid="ignore"):  # NaN where a deviation is zero
        correlations = matrix / (scale[..., :, None] * scale[..., None, :])
    return rows | correlation_rows(correlations, names)


def correlation_rows(matrix: np.ndarray, names: list[str]) -> Rows:
    """Correlations of matrices [chains, draws, d, d], each pair once."""
    return {
        f"cor({names[j]}, {names[k]})": matrix[..., j, k]
        for k in range(len(names))
        for j in range(k)
    }


def _deviations(factor: Any) -> Any:
    """[G, d, d] → standard deviations [G, d]."""
    return jnp.sqrt(jnp.square(factor).sum(-1))


def _labels(array: DataArray, dims: list[str]) -> list[str]:
    """``[slope]`` for each entry along some axes, "" where there is none."""
    known = [array.coords[d].values if d in array.coords else range(array.sizes[d]) for d in dims]
    shape = tuple(len(own) for own in known)
    inside = [
        ", ".join(str(own[k]) for own, k in zip(known, index, strict=True))
        for index in np.ndindex(*shape)
    ]
    return [f"[{text}]" if text else "" for text in inside]


__all__ = ["Variances", "correlation_rows", "covariance_rows", "variances"]
