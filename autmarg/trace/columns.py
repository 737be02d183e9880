"""Columns of tables (pandas, polars, pyarrow, …) among a model's arguments, as arrays.

No such library is imported: a column is whatever says by ``__array__`` how it becomes an array.
A numeric column becomes an array at the door. It still has the methods of the column that it was
made from, so that a model may ask ``x.nunique()`` as well as compute ``jnp.exp(x)``. A column that
is not numeric (strings, categories, dates) is passed on as it is, since a model may code it itself;
where the model then fails, the error says how. Whole tables give out their columns in this way.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from autmarg.trace.tables import as_table, is_converted

_NUMERIC = "iufbc"
_TABLE = ("columns", "column_names")  # attributes of a table, not of a column
_SPREADS = ("pandas", "polars")  # whose std() divides by n - 1


class Column(np.ndarray):
    """A numeric column as an array, with the column's own methods where an array has none."""

    _column: Any = None
    _ddof: int = 0

    def __array_finalize__(self, obj: Any) -> None:
        self._ddof = getattr(obj, "_ddof", 0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._column is None:
            raise AttributeError(f"a column as an array has no attribute '{name}'")
        found = getattr(self._column, name)
        if not callable(found):
            return as_array(found)

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            return as_array(found(*args, **kwargs))

        return call

    def std(self, *args: Any, ddof: int | None = None, **kwargs: Any) -> Any:
        """The standard deviation, with the column's own degrees of freedom."""
        return super().std(*args, ddof=self._ddof if ddof is None else ddof, **kwargs)

    def var(self, *args: Any, ddof: int | None = None, **kwargs: Any) -> Any:
        """The variance, with the column's own degrees of freedom."""
        return super().var(*args, ddof=self._ddof if ddof is None else ddof, **kwargs)


def as_array(value: Any) -> Any:
    """A numeric column as an array, a table with such columns, anything else as it is."""
    if is_table(value):
        return as_table(value, as_array)
    if not is_column(value) or _is_categorical(value):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in _NUMERIC:
        return value
    column = array.view(Column)
    column._column = value
    column._ddof = int(type(value).__module__.partition(".")[0] in _SPREADS)
    return column


def as_arrays(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with their numeric columns as arrays, inside of lists, tuples and dicts, too."""
    return tuple(map(_inside, args)), {name: _inside(value) for name, value in kwargs.items()}


def _inside(value: Any) -> Any:
    """The value itself where no column is in it."""
    kind = type(value)
    if kind is dict:
        new = {key: _inside(entry) for key, entry in value.items()}
        return new if any(new[key] is not value[key] for key in new) else value
    if kind in (list, tuple) or hasattr(value, "_asdict"):
        entries = [_inside(entry) for entry in value]
        if all(one is two for one, two in zip(entries, value, strict=True)):
            return value
        return kind(*entries) if hasattr(value, "_asdict") else kind(entries)
    return as_array(value)


def is_column(value: Any) -> bool:
    """Whether a value is not an array, and says how it becomes one of one dimension."""
    return _is_foreign(value) and not _has_columns(value)


def is_table(value: Any) -> bool:
    """Whether a value is a table, whose columns are not converted yet."""
    return _is_foreign(value) and _has_columns(value) and not is_converted(value)


def _has_columns(value: Any) -> bool:
    return any(hasattr(value, name) for name in _TABLE)


def _is_foreign(value: Any) -> bool:
    if isinstance(value, jax.Array | np.ndarray | np.generic | type):
        return False
    return hasattr(type(value), "__array__") and hasattr(type(value), "__len__")


def _is_categorical(value: Any) -> bool:
    kind = getattr(value, "dtype", getattr(value, "type", None))
    return hasattr(kind, "categories") or "dictionary" in str(kind)


def with_arrays(model: Callable[..., Any]) -> Callable[..., Any]:
    """A model whose own numeric columns are arrays: those that a ``partial`` binds, or that the
    function closes over or reads from its module. The model itself where it has none."""
    if isinstance(model, functools.partial):
        args, kwargs = as_arrays(model.args, model.keywords)
        return functools.partial(with_arrays(model.func), *args, **kwargs)
    if inspect.ismethod(model):
        return types.MethodType(model.__func__, _with_attributes(model.__self__))
    if not inspect.isfunction(model):
        return _with_attributes(model)
    cells = [_cell(cell) for cell in model.__closure__ or ()]
    outside = {n: model.__globals__.get(n) for n in model.__code__.co_names}
    changed = {n: as_array(v) for n, v in outside.items() if is_column(v)}
    defaults, named = as_arrays(model.__defaults__ or (), model.__kwdefaults__ or {})
    same = all(a is b for a, b in zip(cells, model.__closure__ or (), strict=True))
    plain = all(a is b for a, b in zip(defaults, model.__defaults__ or (), strict=True))
    plain &= all(v is (model.__kwdefaults__ or {})[n] for n, v in named.items())
    if same and plain and not changed:
        return model
    scope = {**model.__globals__, **changed}
    made = types.FunctionType(
        model.__code__, scope, model.__name__, defaults or None, tuple(cells) or None
    )
    made.__kwdefaults__ = named or None
    return functools.update_wrapper(made, model, updated=("__dict__",))


def _with_attributes(model: Any) -> Any:
    """An object that is a model, or a handler around one, with arrays for its columns."""
    own = getattr(model, "__dict__", {})
    new = {name: _inside(value) for name, value in own.items()}
    if callable(own.get("fn")):
        new["fn"] = with_arrays(own["fn"])
    if all(new[name] is own[name] for name in own):
        return model
    copied = copy.copy(model)
    vars(copied).update(new)
    return copied


def _cell(cell: Any) -> Any:
    if cell == types.CellType() or not is_column(cell.cell_contents):
        return cell
    return types.CellType(as_array(cell.cell_contents))


def named_values(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What the user's function reads, by the user's names: arguments, and what it closes over.

    Entries of mappings and named tuples, and columns of tables, have their own names.
    """
    while not inspect.isfunction(model):
        if isinstance(model, functools.partial):
            args, kwargs = (*model.args, *args), {**model.keywords, **kwargs}
            model = model.func
        elif hasattr(model, "fn"):  # a handler around a model
            model = model.fn
        elif inspect.ismethod(model):
            args, model = (_Attributes(vars(model.__self__)), *args), model.__func__
        elif inspect.isfunction(getattr(type(model), "__call__", None)):  # noqa: B004
            args, model = (_Attributes(vars(model)), *args), type(model).__call__
        else:
            break
    scopes: list[Mapping[str, Any]] = [dict(kwargs)]
    if inspect.isfunction(model):
        code = model.__code__
        cells = zip(code.co_freevars, model.__closure__ or (), strict=True)
        scopes = [
            dict(zip(code.co_varnames[: code.co_argcount], args, strict=False)),
            dict(kwargs),
            {n: cell.cell_contents for n, cell in cells if cell != types.CellType()},
            {n: model.__globals__[n] for n in code.co_names if n in model.__globals__},
            {f"argument {k + 1}": args[k] for k in range(code.co_argcount, len(args))},
        ]
    else:
        scopes.append({f"argument {k + 1}": value for k, value in enumerate(args)})
    for scope in scopes:
        for name, value in scope.items():
            yield from _entries(name, value)


class _Attributes(dict[str, Any]):
    """What an object that is a model, or has one, knows itself."""


def _entries(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    fields = value._asdict() if hasattr(value, "_asdict") else value
    if isinstance(fields, Mapping):
        for key, entry in fields.items():
            yield from _entries(str(key), entry)
    elif isinstance(value, list | tuple):
        if all(isinstance(entry, int | float | bool | str) for entry in value):
            yield name, value
            return
        for k, entry in enumerate(value):
            yield from _entries(f"{name}[{k}]", entry)
    elif _is_foreign(value) and hasattr(value, "columns"):
        for key in getattr(value, "column_names", value.columns):
            if isinstance(key, str):
                yield from _entries(f"{name}[{key!r}]", value[key])
    else:
        yield name, value


def data_key(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """A hash of the numbers that a model reads, by name, whatever kind of array they are in."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(named_values(model, args, kwargs), key=lambda pair: pair[0]):
        plain = isinstance(value, bool | int | float | str | list | tuple)
        if isinstance(value, Tracer) or not (plain or isinstance(value, jax.Array | np.ndarray)):
            continue
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
            continue
        array = np.asarray(value)
        numbers = array.astype(np.float64) if array.dtype.kind in "iufb" else array.astype(str)
        digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()


__all__ = [
    "Column",
    "as_array",
    "as_arrays",
    "data_key",
    "is_column",
    "named_values",
    "with_arrays",
]
