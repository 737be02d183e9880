"""Which observations are left out together: groups by a plate, by an index, or as given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from autmarg.errors import RequestError, did_you_mean
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.posterior.units import batch_of

_TOLERANCE = 1e-4  # of a ratio of derivatives that is a plate's index


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of observations.

    Attributes:
        of: by site, the group of each observation, of its batch shape; -1 for none.
        count: number of groups.
    """

    of: Mapping[str, np.ndarray]
    count: int


def groups_of(
    by: Any,
    source: Callable[..., Any],
    program: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    point: Callable[[], Mapping[str, Any]],
) -> Groups:
    """Groups of the observations of all observed sites.

    Args:
        by: the name of an argument of the model or of a plate, an array with the group of each
            observation, or a dict of such arrays by site.
        source: the model; ``args`` and ``kwargs`` are its arguments.
        program: the traced source.
        point: gives values of all latents, and of traced constants.

    Raises:
        RequestError: there is no such argument or plate, or it does not say the groups.
    """
    if by is None:
        raise RequestError(
            "log_likelihood(which='group') needs by=: the name of a plate or of an index argument "
            "of the model, or an array with the group of each observation"
        )
    if not isinstance(by, str):
        return _given(by, program.observed, "by")
    bound = inspect.signature(source).bind(*args, **kwargs)
    bound.apply_defaults()
    plates = {plate.name for plate in program.plates}
    # (a plate often has the name of its size)
    if by in bound.arguments and not (by in plates and np.ndim(bound.arguments[by]) == 0):
        return _given(bound.arguments[by], program.observed, f"the argument '{by}'")
    if by not in plates:
        known = sorted({*plates, *bound.arguments})
        raise RequestError(
            f"by='{by}' is neither an argument nor a plate of '{program.name}'"
            f"{did_you_mean(by, known)}: expected one of {known}, or an array with the group of "
            "each observation"
        )
    return _by_plate(by, program, point)


def _given(ids: Any, sites: tuple[Observe, ...], what: str) -> Groups:
    """Groups from their labels; equal labels of two sites are one group."""
    arrays = ids if isinstance(ids, Mapping) else {node.name: ids for node in sites}
    found = []
    for node in sites:
        own = arrays.get(node.name)
        if isinstance(own, Tracer):
            raise RequestError(f"{what} is traced, and groups must be known: pass it outside jit")
        batch = batch_of(node)
        array = np.asarray(own)
        if own is None or array.shape != batch:
            shape = "none" if own is None else f"shape {array.shape}"
            raise RequestError(
                f"{what} has {shape} for the observed site '{node.name}', whose observations have "
                f"shape {batch}: expected the group of each; for sites of several shapes, a dict "
                "by site"
            )
        found.append(array.reshape(-1))
    names, codes = np.unique(np.concatenate(found), return_inverse=True)
    each = np.split(codes.reshape(-1), np.cumsum([len(x) for x in found])[:-1])
    pairs = zip(sites, each, strict=True)
    return Groups({n.name: x.reshape(batch_of(n)) for n, x in pairs}, len(names))


def _by_plate(name: str, program: Program, point: Callable[[], Mapping[str, Any]]) -> Groups:
    """The place of each observation in a plate: its own, or that of the latents that it reads."""
    size = next(plate.size for plate in program.plates if plate.name == name)
    found, values = {}, None
    for node in program.observed:
        index = _place(node, name, batch_of(node))
        if index is None:
            values = point() if values is None else values
            index = _read_by(node, name, program, values)
        found[node.name] = index
    return Groups(found, size)


def _place(node: Sample, name: str, batch: tuple[int, ...]) -> np.ndarray | None:
    """The index along a plate of each element of a site's batch; None where it is not in it."""
    for plate in node.plates:
        if plate.name == name:
            shape = np.ones(len(batch), np.int64)
            shape[plate.dim] = plate.size
            return np.broadcast_to(np.arange(plate.size).reshape(shape), batch)
    return None


def _read_by(node: Observe, name: str, program: Program, values: Mapping[str, Any]) -> np.ndarray:
    """The index along a plate of the latents that each observation reads, -1 where it reads none.

    Let the latents move by t_g, g being their index: the derivative of an observation's log-density
    is then proportional to t_g where it reads one index alone. t = 1, t = g and a random t say
    which.
    """
    inside = {}
    for latent in program.latents:
        batch = latent.shape[: len(latent.shape) - len(latent.distribution.event_shape)]
        index = _place(latent, name, batch)
        if index is not None and jnp.issubdtype(latent.dtype, jnp.floating):
            rest = (1,) * (len(latent.shape) - len(batch))
            inside[latent.name] = np.broadcast_to(index.reshape(*batch, *rest), latent.shape)
    where = f"by='{name}': the observed site '{node.name}' ({node.place})"
    remedy = "pass the group of each observation instead, as an array or by an argument's name"
    if not inside:
        raise RequestError(f"{where} is not in this plate, and no latent is; {remedy}")
    own = {n: jnp.asarray(values[n]) for n in inside}

    def log_prob(own: Mapping[str, Any]) -> Any:
        given = {**values, **own}
        fn = node.distribution.build(program.tape, given)
        return fn.log_prob(program.tape.evaluate([node.value], given)[0])

    size = 1 + max(int(index.max()) for index in inside.values())
    weights = np.stack([np.ones(size), np.arange(size), np.random.default_rng(0).normal(size=size)])

    def along(t: Any) -> Any:
        moved = {n: jnp.asarray(t[index], own[n].dtype) for n, index in inside.items()}
        return jax.jvp(log_prob, (own,), (moved,))[1]

    one, by_index, random = (np.asarray(x) for x in jax.vmap(along)(jnp.asarray(weights)))
    reads = (one != 0) | (random != 0)
    ratio = by_index / np.where(one != 0, one, np.nan)
    index = np.rint(np.where(np.isfinite(ratio), ratio, -1)).astype(np.int64)
    valid = (index >= 0) & (index < size)
    expected = weights[2][np.where(valid, index, 0)] * one
    alike = np.abs(random - expected) <= _TOLERANCE * np.abs(one) * max(1.0, 1e-7 * size**2)
    alike &= np.abs(by_index - index * one) <= _TOLERANCE * size * np.abs(one)
    if (reads & ~(valid & alike)).any():
        raise RequestError(
            f"{where} reads latents of several places of this plate in one observation; {remedy}"
        )
    if not reads.any():
        raise RequestError(f"{where} reads no latent of this plate; {remedy}")
    index = np.where(reads, index, -1)
    return np.broadcast_to(index, batch_of(node))


__all__ = ["Groups", "groups_of"]
