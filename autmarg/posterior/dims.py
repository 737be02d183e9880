"""Dimensions and coordinates of sites: plates by name, levels by the user's labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autmarg.errors import RequestError, did_you_mean
from autmarg.ir.nodes import Deterministic, Node, Plate, Sample
from autmarg.ir.program import Program
from autmarg.posterior.labels import Axis, level_names, origins, storable
from autmarg.posterior.stored import LEAD, needed

if TYPE_CHECKING:
    from xarray import Dataset

Names = dict[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Dims:
    """Names of all axes of all sites, and labels along them.

    Attributes:
        names: dimensions by site, without chain and draw.
        sizes: of each dimension.
        coords: labels by dimension, where they are not 0, 1, ….
    """

    names: Names
    sizes: dict[str, int]
    coords: dict[str, np.ndarray]

    def dataset(
        self,
        arrays: Mapping[str, Any],
        lead: Sequence[str] = LEAD,
        attrs: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Arrays [*lead, …] by site as one dataset; axes without a name are ``<site>_dim_<k>``."""
        xarray = needed("xarray", "to_arviz")
        found, sizes = {}, {}
        for name, value in arrays.items():
            array = np.asarray(value)
            own = array.shape[len(lead) :]
            dims = (*lead, *self._fitting(name, own))
            sizes |= dict(zip(dims, array.shape, strict=True))
            found[name] = (dims, array)
        coords = {d: self.coords.get(d, np.arange(n)) for d, n in sizes.items()}
        return xarray.Dataset(found, coords=coords, attrs=dict(attrs or {}))

    def _fitting(self, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Names for the axes of an array.

        A log-density has only the first of its site's axes, and an argument may have a site's name.
        """
        names = self.names.get(name, ())[: len(shape)]
        if any(self.sizes[own] != size for own, size in zip(names, shape, strict=False)):
            names = ()
        return (*names, *(f"{name}_dim_{k}" for k in range(len(names), len(shape))))


def dims_of(
    program: Program,
    named: Iterable[tuple[str, Any]],
    coords: Mapping[str, Any] | None,
    dims: Mapping[str, Sequence[str]] | None,
    others: Mapping[str, tuple[int, ...]] | None = None,
) -> Dims:
    """Dimensions of all sites of a program.

    A plate gives its name to the axis that it stands for, ``infer={"event_dims": […]}`` to the last
    axes, and categorical arguments their labels to what they index.

    Args:
        program: the source program, as traced.
        named: its arguments by name.
        coords, dims: what the user says; both go before what the program says.
        others: shapes of arrays that are no sites, by name.

    Raises:
        RequestError: ``dims`` names no site or more axes than it has, or labels do not fit.
    """
    shapes = {node.name: _shape(program, node) for node in program.nodes if _held(node)}
    taken = {*shapes, *LEAD}
    names = _from_plates(program, shapes, taken)
    known = {**(others or {}), **shapes}
    for name, given in (dims or {}).items():
        names[name] = _asked(name, tuple(given), names.get(name, ()), known, taken)
    sizes = _sizes(names, known)
    for (site, axis), labels in level_names(program, named).items():
        sizes.setdefault(_at(names, site, axis), {}).setdefault("labels", labels)
    lengths = {name: own["size"] for name, own in sizes.items()}
    return Dims(names, lengths, _coords(sizes, coords or {}))


def _held(node: Node) -> bool:
    return isinstance(node, Sample | Deterministic)


def _shape(program: Program, node: Node) -> tuple[int, ...]:
    return node.shape if isinstance(node, Sample) else program.tape.avals[node.value].shape  # pyright: ignore


def _from_plates(program: Program, shapes: Mapping[str, tuple[int, ...]], taken: set[str]) -> Names:
    """Names by plates; deterministic sites also have those of the sites they are computed from."""
    called = _called(program, taken)
    names: Names = {}
    for node in program.nodes:
        if not _held(node):
            continue
        shape = shapes[node.name]
        events = _events(node, shape)
        own = {} if events is None else _plates(node, shape, events, called)
        if isinstance(node, Sample):
            last = tuple(node.infer.get("event_dims", ()))
            if len(last) == events:
                own |= {len(shape) - len(last) + k: name for k, name in enumerate(last)}
        names[node.name] = _complete(node.name, shape, own)
    plates = set(called.values())
    for node in program.nodes:
        if isinstance(node, Deterministic):
            own = dict(enumerate(names[node.name]))
            for axis in range(len(shapes[node.name])):
                found = {
                    _at(names, *origin)
                    for origin in origins(program.tape, node.value, axis)
                    if origin[0] in names
                } & plates
                if own[axis] not in plates and len(found) == 1 and not found & set(own.values()):
                    own[axis] = found.pop()
            names[node.name] = tuple(own.values())
    return names


def _called(program: Program, taken: set[str]) -> dict[Plate, str]:
    """A dimension for each plate: its name, unless a site has it or its size differs by place."""
    sizes: dict[str, set[int]] = {}
    for plate in program.plates:
        sizes.setdefault(plate.name, set()).add(plate.size)
    called = {}
    for plate in program.plates:
        name = plate.name if len(sizes[plate.name]) == 1 else f"{plate.name}_{plate.size}"
        called[plate] = f"{name}_dim" if name in taken else name
    return called


def _events(node: Node, shape: tuple[int, ...]) -> int | None:
    """How many of the last axes belong to one draw; None where that is not known.

    NumPyro does not say it of a deterministic site: its axes fit the plates in one way, or not.
    """
    if isinstance(node, Sample):
        return len(node.distribution.event_shape)
    fitting = [
        events
        for events in range(len(shape))
        if all(
            (axis := len(shape) - events + p.dim) >= 0 and shape[axis] == p.size
            for p in node.plates
        )
    ]
    return fitting[0] if node.plates and len(fitting) == 1 else None


def _plates(
    node: Node, shape: tuple[int, ...], events: int, called: Mapping[Plate, str]
) -> dict[int, str]:
    own: dict[int, str] = {}
    for plate in node.plates:
        axis = len(shape) - events + plate.dim
        if axis >= 0 and shape[axis] == plate.size and called[plate] not in own.values():
            own[axis] = called[plate]
    return own


def _complete(name: str, shape: tuple[int, ...], own: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(own.get(k, f"{name}_dim_{k}") for k in range(len(shape)))


def _at(names: Names, site: str, axis: int) -> str:
    return names[site][axis]


def _asked(
    name: str,
    given: tuple[str, ...],
    present: tuple[str, ...],
    shapes: Mapping[str, tuple[int, ...]],
    taken: set[str],
) -> tuple[str, ...]:
    """The dimensions of a site with the user's names for the first of them."""
    if name not in shapes:
        raise RequestError(
            f"dims names '{name}', which is no site or array argument{did_you_mean(name, shapes)}: "
            f"expected one of {sorted(shapes)}"
        )
    if len(given) > len(shapes[name]):
        raise RequestError(
            f"dims names {len(given)} dimensions of '{name}', {list(given)}: it has the shape "
            f"{shapes[name]} without chain and draw"
        )
    if clashing := sorted(set(given) & taken):
        raise RequestError(
            f"dims calls a dimension {clashing[0]!r}, which is the name of a site or of a "
            "dimension of all draws: expected another"
        )
    whole = present or _complete(name, shapes[name], {})
    return (*given, *whole[len(given) :])


def _sizes(names: Names, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """Size of each dimension.

    Raises:
        RequestError: one name stands for two sizes.
    """
    sizes: dict[str, dict[str, Any]] = {}
    for site, own in names.items():
        for name, size in zip(own, shapes[site], strict=True):
            known = sizes.setdefault(name, {"size": size, "site": site})
            if known["size"] != size:
                raise RequestError(
                    f"the dimension '{name}' has {size} entries in '{site}' and {known['size']} in "
                    f"'{known['site']}': expected another name in dims for one of them"
                )
    return sizes


def _coords(
    sizes: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Labels by dimension: the user's, else those of categorical arguments."""
    coords = {name: own["labels"] for name, own in sizes.items() if "labels" in own}
    for name, labels in given.items():
        array = storable(labels)
        if name not in sizes:
            raise RequestError(
                f"coords names '{name}', which is no dimension{did_you_mean(name, sizes)}: "
                f"expected one of {sorted(sizes)}, or name dimensions with dims={{site: [name, …]}}"
            )
        if array.shape != (sizes[name]["size"],):
            raise RequestError(
                f"coords has {array.size} labels for '{name}', which has {sizes[name]['size']} "
                "entries"
            )
        coords[name] = array
    return coords


__all__ = ["Axis", "Dims", "dims_of"]
