"""What NumPyro's handlers around an emitted model do to a site, before it is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.primitives import _PYRO_STACK, Messenger

from autmarg.errors import RequestError
from autmarg.ir.nodes import decentered

Message = dict[str, Any]


def message(name: str, fn: Any, shape: tuple[int, ...] = ()) -> Message:
    """The message of a latent site, as NumPyro sends it; ``shape`` is its sample shape."""
    kwargs = {"rng_key": jax.random.key(0), "sample_shape": shape}
    return {
        "type": "sample", "name": name, "fn": fn, "args": (), "kwargs": kwargs, "value": None,
        "scale": None, "is_observed": False, "intermediates": [], "cond_indep_stack": [],
        "infer": {},
    }  # fmt: skip


def met(*messages: Message) -> Iterator[tuple[Any, tuple[Message, ...]]]:
    """Handlers that messages would meet, innermost first, with the messages as each sees them.

    The walk ends where the first message is hidden.
    """
    for handler in reversed(_PYRO_STACK):
        yield handler, messages
        if hides(handler, messages[0]):
            return
        if isinstance(handler, handlers.scope) and "sample" not in handler.hide_types:
            prefix = f"{handler.prefix}{handler.divider}"
            messages = tuple({**m, "name": f"{prefix}{m['name']}"} for m in messages)


def hides(handler: Any, msg: Message) -> bool:
    """Whether a handler keeps a message from those outside it."""
    return isinstance(handler, handlers.block) and bool(handler.hide_fn(msg))


def gives(handler: Any, msg: Message) -> bool:
    """Whether a handler gives a latent site a value."""
    name = msg["name"]
    if isinstance(handler, handlers.replay):
        return name in handler.trace
    if not isinstance(handler, handlers.substitute | handlers.condition | handlers.do):
        return False
    if handler.data is not None:
        return handler.data.get(name) is not None
    function = getattr(handler, "substitute_fn", None) or getattr(handler, "condition_fn", None)
    with handlers.block():
        return function is not None and function(msg) is not None


def as_written(name: str, fn: Any, shape: tuple[int, ...], standard: Any) -> bool:
    """Whether a non-centred site must be met as the user wrote it.

    It must where a handler gives a value to the site and not to its standardised site, which
    would be ignored otherwise, and where densities are scaled, since a power of a density is not
    invariant under a change of variables.

    Args:
        name, fn, shape: the site's name, distribution and sample shape.
        standard: the distribution of its standard noise.
    """
    own, noise = message(name, fn, shape), message(decentered(name), standard, shape)
    return any(
        isinstance(handler, handlers.scale) or (gives(handler, x) and not gives(handler, z))
        for handler, (x, z) in met(own, noise)
    )


def check_shape(model: str, name: str, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise unless a value that a handler gives has the site's shape, or is repeated to it.

    Raises:
        RequestError: it has another, and an index into it would read another element.
    """
    wide = [1] * (len(shape) - len(given)) + list(given)
    if len(wide) != len(shape) or any(n not in (1, m) for n, m in zip(wide, shape, strict=True)):
        raise RequestError(
            f"a value of shape {given} was given for '{name}', which has the shape {shape} in "
            f"'{model}' with these arguments: expected draws of that shape. For new groups draw "
            "their effects from the prior first, and append them"
        )


class Given(Messenger):
    """Outermost handler for a while: which latent sites other handlers gave a value, and which not.

    It sees a message last, just before NumPyro would draw, so it knows every handler's doing.
    """

    def __init__(self, model: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(None)
        self.model, self.shapes = model, shapes
        self.names: set[str] = set()
        self.drawn: set[str] = set()

    def __enter__(self) -> None:
        _PYRO_STACK.insert(0, self)

    def __exit__(self, *error: Any) -> None:
        if self in _PYRO_STACK:
            _PYRO_STACK.remove(self)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Note a sampled site, and whether its value was given from outside."""
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        scanned = msg.get("_control_flow_done", False)  # it has a value in any case
        given = any(gives(h, msg) for h in _PYRO_STACK) if scanned else msg["value"] is not None
        name, shape = msg["name"], np.shape(msg["value"])
        if not given:
            self.drawn.add(name)
        else:
            self.names.add(name)
            check_shape(self.model, name, shape, self.shapes.get(name, shape))
