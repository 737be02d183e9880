"""What speaks against sampling a latent through standard noise, and how many rows inform it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import jax
import numpy as np
import numpyro.distributions as dist

from autmarg.analysis.families.location_scale import NotLocationScale, as_location_scale
from autmarg.compat.numpyro import base_of
from autmarg.errors import Refusal, named
from autmarg.ir.nodes import Factor, Node, Observe, Param, Sample, decentered
from autmarg.ir.program import Program

ANCESTRAL = "integrated parent"  # the refusal that the choice of what to integrate out makes
_TRIALS = (dist.BinomialLogits, dist.BinomialProbs)


def refusals(program: Program, node: Sample, integrated: Collection[str]) -> Iterator[Refusal]:
    """Reasons why a latent cannot be re-expressed, the most basic first."""
    name, place = node.name, node.place
    for obstacle in program.obstacles:
        yield Refusal(name, obstacle.rule, obstacle.reason, obstacle.place)
    if name in integrated:
        yield Refusal(name, "integrated", f"'{name}' is integrated out, not sampled", place)
    spec = node.distribution
    try:
        leaves = [program.tape.avals[v] for v in spec.values]
        jax.eval_shape(lambda *a: as_location_scale(spec.unflatten(a)).loc, *leaves)
    except NotLocationScale as found:
        reason = f"'{name}' is {found}, not a location-scale family"
        yield Refusal(name, "family", reason, place)
    if node.scale is not None:
        yield Refusal(name, "scale handler", f"'{name}' is under handlers.scale", place)
    if node.scanned:
        yield Refusal(name, "scan", f"'{name}' is sampled in a scan", place)
    if node.size == 0:
        yield Refusal(name, "empty site", f"'{name}' has no elements", place)
    if decentered(name) in program:
        reason = f"'{name}' needs the name '{decentered(name)}', which another site has"
        yield Refusal(name, "name", reason, place)
    read = [program[p] for p in sorted(node.parents) if p in program]
    if not any(isinstance(p, Sample | Param) for p in read):
        reason = f"'{name}' has a constant prior, so that it is the same in either form"
        yield Refusal(name, "constant prior", reason, place)
    if gone := [p.name for p in read if p.name in integrated]:
        reason = f"its prior reads {named(gone)}, which autmarg integrates out"
        yield Refusal(name, ANCESTRAL, reason, remedy=f"keep={gone} allows the non-centred form")
    for parent in read:
        if isinstance(parent, Sample) and not np.issubdtype(parent.dtype, np.floating):
            reason = f"'{name}' has a prior that reads the discrete site '{parent.name}'"
            yield Refusal(name, "discrete parent", reason, place)


def rows_of(program: Program, child: Node) -> int:
    """Elements of a reader of a latent."""
    return (
        math.prod(program.tape.avals[child.value].shape)
        if isinstance(child, Factor)
        else child.size
    )


def counted(program: Program, child: Observe) -> float:
    """Trials of a binomial site, events of a Poisson one; 0 where they are not known.

    A binomial of n trials informs as n Bernoulli rows do, and a Poisson of mean n as n of mean one.
    """
    known, spec = program.tape.constants, child.distribution
    leaves = [known.get(v, program.tape.avals[v]) for v in spec.values]
    family, value = base_of(spec.unflatten(leaves)), known.get(child.value)
    if isinstance(family, _TRIALS) and isinstance(family.total_count, int | float | np.ndarray):
        return float(np.broadcast_to(family.total_count, child.shape).sum())
    if isinstance(family, dist.Poisson) and isinstance(value, np.ndarray):
        return float(value.sum())
    return 0.0
