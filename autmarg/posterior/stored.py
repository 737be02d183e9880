"""ArviZ's containers, in both of its generations: made, written to disk and read back.

ArviZ 0.x has ``InferenceData``, 1.x has xarray's ``DataTree``. The groups of both are xarray
datasets, so that only the container differs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autmarg.errors import RequestError

if TYPE_CHECKING:
    from xarray import Dataset

LEAD = ("chain", "draw")


def needed(package: str, method: str) -> Any:
    """An optional package.

    Args:
        package: its name.
        method: what needs it, for the message.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RequestError(
            f"{method} needs {package}: pip install 'autmarg[arviz]' ({error})"
        ) from error


def container(groups: Mapping[str, Dataset]) -> Any:
    """The ``InferenceData`` (ArviZ 0.x) or ``DataTree`` (1.x) of datasets by group."""
    arviz = needed("arviz", "to_arviz")
    if arviz.__version__.startswith("0."):
        return arviz.InferenceData(**groups)
    return needed("xarray", "to_arviz").DataTree.from_dict(dict(groups))


def is_stored(value: Any) -> bool:
    """Whether a value is a container, its posterior group, or a path to a container."""
    if isinstance(value, str | os.PathLike):
        return True
    return hasattr(value, "posterior") or type(value).__module__.startswith("xarray.")


def posterior_of(stored: Any, method: str) -> Dataset:
    """The posterior group of a container, a path, or a dataset.

    Args:
        stored: an ``InferenceData``, a ``DataTree``, a dataset with the dimensions chain and draw,
            or the path of a netCDF file or a zarr folder that one of them was saved to.
        method: who asks, for messages.

    Raises:
        RequestError: there is no such group, file or dimension.
    """
    found = _read(stored, method) if isinstance(stored, str | os.PathLike) else stored
    if hasattr(found, "posterior"):
        found = found.posterior
    if hasattr(found, "to_dataset"):  # a node of a tree
        found = found.to_dataset()
    if not hasattr(found, "data_vars") or not set(LEAD) <= set(found.dims):
        raise RequestError(
            f"{method} was given {_shown(stored)} without posterior draws: expected what "
            "marg.to_arviz returned or saved, whose posterior has the dimensions chain and draw"
        )
    return found.transpose(*LEAD, ...)


def _read(path: str | os.PathLike[str], method: str) -> Any:
    """A container from disk, whole: the file can be written again while it is in use."""
    if not os.path.exists(path):
        raise RequestError(f"{method} was given the path {str(path)!r}: found no file there")
    xarray = needed("xarray", method)
    engine = {"engine": "zarr"} if os.path.isdir(path) else {}
    try:
        with xarray.open_datatree(str(path), **engine) as tree:
            return tree.load()
    except (ImportError, OSError, ValueError) as error:
        raise RequestError(
            f"{method} cannot read {str(path)!r} as a saved fit: {error}. Expected what "
            "marg.to_arviz(…).to_netcdf(path) wrote, and pip install 'autmarg[arviz]' to read it"
        ) from error


def _shown(stored: Any) -> str:
    if isinstance(stored, str | os.PathLike):
        return f"the file {str(stored)!r}"
    return f"a {type(stored).__name__}"


__all__ = ["LEAD", "container", "is_stored", "needed", "posterior_of"]
