"""NumPyro from inside: its stack of handlers, messages, distributions, and the state of NUTS."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions import constraints
from numpyro.distributions.util import sum_rightmost
from numpyro.infer import NUTS, initialization
from numpyro.infer.util import compute_log_probs
from numpyro.primitives import _PYRO_STACK, Messenger
from numpyro.util import is_prng_key

from autmarg.compat.jaxprs import is_traced

Message = dict[str, Any]
_STEP = "_scan_current_index"  # among a message's infer options: which step of a scan it is
_REVERSE = 4  # position of a scan's argument
_SHAPING = dist.ExpandedDistribution | dist.Independent


# The stack of handlers


def around() -> Iterator[Messenger]:
    """The handlers around this line, innermost first."""
    return reversed(_PYRO_STACK)


class Outermost(Messenger):
    """A handler that is around all others while it is entered.

    It sees a message last, just before NumPyro would draw, so it knows every handler's doing.
    """

    def __enter__(self) -> None:
        _PYRO_STACK.insert(0, self)

    def __exit__(self, *error: Any) -> None:
        if self in _PYRO_STACK:
            _PYRO_STACK.remove(self)


def met(*messages: Message) -> Iterator[tuple[Messenger, tuple[Message, ...]]]:
    """Handlers that messages would meet, innermost first, with the messages as each sees them.

    The walk ends where the first message is hidden.
    """
    for handler in around():
        yield handler, messages
        if hides(handler, messages[0]):
            return
        if isinstance(handler, handlers.scope) and "sample" not in handler.hide_types:
            prefix = f"{handler.prefix}{handler.divider}"
            messages = tuple({**m, "name": f"{prefix}{m['name']}"} for m in messages)


def hides(handler: Messenger, msg: Message) -> bool:
    """Whether a handler keeps a message from those outside it."""
    return isinstance(handler, handlers.block) and bool(handler.hide_fn(msg))


def gives(handler: Messenger, msg: Message) -> bool:
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


def initialises(handler: Messenger) -> bool:
    """Whether a handler gives the values of one of NumPyro's own initialisation strategies."""
    function = getattr(handler, "substitute_fn", None)
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__module__", None) == initialization.__name__


def replaces(handler: Messenger, msg: Message) -> bool:
    """Whether a handler puts another density in place of a latent site's, or takes it away."""
    if isinstance(handler, handlers.reparam):
        config = handler.config or {}
        return (config(msg) if callable(config) else config.get(msg["name"])) is not None
    return isinstance(handler, handlers.do) and msg["name"] in (handler.data or {})


# Messages


def latent_message(name: str, fn: Any, shape: tuple[int, ...] = ()) -> Message:
    """The message of a latent site, as NumPyro sends it; ``shape`` is its sample shape."""
    kwargs = {"rng_key": jax.random.key(0), "sample_shape": shape}
    return {
        "type": "sample", "name": name, "fn": fn, "args": (), "kwargs": kwargs, "value": None,
        "scale": None, "is_observed": False, "intermediates": [], "cond_indep_stack": [],
        "infer": {},
    }  # fmt: skip


def subsample_of(msg: Message) -> tuple[int, int] | None:
    """(Rows drawn, all rows) of the message of a plate; None where it has them all."""
    size, drawn = msg["args"]
    return None if drawn is None or drawn == size else (drawn, size)


def is_scan(msg: Message) -> bool:
    """Whether a message is that of a scan as a whole."""
    return msg["type"] == "control_flow" and msg["fn"] is scan_wrapper


def is_reversed(msg: Message) -> bool:
    """Whether the scan of a message goes from the last step to the first."""
    return bool(msg["args"][_REVERSE])


def is_scanned(msg: Message) -> bool:
    """Whether a message is that of a site in a scan, with all its steps."""
    return "_control_flow_done" in msg


def step_of(msg: Message) -> Any:
    """The step of a scan in which a site is met, None outside of one."""
    return (msg["infer"] or {}).get(_STEP)


def infer_of(msg: Message) -> dict[str, Any]:
    """A site's ``infer`` options, without what NumPyro notes there for itself."""
    return {k: v for k, v in (msg.get("infer") or {}).items() if k != _STEP}


def initialiser_of(msg: Message) -> Callable[[Any], Any]:
    """The user's initialiser of a param site, which NumPyro keeps as a default argument."""
    return inspect.signature(msg["fn"]).parameters["init_value"].default


# Distributions


class Unwrapped(NamedTuple):
    """A distribution seen through expansion, independence and masks.

    Attributes:
        base: the innermost distribution.
        masks: arrays or booleans, outermost first, each with the number of axes that follow it in a
            value.
    """

    base: Any
    masks: tuple[tuple[Any, int], ...]

    @property
    def effective_masks(self) -> tuple[tuple[Any, int], ...]:
        """Those but for a mask of True, which leaves everything in."""
        return tuple(each for each in self.masks if each[0] is not True)


def unwrapped(fn: Any, *, masks_too: bool = True) -> Unwrapped:
    """What a distribution is inside of its wrapping, or of that down to the first mask."""
    masks = []
    wrappers = _SHAPING | dist.MaskedDistribution if masks_too else _SHAPING
    while isinstance(fn, wrappers):
        if isinstance(fn, dist.MaskedDistribution):
            masks.append((fn._mask, fn.event_dim))
        fn = fn.base_dist
    return Unwrapped(fn, tuple(masks))


