"""A model that fails on its arguments: which argument it is, and what to pass instead."""

from __future__ import annotations

import contextlib
import dis
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from autmarg.errors import ModelError, named
from autmarg.ir.tape import is_library
from autmarg.trace.columns import is_column, named_values
from autmarg.trace.record import INSTALLED, Mismatch, name_of, place_of_error, said

_LISTED = 6
_FAILURES = (TypeError, ValueError, IndexError, AttributeError)
_MISSING = "an integer or boolean column with missing values"


@contextlib.contextmanager
def explained(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Generator[None, None, None]:
    """Say in words why a model's operations cannot take its arguments.

    What the user's own code raises is left as it is, and so is an index or a key of theirs that is
    not there, where nothing is to be said of the arguments.

    Raises:
        ModelError: a library that the model called raised, or an argument cannot be an array.
    """
    check_width(model, args, kwargs)
    try:
        yield
    except Mismatch as error:
        hints = _lengths(model, args, kwargs)
        raise ModelError("\n  ".join([str(error), *hints])) from error
    except jax.errors.JAXTypeError:
        raise
    except _FAILURES as error:
        if _raised_by_user(error, on_purpose=True):
            raise
        hints = [*_not_arrays(model, args, kwargs), *_plain(error, model, args, kwargs)]
        if not isinstance(error, AttributeError):
            hints += _lengths(model, args, kwargs)
        if isinstance(error, LookupError) and not hints and _raised_by_user(error):
            raise
        place = place_of_error(error)
        where = f" at {place}" if place else ""
        words = [
            f"the model '{name_of(model)}' fails{where} with the arguments that it was given: "
            f"{type(error).__name__}: {said(error)}",
            *hints,
        ]
        raise ModelError("\n  ".join(words)) from error


def check_width(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Raise for 64-bit integers that JAX would wrap to 32 bits without a word.

    Raises:
        ModelError: there are some among the arguments, or in what the model closes over.
    """
    if jax.config.read("jax_enable_x64"):
        return
    for name, value in named_values(model, args, kwargs):
        if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "iu":
            continue
        narrow = np.iinfo(np.int32 if value.dtype.kind == "i" else np.uint32)
        if value.dtype.itemsize == 8 and value.size:
            low, high = int(value.min()), int(value.max())
            if low < narrow.min or high > narrow.max:
                raise ModelError(
                    f"'{name}' has integers beyond 32 bits ({low} to {high}), which JAX wraps to "
                    "other numbers in a session without 64 bits: expected codes 0, 1, … (codes = "
                    "np.unique(ids, return_inverse=True)[1]), or numpyro.enable_x64() first"
                )


def _not_arrays(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    """One line for each argument that is not numeric."""
    seen: set[int] = set()
    for name, value in named_values(model, args, kwargs):
        if id(value) in seen or not (is_column(value) or isinstance(value, np.ndarray)):
            continue
        seen.add(id(value))
        if problem := _problem(name, value):
            yield problem


def _problem(name: str, value: Any) -> str:
    """What is wrong with a column or an array, and what to pass instead."""
    column = getattr(value, "_column", None)
    array = np.asarray(value)
    kind = getattr(column if column is not None else value, "dtype", None)
    kind = kind if kind is not None else getattr(value, "type", array.dtype)
    if column is not None:
        whole = str(kind).lower().startswith(("int", "uint"))
        lost = int(np.isnan(array).sum()) if whole and array.dtype.kind == "f" else 0
        return f"'{name}' is {_MISSING} ({lost} of {len(array)}): {_FILL}" if lost else ""
    if hasattr(kind, "categories") or "dictionary" in str(kind) or array.dtype.kind in "US":
        return f"'{name}' is a column of categories or strings ({kind}): {_CODE}"
    if array.dtype.kind in "mM":
        return (
            f"'{name}' is a column of dates or times ({kind}): expected numbers, e.g. days since "
            "the first, (x - x.min()) / np.timedelta64(1, 'D')"
        )
    if array.dtype.kind != "O":
        if is_column(value):
            return f"'{name}' is a {type(value).__name__} ({kind}): pass np.asarray({name})"
        return ""
    entries = array.reshape(-1).tolist()
    kinds = sorted({type(entry).__name__ for entry in entries})
    if any(isinstance(entry, str) for entry in entries):
        if is_column(value):
            return f"'{name}' is a column of categories or strings ({kind}): {_CODE}"
        return f"'{name}' is an array of objects with strings among them: {_CODE}"
    if _is_boolean(kind):
        return f"'{name}' is {_MISSING}: {_FILL}"
    return (
        f"'{name}' is an array of objects ({', '.join(kinds[:4])}): expected numbers, e.g. "
        "np.asarray(x, float), with missing values as NaN"
    )


_CODE = (
    "expected numbers; code it, codes, levels = pd.factorize(x) (or x.cat.codes of a category), "
    "and pass codes and len(levels)"
)
_FILL = "expected a value in each row; drop these rows, or fill them and mask the rows"


def _is_boolean(kind: Any) -> bool:
    return str(kind).lower().startswith("bool")


def _lengths(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    """The lengths of the arrays, where they differ."""
    shapes = {
        name: np.shape(value)
        for name, value in named_values(model, args, kwargs)
        if isinstance(value, jax.Array | np.ndarray) and np.ndim(value)
    }
    if len({shape[0] for shape in shapes.values()}) > 1:
        some = [f"{name} {shape}" for name, shape in list(shapes.items())[:_LISTED]]
        yield f"the arrays have the shapes {', '.join(some)}: check their lengths"


def _plain(
    error: Exception, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    """Arguments that are None or a list, where the failure speaks of one."""
    for kind in (type(None), list, tuple):
        if f"'{kind.__name__}'" in str(error):
            found = [n for n, v in named_values(model, args, kwargs) if type(v) is kind]
            if found:
                one = len(found) == 1
                lists = "is a list" if one else "are lists"
                empty = f"{named(found)} {'is' if one else 'are'} None: pass a value"
                listed = f"{named(found)} {lists}: pass np.asarray({found[0]})"
                yield listed if kind in (list, tuple) else empty


def _raised_by_user(error: BaseException, *, on_purpose: bool = False) -> bool:
    """Whether a line of the user's raised an exception; ``on_purpose``: with ``raise``."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    if is_library(code.co_filename) or code.co_filename.startswith(INSTALLED):
        return False
    operation = dis.opname[code.co_code[traceback.tb_lasti]]
    return not on_purpose or operation.startswith(("RAISE", "RERAISE"))


__all__ = ["check_width", "explained"]
