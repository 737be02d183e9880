"""Run the user's model under NumPyro handlers and write its sites onto a tape.

The model runs twice, both times abstractly: once to learn the shapes of its latent sites, once
inside ``jax.make_jaxpr`` as a function *latent values → distributions*. NumPyro distributions are
pytrees, so their parameters come out as outputs of that jaxpr and dependency analysis is slicing.
Nothing is drawn and nothing of the data is computed; data the model closes over are constants.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions.distribution import Unit
from numpyro.primitives import Messenger

from autmarg.errors import ModelError, Place, Refusal
from autmarg.ir.nodes import (
    Deterministic,
    DistributionSpec,
    Factor,
    Node,
    Observe,
    Param,
    Plate,
    Sample,
    Static,
)
from autmarg.ir.program import Program, check
from autmarg.ir.tape import Builder, is_library, place_of

Model = Callable[..., Any]

# Sites the IR has a node for; any other named site is an obstacle (see _OBSTACLES).
_HELD = ("sample", "deterministic", "param", "plate")
_OBSTACLES = {
    "control_flow": "it uses numpyro.contrib.control_flow, which cannot be rewritten yet",
    "mutable": "it has a mutable site",
    "prng_key": "it draws random keys of its own with numpyro.prng_key",
    "subsample": "it subsamples data",
}


class _Recorder(Messenger):
    """Keeps every message in order, with the user's line, and rejects two sites of one name."""

    def __init__(self) -> None:
        super().__init__(None)
        self.messages: list[tuple[dict[str, Any], Place | None]] = []
        self._places: dict[str, Place | None] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
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

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        self.messages.append((dict(msg), self._places.get(msg.get("name", ""))))


def _stand_in(msg: dict[str, Any]) -> None:
    """Give a site that cannot be drawn (an improper prior) a value, for its shape only."""
    fn, shape = msg["fn"], tuple(msg["kwargs"].get("sample_shape", ()))
    try:
        jax.eval_shape(lambda: fn.sample(jax.random.key(0), shape))
    except NotImplementedError:
        msg["value"] = jnp.zeros((*shape, *fn.batch_shape, *fn.event_shape))


def _users_place() -> Place | None:
    frame = sys._getframe(1)
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def _run(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any], values: Mapping[str, Any]
) -> list[tuple[dict[str, Any], Place | None]]:
    """Messages of one run of the model, hidden from handlers outside it."""
    recorder = _Recorder()
    given = handlers.substitute(data=dict(values))
    with handlers.block(), handlers.seed(rng_seed=0), recorder, given:
        model(*args, **kwargs)
    return recorder.messages


def _is_latent(msg: dict[str, Any]) -> bool:
    return msg["type"] == "sample" and not msg["is_observed"]


def _shapes(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the latent and param sites, from one abstract run."""

    def run() -> dict[str, Any]:
        messages = _run(model, args, kwargs, {})
        return {m["name"]: m["value"] for m, _ in messages if _is_latent(m) or m["type"] == "param"}

    try:
        shapes = jax.eval_shape(run)
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError) as error:
        raise ModelError(
            f"the structure of model '{name_of(model)}' depends on the value of a latent site or "
            f"of a traced argument{_error_place(error)}. Expected control flow that only known "
            "data decide; use jnp.where or lax.cond, or close over the argument. "
            f"JAX says: {str(error).splitlines()[0]}"
        ) from error
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, value in shapes.items()
        for leaf in [value]
    }


def _error_place(error: Exception) -> str:
    place, traceback = None, error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not is_library(code.co_filename):
            place = Place(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return f" ({place})" if place else ""


def name_of(model: Model) -> str:
    """The name to call the user's model by."""
    while not hasattr(model, "__name__") and hasattr(model, "func"):
        model = getattr(model, "func")  # noqa: B009 - of a functools.partial
    return getattr(model, "__name__", type(model).__name__)


def trace_program(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Program, dict[str, Any]]:
    """The program of ``model(*args, **kwargs)`` and the values of its traced constants.

    Traced constants are JAX tracers that the model closes over (arguments under an outer ``jit``
    or ``vmap``); they are inputs of the tape named ``@0``, ``@1``, …

    Raises:
        ModelError: two sites of one name, or structure that depends on latent values.
    """
    shapes = _shapes(model, args, kwargs)
    messages: list[tuple[dict[str, Any], Place | None]] = []

    def distributions(values: dict[str, Any]) -> list[Any]:
        messages[:] = _run(model, args, kwargs, values)
        return [_arrays(msg) for msg, _ in messages]

    closed, out_shape = jax.make_jaxpr(distributions, return_shape=True)(shapes)
    builder = Builder()
    names = sorted(shapes)  # the order in which a dict of inputs is flattened
    inputs = {name: builder.number(shapes[name]) for name in names}
    numbers = builder.inline(closed, [inputs[name] for name in names])
    traced = {}
    for number, value in list(builder.constants.items()):
        if isinstance(value, Tracer):
            inputs[f"@{len(traced)}"] = number
            traced[f"@{len(traced)}"] = builder.constants.pop(number)
    tape = builder.tape(inputs)
    outputs = jax.tree.unflatten(jax.tree.structure(out_shape), numbers)
    reader = _NodeReader(tape)
    nodes = [
        node
        for (msg, place), out in zip(messages, outputs, strict=True)
        if (node := reader.read(msg, place, out)) is not None
    ]
    obstacles = tuple(reader.obstacles.values())
    return check(
        Program(name_of(model), tuple(nodes), tuple(reader.plates), tape, obstacles)
    ), traced


def _arrays(msg: dict[str, Any]) -> dict[str, Any]:
    """The array-valued parts of a message, as outputs of the traced function."""
    out: dict[str, Any] = {}
    if msg["type"] == "sample":
        out["leaves"] = [leaf for leaf in jax.tree.leaves(msg["fn"]) if _is_array(leaf)]
        if msg["scale"] is not None:
            out["scale"] = msg["scale"]
        if msg["is_observed"]:
            out["value"] = jnp.asarray(msg["value"])
    elif msg["type"] == "deterministic":
        out["value"] = jax.tree.map(jnp.asarray, msg["value"])
    return out


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float)


