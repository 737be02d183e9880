"""Data drawn anew for the same rows: which observed sites can be, and those in scans.

``numpyro.handlers.uncondition`` leaves data out, but for those that a ``scan`` was given. There the
program has the site's distribution given the latents of all steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.posterior.labels import known
from autmarg.trace.capture import trace_program
from autmarg.trace.columns import as_arrays

if TYPE_CHECKING:
    from autmarg.posterior.after_fit import AfterFit


def observable(
    marg: AfterFit, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Observed sites that can be drawn anew, and those that cannot: their past is their data."""
    skipped = [
        n.name
        for n in program.observed
        if n.scanned and _reads_itself(marg, n, program, args, kwargs)
    ]
    return [n.name for n in program.observed if n.name not in skipped], skipped


def outside_scans(program: Program, sites: Sequence[str]) -> list[str]:
    """Those of some observed sites that stand in no scan."""
    return [n.name for n in program.observed if n.name in sites and not n.scanned]


def in_scans(
    program: Program,
    sites: Sequence[str],
    latents: Mapping[str, Any],
    key: Any,
    lead: tuple[int, ...],
) -> dict[str, Any]:
    """Draws of the others.

    Args:
        program: the source.
        sites: names of observed sites.
        latents: arrays [*lead, …] of all latents.
        key: a JAX random key.
        lead: their leading dimensions.
    """
    chosen = [n for n in program.observed if n.name in sites and n.scanned]
    keys = jax.random.split(key, len(chosen) + 1)
    return {
        site.name: _drawn(program, site, latents, own, lead)
        for site, own in zip(chosen, keys[1:], strict=True)
    }


def _drawn(
    program: Program, site: Observe, latents: Mapping[str, Any], key: Any, lead: tuple[int, ...]
) -> Any:
    needs = program.tape.dependencies(site.distribution.values)
    points = {name: jnp.asarray(x) for name, x in latents.items() if name in needs}

    def draw(key: Any, point: Mapping[str, Any]) -> Any:
        fn = site.distribution.build(program.tape, point)
        return fn.expand(site.shape[: len(site.shape) - fn.event_dim]).sample(key)

    for _ in lead:
        draw = jax.vmap(draw)
    return draw(jax.random.split(key, lead), points)


def _reads_itself(
    marg: AfterFit, site: Observe, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether steps of a scan, or latents that they read, read data of earlier steps.

    With the data in another order their distributions are then others. Where the data are no
    argument as they are, that is not known, and counts as if they did.
    """
    if program.tape.dependencies([site.value]):
        return True
    (data,) = known(program.tape, [site.value])
    moved = np.roll(data, 1, axis=0)
    leaves, tree = jax.tree.flatten(as_arrays(args, kwargs))
    same = [np.shape(x) == data.shape and np.array_equal(x, data) for x in leaves]
    if not any(same) or np.array_equal(moved, data):
        return True
    others = [moved if is_data else x for x, is_data in zip(leaves, same, strict=True)]
    changed, _ = trace_program(marg.source, *jax.tree.unflatten(tree, others))
    above = [site.name, *(n for n in program.ancestors(site.name) if n in program)]
    return not all(_equal(_numbers(program, n), _numbers(changed, n)) for n in above)


def _equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(np.array_equal(x, y) for x, y in pairs)


def _numbers(program: Program, name: str) -> list[np.ndarray]:
    """The arrays that a site's distribution is made of, beside latents."""
    node, tape = program[name], program.tape
    values = list(node.distribution.values) if isinstance(node, Sample) else []
    made = {v for equation in tape.slice(values) for v in equation.inputs} | set(values)
    return [np.asarray(tape.constants[v]) for v in sorted(made & set(tape.constants))]
