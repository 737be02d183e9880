"""How fast this machine is, for what the planner predicts: three speeds, read from a file.

The costs of :mod:`autmarg.plan.pricing` are those of one machine; on another they are taken in
proportion to what `autmarg calibrate` has measured there (:mod:`autmarg.calibrate`). Without it,
they are as they stand.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from autmarg.errors import RequestError

_VARIABLE = "AUTMARG_MACHINE"  # names the file of the speeds; empty: none, the reference


@dataclass(frozen=True)
class Speeds:
    """Nanoseconds in float64, in a compiled loop.

    Attributes:
        product: of a multiply-add in a product of two matrices of 256 columns.
        element: of an element that is gathered, multiplied and added, of 100,000.
        kernel: of a small operation of its own.
    """

    product: float = 0.025
    element: float = 1.1
    kernel: float = 22.0

    def over(self, other: Speeds) -> Speeds:
        """How many times as slow as ``other``."""
        return Speeds(**{n: value / getattr(other, n) for n, value in asdict(self).items()})


REFERENCE = Speeds()


def place() -> Path | None:
    """The file of this machine's speeds: by ``AUTMARG_MACHINE``, else in the user's cache."""
    named = os.environ.get(_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "autmarg" / "machine.json"


def slowness() -> Speeds:
    """How many times as slow as the reference this machine is; ones where it is not known.

    Raises:
        RequestError: the file is not one of speeds.
    """
    file = place()
    return _read(file) if file is not None and file.exists() else REFERENCE.over(REFERENCE)


@cache
def _read(file: Path) -> Speeds:
    try:
        found = json.loads(file.read_text())
        speeds = Speeds(**{each.name: float(found[each.name]) for each in fields(Speeds)})
        if min(asdict(speeds).values()) <= 0:
            raise ValueError("a speed that is not positive")
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(
            f"{file}: expected the speeds that 'autmarg calibrate' writes, found "
            f"{type(error).__name__}: {error}; delete it, or calibrate again"
        ) from error
    return speeds.over(REFERENCE)


def save(speeds: Speeds, file: Path) -> None:
    """Write speeds to a file, for the plans of this and of later processes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(speeds), indent=2) + "\n")
    _read.cache_clear()
