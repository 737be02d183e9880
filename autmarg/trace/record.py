"""Run the user's model once, abstractly, and keep what its sites say."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from itertools import dropwhile, takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro import handlers

from autmarg.compat.numpyro import Message, Messenger, around, is_scan, validating
from autmarg.compat.pytrees import node_of
from autmarg.errors import ModelError, Place
from autmarg.ir.tape import is_library
from autmarg.trace.columns import named_values

Model = Callable[..., Any]
Placed = tuple[Message, Place | None]
KEY = "@key"  # the input from which keys that the model draws for itself are derived
INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
_UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Mismatch(ModelError):
    """Shapes of data and distribution do not go together; the arguments' are added to it."""


_KINDS = 256  # of draws whose shapes are remembered
_DRAWN: dict[Any, jax.ShapeDtypeStruct] = {}


class _Recorder(Messenger):
    """Keeps every message in order, with the user's line, and rejects two sites of one name.

    Keys that the model draws for itself, and those with which NumPyro draws what a scan is not
    given, come from ``key``, so that one can see what reads them.
    """

    def __init__(self, key: Any) -> None:
        super().__init__(None)
        self.messages: list[Placed] = []
        self._key = key
        self._keys = 0
        self._places: dict[str, Place | None] = {}

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "prng_key" and msg["kwargs"]["rng_key"] is None:
            msg["value"] = self._next_key()
        if is_scan(msg):
            msg["kwargs"]["rng_key"] = self._next_key()
        if msg["type"] not in ("sample", "deterministic"):
            return
        place, name = _users_place(), msg["name"]
        if name in self._places:
            raise ModelError(
                f"two sites are named '{name}': one at {self._places[name]}, one at {place}. "
                "Expected unique names; rename one of them."
            )
        self._places[name] = place
        if msg["type"] == "sample" and msg["value"] is None:
            _stand_in(msg)

    def _next_key(self) -> Any:
        self._keys += 1
        return jax.random.fold_in(self._key, self._keys - 1)

    def postprocess_message(self, msg: Message) -> None:
        place = self._places.get(msg.get("name", "")) or _users_place()
        kept = dict(msg)
        if msg["type"] == "sample":
            kept["fn"] = validating(msg["fn"])
        self.messages.append((kept, place))


def _stand_in(msg: Message) -> None:
    """A value of a site's shape; what cannot be drawn (an improper prior) has its distribution's.

    A model is traced at each call, and tracing a draw takes longer than the rest of many models (of
    a correlation matrix 10 ms), so distributions of one structure are drawn from once.
    """
    fn, shape = msg["fn"], tuple(msg["kwargs"].get("sample_shape", ()))
    structure = _structure(fn)
    known = _DRAWN.get((structure, shape)) if structure else None
    if known is None:
        known = jax.eval_shape(lambda: _drawn(fn, shape))
        if structure:
            while len(_DRAWN) >= _KINDS:
                _DRAWN.pop(next(iter(_DRAWN)))
            _DRAWN[structure, shape] = known
    msg["value"] = jnp.zeros(known.shape, known.dtype)


class _Incomparable(Exception):
    """A class that may draw by more than it shows, or a static field with no plain value."""


def _structure(fn: Any) -> Any:
    """All that the shape of a draw can depend on; None where that cannot be compared."""
    leaves, structure = jax.tree.flatten(fn)
    if not all(is_array(x) for x in leaves):
        return None
    kinds = tuple((jnp.shape(x), jnp.result_type(x), isinstance(x, Tracer)) for x in leaves)
    try:
        return _static(structure), kinds, jax.config.read("jax_enable_x64")
    except _Incomparable:
        return None


def _static(structure: Any) -> Any:
    """Classes and static fields of a pytree's structure as nested tuples: of NumPyro's own."""
    node = node_of(structure)
    if node and node.kind.__module__.partition(".")[0] not in ("numpyro", "builtins"):
        raise _Incomparable
    return (node and (node.kind, _plain(node.static)), *map(_static, structure.children()))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | type):
        return type(value), value
    if isinstance(value, Mapping):
        return tuple((_plain(k), _plain(v)) for k, v in value.items())
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    raise _Incomparable


def _drawn(fn: Any, shape: tuple[int, ...]) -> Any:
    """A draw, of which only the shape is read: a distribution that has none still has a shape.

    Neither has one whose draws need a package that is not installed, and NUTS needs none.
    """
    try:
        return fn.sample(jax.random.key(0), shape)
    except (NotImplementedError, ImportError):
        return jnp.zeros((*shape, *fn.batch_shape, *fn.event_shape))


def _users_place() -> Place | None:
    frame = sys._getframe(1)
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def run_model(
    model: Model,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    values: Mapping[str, Any],
    key: Any,
) -> list[Placed]:
    """Messages of one run of the model, hidden from handlers outside it."""
    recorder = _Recorder(key)
    given = handlers.substitute(data=dict(values))
    with handlers.block(), handlers.seed(rng_seed=0), recorder, given:
        model(*args, **kwargs)
    return recorder.messages


def is_tracing() -> bool:
    """Whether a model is being traced."""
    return any(isinstance(handler, _Recorder) for handler in around())


def is_input(msg: Message) -> bool:
    """A latent or param site; a param of another type than an array is an obstacle."""
    if msg["type"] == "sample":
        return not msg["is_observed"]
    return msg["type"] == "param" and is_array(msg["value"])


def shapes_of(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the latent and param sites and of a random key, from one abstract run."""

    def run() -> dict[str, Any]:
        key = jax.random.key(0)
        messages = run_model(model, args, kwargs, {}, key)
        return {KEY: key} | {m["name"]: jnp.asarray(m["value"]) for m, _ in messages if is_input(m)}

    try:
        return jax.eval_shape(run)
    except _UNKNOWN as error:
        place = place_of_error(error)
        where = f" ({place})" if place else ""
        raise ModelError(
            f"the structure of model '{name_of(model)}' depends on an array that is unknown while "
            f"the model is traced{where}: a latent value, a traced argument, or "
            "something computed with jax.numpy inside the model. Expected control flow, shapes and "
            "NumPy calls that only known data decide (NumPyro's samplers trace the model, too): "
            "use jnp.where, lax.cond or jnp indexing (in a loop also of data: jnp.asarray(x)[t]), "
            "or compute it with NumPy, outside the model. "
            f"JAX says: {said(error)}"
        ) from error


def said(error: BaseException) -> str:
    """The first line of a message, and those after it that it announces by a colon."""
    first, *rest = [x.strip() for x in str(error).strip().splitlines()] or [type(error).__name__]
    if not first.endswith(":"):
        return first
    announced = list(takewhile(bool, dropwhile(lambda line: not line, rest)))
    return " ".join([first, *announced])


def place_of_error(error: BaseException) -> Place | None:
    """The innermost line of the user's own files that an error went through, if there is one."""
    place, traceback = None, error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not is_library(code.co_filename) and not code.co_filename.startswith(INSTALLED):
            place = Place(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return place


def name_of(model: Model) -> str:
    """The name to call the user's model by."""
    while not hasattr(model, "__name__") and hasattr(model, "func"):
        model = getattr(model, "func")  # noqa: B009 - of a functools.partial
    return getattr(model, "__name__", type(model).__name__)


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a pytree is an array or a number."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float)


def named_arrays(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Known arrays by what the user's function calls them: arguments, and what it closes over."""
    found: dict[str, Any] = {}
    for name, value in named_values(model, args, kwargs):
        if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, Tracer):
            found.setdefault(name, value)
    return found