def base_of(fn: Any) -> Any:
    """A distribution without expansion, independence and masks."""
    return unwrapped(fn).base


@contextmanager
def traced_arguments_unchecked() -> Generator[None]:
    """Inside, NumPyro checks of a distribution's arguments only those that are known.

    It asks of traced ones, too, and learns that nothing is known of them, by operations that are
    each compiled: a multivariate normal's factor takes twenty, a third of a second in all.
    """
    checked = dist.Distribution.validate_args
    if checked.__module__ == __name__:  # further out, or by another thread
        yield
        return

    def known_ones_checked(self: dist.Distribution, strict: bool = True) -> None:
        if strict:
            checked(self, strict)
            return
        with jax.ensure_compile_time_eval():
            for name, value in self.get_args().items():
                constraint = self.arg_constraints[name]
                if is_traced(value) or constraints.is_dependent(constraint):
                    continue
                valid = constraint(value)
                if not is_traced(valid) and not np.all(valid):
                    kind = type(self).__name__
                    raise ValueError(f"{kind} distribution got invalid {name} parameter.")

    dist.Distribution.validate_args = known_ones_checked
    try:
        yield
    finally:
        dist.Distribution.validate_args = checked


def validates(fn: dist.Distribution) -> bool:
    """Whether a distribution's density is zero outside of its support."""
    return bool(fn._validate_args)


def validating(fn: Any) -> Any:
    """A distribution (or a list of them) that says itself whether it validates.

    As a pytree a NumPyro distribution forgets what it has from its class (the default), and with it
    that the density is zero outside of the support.
    """
    if type(fn) in (list, tuple):
        return type(fn)(map(validating, fn))
    if not isinstance(fn, dist.Distribution):
        return fn
    copied = copy.copy(fn)
    inner = {name: validating(value) for name, value in vars(fn).items()}
    vars(copied).update(inner, _validate_args=fn._validate_args)
    return copied


def array_fields(kind: type) -> tuple[str, ...]:
    """Attributes that are children of a distribution's pytree; a transform has none."""
    return tuple(getattr(kind, "gather_pytree_data_fields", tuple)())


def static_fields(kind: type) -> tuple[str, ...]:
    """Attributes that are static data of a distribution's pytree."""
    return tuple(getattr(kind, "gather_pytree_aux_fields", tuple)())


def attributes_of(value: Any) -> dict[str, Any]:
    """What a distribution or transform was made of, by the names of its attributes.

    Arguments that it holds under a private name, as mixtures do, have the argument's name.
    """
    names = inspect.signature(type(value).__init__).parameters
    held = {k: v for k, v in vars(value).items() if not k.startswith("_")}
    return held | {n: vars(value)[f"_{n}"] for n in names if f"_{n}" in vars(value)}


# Inference


def run_arguments(source: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """What an ``MCMC`` object was last run with; None where that is not known."""
    args, kwargs = (getattr(source, f"_{n}", getattr(source, n, None)) for n in ("args", "kwargs"))
    return None if args is None else (tuple(args), dict(kwargs or {}))


class Kernel(NUTS):
    """NUTS whose subclasses say how an initial point is searched for."""

    def initial_point(
        self,
        search: Callable[[Any], Any],
        rng_key: jax.Array,
        model_args: tuple[Any, ...],
        model_kwargs: Mapping[str, Any],
        given: Any,
    ) -> Any:
        """The point at which a chain starts.

        Args:
            search: NumPyro's own way, key → point.
            rng_key: of one chain, or [chains].
            model_args, model_kwargs: what the model is called with.
            given: unconstrained values that the user gave, or None.
        """
        return search(rng_key)

    def _init_state(
        self, rng_key: Any, model_args: Any, model_kwargs: Any, init_params: Any
    ) -> Any:
        search = super()._init_state
        return self.initial_point(
            lambda key: search(key, model_args, model_kwargs, init_params),
            rng_key,
            model_args,
            model_kwargs,
            init_params,
        )

    @property
    def start(self) -> Callable[..., Any] | None:
        """(initial point, key, options) → state of a chain; None before the first search."""
        return self._init_fn

    @start.setter
    def start(self, function: Callable[..., Any] | None) -> None:
        self._init_fn = function

    @property
    def inverse_transforms(self) -> Any:
        """Supports of the sites that the last search met, as transforms."""
        return self._inv_transforms

    def join(self, blocks: list[tuple[str, ...]]) -> None:
        """Make the mass matrix dense over each of these blocks of sites, and diagonal else."""
        self._dense_mass = blocks


def sampled_sites(point: Any) -> frozenset[str]:
    """Names of the sites of an initial point."""
    return frozenset(getattr(point, "z", point))


__all__ = [
    "Kernel",
    "Message",
    "Messenger",
    "Outermost",
    "Unwrapped",
    "around",
    "array_fields",
    "attributes_of",
    "base_of",
    "compute_log_probs",
    "gives",
    "hides",
    "infer_of",
    "initialiser_of",
    "initialises",
    "is_prng_key",
    "is_reversed",
    "is_scan",
    "is_scanned",
    "latent_message",
    "met",
    "replaces",
    "run_arguments",
    "sampled_sites",
    "static_fields",
    "step_of",
    "subsample_of",
    "sum_rightmost",
    "traced_arguments_unchecked",
    "unwrapped",
    "validates",
    "validating",
]
