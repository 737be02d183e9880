"""Run the user's model under NumPyro handlers and write its sites onto a tape.

The model runs twice, both times abstractly: once to learn the shapes of its latent sites, once
inside ``jax.make_jaxpr`` as a function *latent values → distributions*. NumPyro distributions are
pytrees, so their parameters come out as outputs of that jaxpr and dependency analysis is slicing.
Nothing is drawn and nothing of the data is computed; data the model closes over are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Unit

from autmarg.compat.jaxprs import is_traced_around, live
from autmarg.compat.numpyro import (
    Message,
    base_of,
    infer_of,
    initialiser_of,
    is_reversed,
    is_scan,
    is_scanned,
    subsample_of,
)
from autmarg.compat.shards import rows_of
from autmarg.errors import WHOLE_MODEL, ModelError, Place, Refusal
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
    Structure,
)
from autmarg.ir.program import Program
from autmarg.ir.staged import staged
from autmarg.ir.tape import Builder
from autmarg.ir.verifier import check
from autmarg.trace.columns import as_arrays, with_arrays
from autmarg.trace.explain import explained
from autmarg.trace.record import (
    KEY,
    Mismatch,
    Model,
    Placed,
    is_array,
    is_input,
    name_of,
    named_arrays,
    run_model,
    shapes_of,
)

# Sites the IR has a node for; any other named site is an obstacle (see _OBSTACLES).
_HELD = ("sample", "deterministic", "param", "plate")
_OBSTACLES = {
    "control_flow": "it calls numpyro.contrib.control_flow.cond (without sites, jax.lax.cond does)",
    "mutable": "it has a mutable site",
}

_KEPT = (
    "the model '{}' keeps an array that it computed in an earlier run ({}), for example as an "
    "attribute of an object or under functools.lru_cache. To plan, JAX traces the model, and an "
    "array kept from a trace has no values: the model cannot run again until it is gone. Expected "
    "a model that keeps no such array. Compute it with NumPy; or make a new object (or clear the "
    "cache) and call the model, or the cached function, once before the plan"
)


def trace_program(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Program, dict[str, Any]]:
    """The program of ``model(*args, **kwargs)`` and the values of its traced constants.

    Traced constants are JAX tracers that the model closes over (arguments under an outer ``jit``
    or ``vmap``); they are inputs of the tape named ``@0``, ``@1``, …

    Raises:
        ModelError: two sites of one name, or structure that depends on latent values.
    """
    args, kwargs = as_arrays(args, kwargs)
    model = with_arrays(model)
    with explained(model, args, kwargs):
        return _traced(model, args, kwargs)


def _traced(
    model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Program, dict[str, Any]]:
    """The program and its traced constants, of arguments that are arrays."""
    shapes = shapes_of(model, args, kwargs)

    def distributions(values: dict[str, Any]) -> tuple[tuple[list[Placed], Any], list[Any]]:
        sites = {name: value for name, value in values.items() if name != KEY}
        messages = run_model(model, args, kwargs, sites, values[KEY])
        arrays = [_arrays(msg) for msg, _ in messages]
        return (messages, jax.tree.structure(arrays)), arrays

    (messages, structure), closed = staged(distributions, shapes)
    if any(is_scan(msg) for msg, _ in messages):
        closed = live(closed)  # a loop carries a key along, which nothing may read
    builder = Builder()
    names = sorted(shapes)  # the order in which a dict of inputs is flattened
    inputs = {name: builder.number(shapes[name]) for name in names}
    numbers = builder.inline(closed, [inputs[name] for name in names])
    traced = {}
    for number, value in list(builder.constants.items()):
        if isinstance(value, Tracer):
            if not is_traced_around():
                raise ModelError(_KEPT.format(name_of(model), value.aval.str_short()))
            inputs[f"@{len(traced)}"] = number
            traced[f"@{len(traced)}"] = builder.constants.pop(number)
    tape = builder.tape(inputs)
    outputs = jax.tree.unflatten(structure, numbers)
    reader = _MessageReader(tape)
    nodes = [
        node
        for (msg, place), out in zip(messages, outputs, strict=True)
        if (node := reader.read(msg, place, out)) is not None
    ]
    reader.own_randomness(nodes, messages)
    obstacles = tuple(reader.obstacles.values())
    plates = tuple(dict.fromkeys(p for node in nodes for p in node.plates))
    names = named_arrays(model, args, kwargs)
    rows = rows_of(tape.constants.values())
    program = Program(
        name_of(model), tuple(nodes), plates, tape, obstacles, names, sharding=rows
    )  # fmt: skip
    return check(program), traced


def _arrays(msg: Message) -> dict[str, Any]:
    """The array-valued parts of a message, as outputs of the traced function."""
    out: dict[str, Any] = {}
    if msg["type"] == "sample" and _is_factor(msg["fn"]):
        scale = 1.0 if msg["scale"] is None else msg["scale"]
        out["value"] = scale * msg["fn"].log_prob(msg["value"])
    elif msg["type"] == "sample":
        out["leaves"] = _array_leaves(msg["fn"])
        if msg["scale"] is not None:
            out["scale"] = msg["scale"]
        if msg["is_observed"]:
            out["value"] = jnp.asarray(msg["value"])
    elif msg["type"] == "deterministic":
        out["value"] = jax.tree.map(jnp.asarray, msg["value"])
    elif msg["type"] == "param" and is_input(msg):
        out["leaves"] = _array_leaves(_options(msg))
        if msg["args"]:
            out["value"] = jnp.asarray(msg["args"][0])
    return out


def _array_leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]


def _structure(tree: Any, numbers: list[int]) -> tuple[Any, tuple[int | Static, ...]]:
    """The treedef and leaves of ``tree``, its array leaves replaced by their numbers."""
    leaves, treedef = jax.tree.flatten(tree)
    each = iter(numbers)
    return treedef, tuple(next(each) if is_array(leaf) else Static(leaf) for leaf in leaves)


def _options(msg: Message) -> dict[str, Any]:
    """Arguments of a param site other than its name and initial value."""
    return {k: v for k, v in msg["kwargs"].items() if k != "rng_key"}


def _is_factor(fn: Any) -> bool:
    return isinstance(base_of(fn), Unit)


class _MessageReader:
    """Turns messages into nodes."""

    def __init__(self, tape: Any) -> None:
        self.tape = tape
        self.obstacles: dict[str, Refusal] = {}
        self._defined: set[str] = set()
        self._backwards = False

    def read(self, msg: Message, place: Place | None, out: dict[str, Any]) -> Node | None:
        kind = msg["type"]
        if is_scan(msg):
            # Its sites come as messages of their own.
            self._backwards = is_reversed(msg)
            return None
        if kind in _OBSTACLES or (kind not in _HELD and "name" in msg):
            why = _OBSTACLES.get(kind, f"it has a site of type '{kind}'")
            self._obstacle(msg.get("name") or kind, why, place)
            return None
        if kind == "plate":
            self._plate(msg, place)
        elif kind == "sample":
            return self._sample(msg, place, out)
        elif kind == "deterministic":
            return self._deterministic(msg, place, out)
        elif kind == "param" and msg["name"] not in self._defined:
            self._defined.add(msg["name"])
            return self._param(msg, place, out)
        return None

    def own_randomness(self, nodes: list[Node], messages: list[Placed]) -> None:
        """A site that reads a key which the model drew for itself is an obstacle."""
        reads = next((node.name for node in nodes if KEY in node.parents), None)
        if reads is None:
            return
        place = next((p for msg, p in messages if msg["type"] == "prng_key"), None)
        if place is not None:
            why = (
                f"'{reads}' depends on random numbers that the model draws outside its sites "
                "(with numpyro.prng_key, or at a site that handlers.block hides)"
            )
            self._obstacle(reads, why, place)
            return
        place = next(p for msg, p in messages if is_scan(msg))
        why = (
            f"'{reads}' depends on random numbers that NumPyro draws inside a scan, for a site "
            "that is not given there all its values"
        )
        remedy = (
            "put handlers.scope and the like inside the scan's function rather than around the "
            "scan, and scan no further than the data go (marg.predict goes further after the fit)"
        )
        self._obstacle(reads, why, place, remedy)

    def _obstacle(self, name: str, why: str, place: Place | None, remedy: str = "") -> None:
        reason = f"the model is left as it is: {why}"
        self.obstacles.setdefault(reason, Refusal(name, WHOLE_MODEL, reason, place, remedy))

    def _plate(self, msg: Message, place: Place | None) -> None:
        if subsample_of(msg) is not None:
            why = (
                f"plate '{msg['name']}' is subsampled, so that every evaluation draws other rows "
                "and scales their density"
            )
            remedy = "for MCMC, call the model without subsample_size; SVI takes it as it is"
            self._obstacle(msg["name"], why, place, remedy)

    def _plates(self, msg: Message) -> tuple[Plate, ...]:
        frames = msg.get("cond_indep_stack") or []
        return tuple(Plate(frame.name, frame.size, frame.dim) for frame in frames)

    def _param(self, msg: Message, place: Place | None, out: dict[str, Any]) -> Node | None:
        name = msg["name"]
        if not is_input(msg):
            self._obstacle(name, f"the param '{name}' is a pytree rather than an array", place)
            return None
        reads = self.tape.dependencies([*out["leaves"], *([out["value"]] if msg["args"] else [])])
        if above := sorted(n for n in reads if not n.startswith("@")):
            why = f"the initial value or constraint of the param '{name}' depends on '{above[0]}'"
            self._obstacle(name, why, place)
        return Param(
            name,
            reads,
            place,
            self._plates(msg),
            shape=self.tape.avals[self.tape.inputs[name]].shape,
            initial=out["value"] if msg["args"] else initialiser_of(msg),
            options=Structure(*_structure(_options(msg), out["leaves"])),
        )

    def _sample(self, msg: Message, place: Place | None, out: dict[str, Any]) -> Node:
        name, fn, plates = msg["name"], msg["fn"], self._plates(msg)
        if _is_factor(fn):
            value = out["value"]
            return Factor(name, self.tape.dependencies([value]), place, plates, value=value)
        # A site that handlers.lift made of a param does not take on the shape of its plates.
        plates = tuple(p for p in plates if fn.batch_shape[p.dim : p.dim + 1 or None] == (p.size,))
        spec = DistributionSpec(
            *_structure(fn, out["leaves"]), _kind(fn), tuple(fn.batch_shape), tuple(fn.event_shape)
        )
        observed = bool(msg["is_observed"])
        common: dict[str, Any] = {
            "distribution": spec,
            # NumPyro draws with it, and evaluates a given value without it.
            "sample_shape": () if observed else tuple(msg["kwargs"].get("sample_shape", ())),
            "infer": infer_of(msg),
            "scanned": is_scanned(msg),
            "scale": out.get("scale"),
        }
        reads = [*spec.values, *([out["scale"]] if "scale" in out else [])]
        if observed:
            reads = [*reads, out["value"]]
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
        if common["scanned"] and (shape := common["sample_shape"]):
            # NumPyro's values have time, then the sample shape; its density reads them as (time,).
            where = f" ({place})" if place else ""
            raise ModelError(
                f"site '{name}'{where} has sample_shape={shape} inside a scan, and NumPyro cannot "
                f"evaluate its density there. Write the distribution with .expand({list(shape)}) "
                "instead of the sample shape."
            )
        if fn.has_enumerate_support:
            # Under enumeration a site has shapes that the tape was not traced with.
            why = (
                f"'{name}' is a discrete latent ({spec.kind}), over whose values NumPyro sums in "
                "dimensions that it adds to the sites when the model runs"
            )
            remedy = "write the sum as a likelihood (dist.MixtureSameFamily) so that a plan is made"
            # (a hidden Markov chain's sum is no mixture)
            self._obstacle(name, why, place, "" if common["scanned"] else remedy)
        if common["scanned"] and self._backwards:
            # NumPyro's trace has such a site's values in the opposite order of those it is given.
            why = "it has a latent in a scan with reverse=True (flip the data and scan forwards)"
            self._obstacle(name, why, place)
        aval = self.tape.avals[self.tape.inputs[name]]
        return Sample(
            name,
            self.tape.dependencies(reads),
            place,
            plates,
            shape=aval.shape,
            dtype=aval.dtype,
            **common,
        )

    def _deterministic(self, msg: Message, place: Place | None, out: dict[str, Any]) -> Node | None:
        if not isinstance(out["value"], int):
            self._obstacle(
                msg["name"],
                f"the deterministic site '{msg['name']}' is a pytree rather than an array",
                place,
            )
            return None
        value = out["value"]
        return Deterministic(
            msg["name"], self.tape.dependencies([value]), place, self._plates(msg), value=value
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
    where = f" ({place})" if place else ""
    try:
        joint = np.broadcast_shapes(value, expected)
    except ValueError as error:
        raise Mismatch(
            f"observed site '{name}'{where}: found data of shape {value}, expected a shape that "
            f"broadcasts with its distribution's, {expected}. Check the lengths of the arrays."
        ) from error
    if _crossed(value, expected):
        raise ModelError(
            f"observed site '{name}'{where}: found data of shape {value} for a distribution of "
            f"shape {expected}. NumPyro would repeat both to {joint} and count each value many "
            "times: expected data of the distribution's shape (a column of a matrix is y[:, 0]); "
            "if every pair is meant, repeat one of the two with jnp.broadcast_to"
        )
    return joint


def _crossed(value: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether one length is on different axes of data and distribution, as for (N, 1) and (N,).

    Each of the two is then repeated along the other's axis; axes of different lengths, such as
    data (N,) for a distribution (K, 1), are meant.
    """
    ndim = max(len(value), len(expected))
    pairs = list(zip(_padded(value, ndim), _padded(expected, ndim), strict=True))
    ours = {n for n, other in pairs if n > 1 and other == 1}
    theirs = {n for other, n in pairs if n > 1 and other == 1}
    return bool(ours & theirs)


def _padded(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return (1,) * (ndim - len(shape)) + shape


def _kind(fn: Any) -> str:
    """Class name of a distribution, seen through expansion, independence and masks."""
    return type(base_of(fn)).__name__
