"""Writing a distribution onto a tape, and putting one in another's place at a site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from autmarg.compat.numpyro import base_of, unwrapped
from autmarg.errors import RequestError
from autmarg.ir.nodes import DistributionSpec, Sample
from autmarg.ir.program import Program
from autmarg.ir.shapes import broadcasts
from autmarg.ir.tape import Tape


def written(
    tape: Tape,
    make: Callable[..., Any],
    numbers: Iterable[int],
    shape: tuple[int, ...],
    events: int,
) -> tuple[Tape, DistributionSpec]:
    """The tape with a distribution that is a function of numbered values.

    Args:
        tape: to extend.
        make: the distribution, given the values.
        numbers: of the values.
        shape: to which it is expanded, its event's included.
        events: how many of the last axes belong to one draw, at least.
    """

    def run(*values: Any) -> tuple[tuple[Any, Any], list[Any]]:
        fn = make(*values)
        fn = fn.expand(shape[: len(shape) - fn.event_dim])
        fn = fn.to_event(max(events - fn.event_dim, 0))
        leaves, tree = jax.tree.flatten(fn)
        return (fn, tree), [jnp.asarray(leaf) for leaf in leaves]

    tape, leaves, (fn, tree) = tape.extend_staged(run, numbers)
    kind, batch, event = type(base_of(fn)).__name__, tuple(fn.batch_shape), tuple(fn.event_shape)
    return tape, DistributionSpec(tree, tuple(leaves), kind, batch, event)


def with_distribution(
    program: Program, name: str, make: Callable[..., Any], reads: Sequence[str] = ()
) -> Program:
    """See :meth:`autmarg.ir.program.Program.with_distribution`."""
    sites = {n.name: n for n in program.nodes if isinstance(n, Sample)}
    if name not in sites:
        raise RequestError(
            f"there is no site '{name}' with a distribution: expected one of {', '.join(sites)}"
        )
    node, tape = sites[name], program.tape
    if unknown := [read for read in reads if read not in tape.inputs]:
        raise RequestError(
            f"'{name}' cannot read {unknown}: expected names of {', '.join(tape.inputs)}"
        )
    old = node.distribution
    shape, events = (*old.batch_shape, *old.event_shape), len(old.event_shape)

    def new(*values: Any) -> Any:
        present = old.unflatten(values[: len(old.values)])
        present = unwrapped(present, masks_too=False).base
        made = make(present, *values[len(old.values) :])
        if not isinstance(made, dist.Distribution):
            found = type(made).__name__
            raise RequestError(f"'{name}' was given {found}: expected a NumPyro distribution")
        if made.event_dim > events or not broadcasts(made.shape(), shape):
            raise RequestError(
                f"'{name}' was given a {type(made).__name__} of shape {made.shape()} with "
                f"event_dim {made.event_dim}: expected one that broadcasts to {shape}, with "
                f"event_dim {events} or less"
            )
        return made

    numbers = (*old.values, *(tape.inputs[read] for read in reads))
    tape, spec = written(tape, new, numbers, shape, events)
    changed = replace(node, distribution=spec)
    changed = replace(changed, parents=tape.dependencies(changed.numbers))
    return program.replace_nodes([changed if n is node else n for n in program.nodes], tape)


__all__ = ["with_distribution", "written"]
