"""Executables by their program: shared in a process, and kept on disk between them.

A program is known by its name (:mod:`autmarg.compat.names`), or by the text that JAX compiles. On
disk each executable has its own file. The file's name is a hash of the program, the versions of JAX
and of the compiler, XLA's flags and the processor: what was compiled for another machine is never
found. A file that cannot be read or written is left alone, with a warning: nothing depends on it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import sys
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from autmarg.compat.xla import quick, sooner
from autmarg.errors import RequestError

_KEPT = 64  # executables of a process
_MOST = 512 * 2**20  # bytes of all files
_EXECUTABLES: OrderedDict[bytes, Any] = OrderedDict()
_UNREADABLE = (  # what a file that is cut off, or of another version, may raise
    OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, LookupError,
    pickle.UnpicklingError, jax.errors.JaxRuntimeError,
)  # fmt: skip
_VARIABLE = "AUTMARG_CACHE"


class _Disk:
    """Where executables are kept; ``folder`` is None while they are not, or until it is decided."""

    folder: Path | None = None
    decided = False


def enable_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs on disk, for later processes; ``marg.sample`` does so by itself.

    Numbers (data, cross-products) are arguments of these programs: data of the same shape and
    grouping find them, too. The folder holds up to 512 MB, of which the least recently used goes
    first, and can be deleted at any time. Its files are trusted: it should be yours alone.

    Args:
        folder: where; by default ``$AUTMARG_CACHE``, or ``autmarg`` in the user's folder for
            caches.

    Returns:
        The folder; None where ``AUTMARG_CACHE`` is set and empty, which keeps nothing.

    Raises:
        RequestError: it is a file. (One that cannot be read or written makes a warning later.)
    """
    wanted = os.environ.get(_VARIABLE) if folder is None else folder
    found = Path(wanted) if wanted else (_usual() if wanted is None else None)
    if found is not None and found.is_file():
        raise RequestError(f"enable_cache was given the file {found}: expected a folder")
    _Disk.folder, _Disk.decided = found, True
    return found


def enable_usual_cache() -> None:
    """The same for the usual folder, unless that was decided already."""
    if not _Disk.decided:
        enable_cache()


def _usual() -> Path:
    """The user's folder for caches."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "autmarg"


def executable(
    lower: Callable[[], Any],
    numbers: int,
    *,
    name: Callable[[], str | None],
    briefly: bool = False,
) -> Any:
    """The executable of a program, which all programs of the same text, or name, share.

    Args:
        lower: gives what ``jax.jit(…).lower(…)`` gives.
        numbers: how many of its arguments are numbers that the function closes over.
        name: gives the program's name, if it has one, for which it is only lowered to be compiled.
            It is not asked while nothing is kept on disk: a program is then lowered in most cases.
        briefly: whether it runs for so short a time that its compilation is to be the quickest.
    """
    options = quick() if briefly else sooner()
    known, lowered = name() if _Disk.folder is not None else None, None
    if known is None:
        lowered = lower()
        known = lowered.as_text()
    key = hashlib.sha256(f"{numbers} {sorted(options.items())} {known}".encode()).digest()
    if key not in _EXECUTABLES:
        while len(_EXECUTABLES) >= _KEPT:
            _EXECUTABLES.popitem(last=False)
        _EXECUTABLES[key] = _read(key) or _compiled(key, lowered or lower(), options)
    _EXECUTABLES.move_to_end(key)
    return _EXECUTABLES[key]


def _compiled(key: bytes, lowered: Any, options: dict[str, Any]) -> Any:
    found = lowered.compile(compiler_options=options)
    _write(key, found)
    return found


@cache
def _machine() -> str:
    """What an executable depends on besides its program."""
    versions = [jax.__version__, version("jaxlib"), jax.default_backend()]
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    flags = os.environ.get("XLA_FLAGS", "")
    return " ".join([*versions, *kinds, flags, platform.machine(), _processor()])


def _processor() -> str:
    """The processor's model and instructions, where the system tells."""
    about = Path("/proc/cpuinfo")
    if not about.exists():
        return platform.processor()
    lines = about.read_text().splitlines()
    own = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return " ".join(sorted(own))


def _path(key: bytes) -> Path | None:
    if _Disk.folder is None:
        return None
    name = hashlib.sha256(key + _machine().encode()).hexdigest()
    return _Disk.folder / f"{name}.executable"


def _read(key: bytes) -> Any:
    """An executable from disk; None where it is not there."""
    path = _path(key)
    if path is None or not path.exists():
        return None
    try:
        found = serialize_executable.deserialize_and_load(*pickle.loads(path.read_bytes()))
        os.utime(path)
    except _UNREADABLE as error:
        _warn("read", path, error)
        return None
    return found


def _write(key: bytes, found: Any) -> None:
    """Put an executable on disk, whole or not at all, and the oldest ones away."""
    path = _path(key)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = pickle.dumps(serialize_executable.serialize(found))
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
        _prune(path.parent)
    except (OSError, ValueError, pickle.PicklingError, jax.errors.JaxRuntimeError) as error:
        _warn("write", path, error)


def _prune(folder: Path) -> None:
    files = sorted(folder.glob("*.executable"), key=lambda f: -f.stat().st_mtime)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > _MOST:
            file.unlink(missing_ok=True)


def _warn(what: str, path: Path, error: Exception) -> None:
    remedy = "Delete the file" if what == "read" else "Make the folder writable"
    warnings.warn(
        f"autmarg cannot {what} the compiled program {path} and goes on without it: {error}. "
        f"{remedy}, or set {_VARIABLE} to another folder, or to nothing",
        stacklevel=2,
    )


__all__ = ["enable_cache", "enable_usual_cache", "executable"]