class _NodeReader:
    """Turns messages into nodes."""

    def __init__(self, tape: Any) -> None:
        self.tape = tape
        self.plates: list[Plate] = []
        self.obstacles: dict[str, Refusal] = {}
        self._defined: set[str] = set()

    def read(self, msg: dict[str, Any], place: Place | None, out: dict[str, Any]) -> Node | None:
        kind = msg["type"]
        if kind in _OBSTACLES or (kind not in _HELD and "name" in msg):
            why = _OBSTACLES.get(kind, f"it has a site of type '{kind}'")
            self._obstacle(msg.get("name") or kind, f"the model is left as it is: {why}", place)
            return None
        if kind == "plate":
            self._plate(msg)
        elif kind == "sample":
            return self._sample(msg, place, out)
        elif kind == "deterministic":
            return self._deterministic(msg, place, out)
        elif kind == "param" and msg["name"] not in self._defined:
            self._defined.add(msg["name"])
            kwargs = {k: v for k, v in msg["kwargs"].items() if k != "rng_key"}
            initial = msg["args"][0] if msg["args"] else None
            return Param(
                msg["name"], frozenset(), place, self._frames(msg), initial=initial, kwargs=kwargs
            )
        return None

    def _obstacle(self, name: str, reason: str, place: Place | None) -> None:
        self.obstacles.setdefault(reason, Refusal(name, "outside the IR", reason, place))

    def _plate(self, msg: dict[str, Any]) -> None:
        size, subsample = msg["args"]
        # The dim is only known once a site is met inside the plate; 0 says "not yet".
        self.plates.append(Plate(msg["name"], size, 0, subsample or size))
        if subsample is not None and subsample != size:
            self._obstacle(
                msg["name"],
                f"the model is left as it is: plate '{msg['name']}' is subsampled",
                None,
            )

    def _frames(self, msg: dict[str, Any]) -> tuple[str, ...]:
        frames = msg.get("cond_indep_stack") or []
        for frame in frames:
            for i, plate in enumerate(self.plates):
                if plate.name == frame.name:
                    self.plates[i] = Plate(plate.name, plate.size, frame.dim, plate.subsample_size)
        return tuple(frame.name for frame in frames)

    def _sample(self, msg: dict[str, Any], place: Place | None, out: dict[str, Any]) -> Node:
        name, fn, plates = msg["name"], msg["fn"], self._frames(msg)
        if isinstance(fn, Unit):
            (number,) = out["leaves"]
            return Factor(name, self.tape.dependencies([number]), place, plates, value=number)
        leaves, treedef = jax.tree.flatten(fn)
        numbers = iter(out["leaves"])
        spec = DistributionSpec(
            treedef,
            tuple(next(numbers) if _is_array(leaf) else Static(leaf) for leaf in leaves),
            _kind(fn),
            tuple(fn.batch_shape),
            tuple(fn.event_shape),
        )
        common: dict[str, Any] = {
            "distribution": spec,
            "sample_shape": tuple(msg["kwargs"].get("sample_shape", ())),
            "infer": dict(msg.get("infer") or {}),
            "scale": out.get("scale"),
        }
        if msg["is_observed"]:
            reads = [*spec.values, out["value"]]
            aval = self.tape.avals[out["value"]]
            return Observe(
                name,
                self.tape.dependencies(reads),
                place,
                plates,
                shape=_joint_shape(name, aval.shape, common, spec, place),
                dtype=aval.dtype,
                value=out["value"],
                **common,
            )
        if msg.get("_control_flow_done"):
            self._obstacle(name, f"the model is left as it is: {_OBSTACLES['control_flow']}", place)
        aval = self.tape.avals[self.tape.inputs[name]]
        return Sample(
            name,
            self.tape.dependencies(spec.values),
            place,
            plates,
            shape=aval.shape,
            dtype=aval.dtype,
            **common,
        )

    def _deterministic(
        self, msg: dict[str, Any], place: Place | None, out: dict[str, Any]
    ) -> Node | None:
        if not isinstance(out["value"], int):
            self._obstacle(
                msg["name"],
                "the model is left as it is: a deterministic site is a pytree rather than an array",
                place,
            )
            return None
        value = out["value"]
        return Deterministic(
            msg["name"], self.tape.dependencies([value]), place, self._frames(msg), value=value
        )


def _joint_shape(
    name: str,
    value: tuple[int, ...],
    common: Mapping[str, Any],
    spec: DistributionSpec,
    place: Place | None,
) -> tuple[int, ...]:
    """Shape over which an observed value and its distribution broadcast."""
    expected = (*common["sample_shape"], *spec.batch_shape, *spec.event_shape)
    try:
        return np.broadcast_shapes(value, expected)
    except ValueError as error:
        where = f" ({place})" if place else ""
        raise ModelError(
            f"observed site '{name}'{where}: found data of shape {value}, expected a shape that "
            f"broadcasts with its distribution's, {expected}. Check the lengths of the arrays."
        ) from error


def _kind(fn: Any) -> str:
    """Class name of a distribution, seen through expansion and independence."""
    wrappers = (numpyro.distributions.ExpandedDistribution, numpyro.distributions.Independent)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return type(fn).__name__


__all__ = ["name_of", "place_of", "trace_program"]
